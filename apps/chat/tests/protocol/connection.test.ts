import { encode, type Message } from '@clasp-to/core'
import { beforeEach, describe, expect, it, vi } from 'vitest'
import { BURST, Connection, MESSAGES_PER_SECOND, type ConnectionOptions, type Update } from '@/protocol/connection'
import type { Failure } from '@/protocol/errors'
import { FakeClock } from '../support/clock'
import { FakeRelay, type FakeSocket } from '../support/relay'

let clock: FakeClock
let relay: FakeRelay
let sockets: FakeSocket[]
let renewToken: () => Promise<boolean>
let token: string | null

function make(options: Partial<ConnectionOptions> = {}): Connection {
  return new Connection({
    url: 'ws://relay.test/ws',
    makeSocket: () => {
      const socket = relay.connect()
      sockets.push(socket)
      return socket
    },
    clock,
    random: () => 0,
    name: () => 'Alice',
    token: () => token,
    renewToken: () => renewToken(),
    ...options,
  })
}

const turn = async (): Promise<void> => {
  for (let count = 0; count < 20; count++) await Promise.resolve()
}
const socket = (): FakeSocket => sockets.at(-1)!
const types = (from = socket()): string[] => from.received.map((message) => message.type)
const failed = (promise: Promise<unknown>): Promise<Failure> =>
  promise.then(
    () => {
      throw new Error('it succeeded')
    },
    (failure: Failure) => failure,
  )

async function online(options: Partial<ConnectionOptions> = {}): Promise<Connection> {
  const connection = make(options)
  connection.start()
  await turn()
  return connection
}

beforeEach(() => {
  clock = new FakeClock()
  relay = new FakeRelay((callback) => queueMicrotask(callback), clock.now)
  sockets = []
  token = 'token-1'
  renewToken = () => Promise.resolve(false)
})

describe('what a relay has kept', () => {
  const END = '/clasp/replay/end'
  const kept = (value: string, address = '/room/1/messages') => {
    relay.kept.push({ address, value, at: (relay.kept.at(-1)?.at ?? 1_600_000_000_000_000) + 1_000 })
  }
  const tell = (address: string, value: unknown, timestamp?: number): void =>
    socket().tell({ type: 'PUBLISH', address, signal: 'event', value, ...(timestamp && { timestamp }) } as Message)

  it('is read page by page, the newest first, and is no news', async () => {
    relay.keeps = true
    for (const text of ['one', 'two', 'three']) kept(text)
    kept('elsewhere', '/room/2/messages')
    const connection = await online()
    const heard: Update[] = []
    connection.subscribe('/room/*/messages', (update) => heard.push(update))
    await turn()
    const first = await connection.replay('/room/1/messages', 2)
    expect(first.events.map(({ value }) => value)).toEqual(['two', 'three'])
    expect(first.events[0]).toMatchObject({ address: '/room/1/messages', atMs: 1_600_000_000_002 })
    expect(first.complete).toBe(false)
    const second = await connection.replay('/room/1/messages', 2, first.next)
    expect([second.events.map(({ value }) => value), second.complete]).toEqual([['one'], true])
    expect(heard).toEqual([])
  })

  it('is asked for once at a time', async () => {
    relay.keeps = true
    kept('one')
    kept('two', '/room/2/messages')
    const connection = await online()
    const [one, two] = await Promise.all(['/room/1/messages', '/room/2/messages'].map((at) => connection.replay(at, 9)))
    expect([one!.events[0]!.value, two!.events[0]!.value]).toEqual(['one', 'two'])
  })

  it('may be nothing: what is said meanwhile is heard', async () => {
    const connection = await online()
    const heard: unknown[] = []
    connection.subscribe('/room/1/messages', ({ value }) => heard.push(value))
    await turn()
    socket().deaf = true
    const failure = failed(connection.replay('/room/1/messages', 9))
    await turn()
    tell('/room/1/messages', 'older', 1)
    tell('/room/1/messages', 'newer', clock.now() * 1_000 + 1)
    tell('/room/1/messages', 'without a time')
    await turn()
    expect(heard).toEqual(['newer', 'without a time'])
    socket().tell({ type: 'ERROR', code: 501, message: 'no history', address: '/room/1/messages' })
    expect(await failure).toMatchObject({ kind: 'server', detail: 'no history' })
    expect(heard).toEqual(['newer', 'without a time', 'older'])
  })

  it('ends with its own end mark only', async () => {
    const connection = await online()
    tell(END, { pattern: '/room/1/messages', complete: true, next: '5' })
    socket().deaf = true
    const answer = connection.replay('/room/1/messages', 9)
    await turn()
    tell('/room/2/messages', 'another pattern', 1)
    tell(END, null)
    tell(END, { pattern: '/room/2/messages', complete: false, next: '5' })
    tell(END, { pattern: '/room/1/messages', complete: false, next: '5', more: true })
    tell('/room/1/messages', 'one', 1_000)
    tell(END, { pattern: '/room/1/messages', complete: false, next: 'soon' })
    expect(await answer).toEqual({
      events: [{ address: '/room/1/messages', value: 'one', atMs: 1 }],
      complete: true,
      next: 0n,
    })
  })

  it('may come slowly: the answers behind it are waited for', async () => {
    const connection = await online()
    socket().deaf = true
    const answer = connection.replay('/room/1/messages', 9)
    const written = connection.set('/a', 1)
    await turn()
    connection.probe()
    for (let count = 0; count < 10; count += 1) {
      clock.advance(2_900)
      tell('/room/1/messages', count, 1_000)
      await turn()
    }
    expect(connection.online).toBe(true)
    tell(END, { pattern: '/room/1/messages', complete: true, next: '5' })
    socket().tell({ type: 'ACK', address: '/a' } as Message)
    await written
    expect((await answer).events).toHaveLength(10)
  })

  it('is not asked for again when no answer comes', async () => {
    const connection = await online()
    socket().deaf = true
    const failure = failed(connection.replay('/room/1/messages', 9))
    await turn()
    clock.advance(20_000)
    tell('/elsewhere', 1)
    await turn()
    expect((await failure).kind).toMatch(/timeout|offline/)
    expect(relay.replays).toBe(0)
  })
})

describe('connecting', () => {
  it('says who it is and learns its session', async () => {
    const connection = make()
    const phases: string[] = []
    const stop = connection.onStatus((status) => phases.push(status.phase))
    connection.start()
    connection.start()
    await turn()
    expect(socket().received[0]).toEqual({
      type: 'HELLO',
      version: 1,
      name: 'Alice',
      features: ['param', 'event', 'stream'],
      token: 'token-1',
    })
    expect(connection.status).toMatchObject({
      phase: 'online',
      sessionId: 'session-1',
      serverName: 'Fake',
      reason: null,
    })
    expect(phases).toEqual(['connecting', 'online'])
    expect(sockets).toHaveLength(1)
    stop()
    connection.stop()
    expect(phases).toHaveLength(2)
    expect(connection.status.phase).toBe('idle')
  })

  it('goes without a token where there is none', async () => {
    token = null
    await online()
    expect(socket().received[0]).toMatchObject({ type: 'HELLO', token: undefined })
  })

  it('gives up a socket that says nothing, and tries again after a pause', async () => {
    const connection = make({ makeSocket: () => (sockets.push(new FakeSocketOf(relay)), sockets.at(-1)!) })
    connection.start()
    clock.advance(10_000)
    expect(connection.status).toMatchObject({ phase: 'waiting', reason: 'The relay did not answer.' })
    expect(connection.status.retryAtMs).toBe(clock.now() + 250)
    clock.advance(250)
    expect(connection.status.phase).toBe('connecting')
    expect(sockets).toHaveLength(2)
  })

  it('waits longer after each failure, up to half a minute, and not at all when told', async () => {
    relay.down = true
    const connection = await online({ random: () => 1 - Number.EPSILON })
    const pauses: number[] = []
    for (let count = 0; count < 8; count++) {
      pauses.push(Math.round(connection.status.retryAtMs! - clock.now()))
      clock.advance(pauses.at(-1)!)
      await turn()
    }
    expect(pauses).toEqual([500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000])
    relay.down = false
    connection.retryNow()
    await turn()
    expect(connection.online).toBe(true)
    connection.retryNow()
    expect(sockets).toHaveLength(10)
  })

  it('comes back after a loss with another session, and starts with a short pause after a good time', async () => {
    const connection = await online()
    clock.advance(15_000)
    socket().end(1006, 'bye')
    await turn()
    expect(connection.status).toMatchObject({ phase: 'waiting', sessionId: null, reason: 'bye' })
    clock.advance(250)
    await turn()
    expect(connection.status.sessionId).toBe('session-2')
    socket().end()
    await turn()
    expect(connection.status.retryAtMs! - clock.now()).toBe(500)
  })

  it('hears nothing of a socket that it let go', async () => {
    const connection = await online()
    const old = socket()
    const { onmessage } = old
    connection.stop()
    expect(old.onmessage).toBeNull()
    expect(onmessage).not.toBeNull()
    connection.start()
    await turn()
    expect(connection.online).toBe(true)
  })
})

/** A socket that never opens. */
const FakeSocketOf = class {
  binaryType = ''
  onopen = null
  onmessage = null
  onclose = null
  onerror = null
  received: Message[] = []
  constructor(readonly relay: FakeRelay) {}
  send(): void {}
  close(): void {}
} as unknown as new (relay: FakeRelay) => FakeSocket

describe('a refused token', () => {
  it('is renewed once, silently', async () => {
    const connection = await online()
    relay.refuse = 'Your session has expired.'
    renewToken = () => {
      token = 'token-2'
      relay.refuse = null
      return Promise.resolve(true)
    }
    socket().tell({ type: 'ERROR', code: 302, message: 'Your session has expired.' })
    socket().end(1008, 'Your session has expired.')
    await turn()
    expect(connection.online).toBe(true)
    expect(socket().received[0]).toMatchObject({ token: 'token-2' })
  })

  it('that cannot be renewed ends it, until it is started again', async () => {
    relay.refuse = 'Sign in again.'
    const connection = await online()
    expect(connection.status).toMatchObject({ phase: 'refused', reason: 'Sign in again.' })
    clock.advance(120_000)
    expect(sockets).toHaveLength(1)
    relay.refuse = null
    connection.start()
    await turn()
    expect(connection.online).toBe(true)
  })

  it('that is refused again after it was renewed ends it too', async () => {
    relay.refuse = 'No.'
    renewToken = () => Promise.resolve(true)
    const connection = await online()
    await turn()
    expect(sockets).toHaveLength(2)
    expect(connection.status.phase).toBe('refused')
  })

  it('is tried again later when nobody could be asked for another', async () => {
    relay.refuse = 'No.'
    renewToken = () => Promise.reject(new Error('no network'))
    const connection = await online()
    expect(connection.status).toMatchObject({ phase: 'waiting', reason: 'No.' })
    relay.refuse = null
    clock.advance(500)
    await turn()
    expect(connection.online).toBe(true)
  })

  it('does nothing more when it was stopped meanwhile', async () => {
    for (const answer of [() => Promise.resolve(true), () => Promise.reject(new Error('no network'))]) {
      relay.refuse = 'No.'
      let connection: Connection | null = null
      renewToken = () => {
        connection!.stop()
        return answer()
      }
      connection = make()
      connection.start()
      await turn()
      expect(connection.status.phase).toBe('idle')
    }
  })

  it('is told by the close alone, too', async () => {
    const connection = await online()
    socket().end(1008, 'policy')
    await turn()
    expect(connection.status).toMatchObject({ phase: 'refused', reason: 'policy' })
  })
})

describe('a dead socket', () => {
  it('is noticed by silence: it is asked, and replaced when it does not answer', async () => {
    const connection = await online()
    clock.advance(19_000)
    expect(types()).not.toContain('PING')
    clock.advance(1_500)
    expect(types().filter((type) => type === 'PING')).toHaveLength(1)
    await turn()
    clock.advance(8_000)
    expect(connection.online).toBe(true)
    socket().deaf = true
    clock.advance(30_000)
    await turn()
    expect(sockets.length).toBeGreaterThan(1)
  })

  it('is noticed at once after a sleep', async () => {
    const connection = await online()
    socket().deaf = true
    connection.probe()
    clock.advance(2_900)
    expect(connection.online).toBe(true)
    clock.advance(200)
    expect(connection.status.phase).toBe('waiting')
    connection.probe()
    await turn()
    expect(connection.online).toBe(true)
    connection.probe()
    await turn()
    clock.advance(5_000)
    expect(connection.online).toBe(true)
  })

  it('is given up soon when the browser is offline and the relay does not answer', async () => {
    const connection = await online()
    socket().deaf = true
    connection.probe(1_000)
    clock.advance(1_100)
    expect(connection.status.phase).toBe('waiting')
  })

  it('answers a PING of the relay', async () => {
    await online()
    socket().tell({ type: 'PING' })
    await turn()
    expect(types().at(-1)).toBe('PONG')
  })

  it('is not brought about by what nobody can read', async () => {
    const connection = await online()
    socket().onmessage?.({ data: 'text' })
    socket().onmessage?.({ data: new Uint8Array([1, 2, 3, 4, 5]).buffer })
    socket().tell({ type: 'PONG' })
    socket().tell({ type: 'ACK' })
    socket().tell({ type: 'SYNC', t1: 1 })
    await turn()
    expect(connection.online).toBe(true)
  })
})

describe('what is stored', () => {
  it('is confirmed by the ACK and fails with the relay’s words', async () => {
    const connection = await online()
    await connection.set('/a', 1)
    expect(relay.value('/a')).toBe(1)
    relay.policy = (message) => (message.type === 'SET' ? { code: 403, message: 'Not yours.' } : null)
    expect(await failed(connection.set('/a', 2))).toMatchObject({ kind: 'forbidden', message: 'Not yours.' })
  })

  it('may have a life of its own', async () => {
    const connection = await online()
    await connection.set('/a', 1, { ttlS: 60 })
    expect(relay.value('/a')).toBe(1)
  })

  it('is overtaken by a newer value while it waits', async () => {
    const connection = make()
    const one = connection.set('/a', 1, { durable: true })
    const other = connection.set('/b', 1, { durable: true })
    const two = connection.set('/a', 2, { durable: true })
    connection.start()
    await Promise.all([one, other, two])
    const sets = socket().received.flatMap((message) =>
      message.type === 'SET' ? [[message.address, message.value]] : [],
    )
    expect(sets).toEqual([
      ['/b', 1],
      ['/a', 2],
    ])
  })

  it('fails with what overtook it', async () => {
    const connection = make()
    relay.policy = (message) => (message.type === 'SET' ? { code: 400, message: 'No.' } : null)
    const both = [connection.set('/a', 1, { durable: true }), connection.set('/a', 2, { durable: true })].map(failed)
    connection.start()
    expect((await Promise.all(both)).map((failure) => failure.kind)).toEqual(['conflict', 'conflict'])
  })

  it('fails at once without a connection, unless it may wait', async () => {
    const connection = make()
    expect(await failed(connection.set('/a', 1))).toMatchObject({ kind: 'offline' })
    const waiting = connection.set('/b', 2, { durable: true })
    connection.start()
    await waiting
    expect(relay.value('/b')).toBe(2)
  })

  it('is repeated after a loss if it may wait, and fails if not', async () => {
    const connection = await online()
    socket().deaf = true
    const durable = connection.set('/a', 1, { durable: true })
    const hasty = failed(connection.set('/b', 1))
    await turn()
    socket().end()
    expect(await hasty).toMatchObject({ kind: 'offline' })
    clock.advance(30_000)
    await durable
    expect(relay.value('/a')).toBe(1)
    expect(relay.value('/b')).toBeUndefined()
  })

  it('fails when it is stopped', async () => {
    const connection = await online()
    socket().deaf = true
    const sent = failed(connection.set('/a', 1, { durable: true }))
    await turn()
    connection.stop()
    expect(await sent).toMatchObject({ kind: 'offline' })
    const queued = failed(connection.set('/a', 1, { durable: true }))
    connection.stop()
    expect(await queued).toMatchObject({ kind: 'offline' })
  })

  it('is asked for again when no answer comes, and fails after four times', async () => {
    const connection = await online()
    const pings = relay.take.bind(relay)
    relay.take = (from, message) => (message.type === 'SET' ? undefined : pings(from, message))
    const result = failed(connection.set('/a', 1))
    for (let seconds = 0; seconds < 70; seconds += 1) {
      clock.advance(1_000)
      await turn()
    }
    expect(await result).toMatchObject({ kind: 'timeout' })
    expect(types().filter((type) => type === 'SET')).toHaveLength(4)
    expect(connection.online).toBe(true)
  })

  it('does not leave when it does not fit a frame', async () => {
    const connection = await online()
    expect(await failed(connection.set('/a', 'x'.repeat(70_000)))).toMatchObject({ kind: 'tooLarge' })
    await connection.set('/a', 1)
  })
})

describe('what is asked for', () => {
  it('is the value, or null where there is none', async () => {
    const connection = await online()
    relay.put('/a', { x: 1 })
    expect(await Promise.all([connection.get('/a'), connection.get('/a'), connection.get('/b')])).toEqual([
      { x: 1 },
      { x: 1 },
      null,
    ])
  })
})

describe('what is emitted', () => {
  it('is confirmed by the answer to a PING behind it', async () => {
    const connection = await online()
    const sent = vi.fn()
    await connection.publish('/a', 'x', { onSent: sent })
    expect(sent).toHaveBeenCalledOnce()
    expect(types().slice(-2)).toEqual(['PUBLISH', 'PING'])
    expect(relay.published).toMatchObject([{ address: '/a', value: 'x' }])
  })

  it('fails by the ERROR before that answer, each on its own', async () => {
    const connection = await online()
    relay.policy = (message) =>
      message.type === 'PUBLISH' && message.value === 2 ? { code: 301, message: 'No.' } : null
    const results = await Promise.allSettled([1, 2, 3].map((value) => connection.publish('/a', value)))
    expect(results.map((result) => result.status)).toEqual(['fulfilled', 'rejected', 'fulfilled'])
  })

  it('shares a PING where the addresses differ', async () => {
    const connection = make()
    const both = [connection.publish('/a', 1, { durable: true }), connection.publish('/b', 2, { durable: true })]
    connection.start()
    await Promise.all(both)
    expect(types().filter((type) => type === 'PING')).toHaveLength(1)
  })

  it('does not leave when its guard says no', async () => {
    const connection = await online()
    expect(await failed(connection.publish('/a', 1, { guard: () => false }))).toMatchObject({ kind: 'conflict' })
    await connection.publish('/a', 2, { guard: () => true })
    expect(relay.published).toHaveLength(1)
  })
})

describe('subscriptions', () => {
  const hear = (connection: Connection, pattern: string) => {
    const updates: Update[] = []
    const refusals: string[] = []
    const stop = connection.subscribe(
      pattern,
      (update) => updates.push(update),
      (failure) => refusals.push(failure.message),
    )
    return { updates, refusals, stop }
  }

  it('hear what is stored, what is written and what is emitted', async () => {
    relay.put('/a/1', 'old')
    clock.advance(4_000)
    const connection = await online()
    const { updates, stop } = hear(connection, '/a/*')
    const elsewhere = hear(connection, '/b/*')
    await turn()
    await connection.set('/a/2', 'new')
    relay.emit('/a/3', 'event', 1_234_500)
    socket().tell({ type: 'PUBLISH', address: '/a/4', signal: 'event', samples: [1] })
    socket().tell({ type: 'SNAPSHOT', params: [{ address: '/a/5', value: 7, revision: 1 }] })
    await turn()
    expect(updates).toEqual([
      { address: '/a/1', value: 'old', kind: 'snapshot', ageMs: 4_000, atMs: null },
      { address: '/a/2', value: 'new', kind: 'set', ageMs: 0, atMs: null },
      { address: '/a/3', value: 'event', kind: 'publish', ageMs: 0, atMs: 1_234.5 },
      { address: '/a/4', value: null, kind: 'publish', ageMs: 0, atMs: null },
      { address: '/a/5', value: 7, kind: 'snapshot', ageMs: null, atMs: null },
    ])
    stop()
    stop()
    await turn()
    expect(types().at(-1)).toBe('UNSUBSCRIBE')
    relay.emit('/a/3', 'unheard')
    await turn()
    expect(updates).toHaveLength(5)
    expect(elsewhere.updates).toEqual([])
    // Lost in the very moment in which it is given up: there is nothing left to give up.
    elsewhere.stop()
    socket().onclose?.({ code: 1006, reason: '' })
    await turn()
    expect(connection.status.phase).toBe('waiting')
  })

  it('are made again after a loss, behind what is said first', async () => {
    const connection = await online()
    const { updates } = hear(connection, '/a')
    const off = connection.onOnline(() => {
      connection.set('/second', 1).catch(() => undefined)
      connection.set('/first/1', 1, { urgent: true }).catch(() => undefined)
      connection.set('/first/2', 1, { urgent: true }).catch(() => undefined)
    })
    const kept = connection.publish('/kept', 1, { durable: true })
    socket().end()
    await turn()
    clock.advance(1_000)
    await kept
    const order = socket().received.map((message) =>
      'pattern' in message ? message.pattern : 'address' in message ? message.address : message.type,
    )
    expect(order).toEqual(['HELLO', '/first/1', '/first/2', '/second', '/a', '/kept', 'PING'])
    relay.put('/a', 1)
    await turn()
    expect(updates).toHaveLength(1)
    off()
  })

  it('say why they were refused, and a loss is no refusal', async () => {
    const connection = await online()
    relay.policy = (message) => (message.type === 'SUBSCRIBE' ? { code: 301, message: 'No scope.' } : null)
    const { refusals } = hear(connection, '/a')
    connection.subscribe('/silent', () => undefined)
    await turn()
    expect(refusals).toEqual(['No scope.'])
    socket().deaf = true
    hear(connection, '/b')
    await turn()
    socket().end()
    await turn()
    expect(refusals).toEqual(['No scope.'])
  })

  it('that were given up before they left are not made', async () => {
    const connection = make()
    const { stop } = hear(connection, '/a')
    stop()
    connection.start()
    await turn()
    expect(types()).not.toContain('SUBSCRIBE')
    for (let count = 0; count < BURST + 10; count++) connection.set(`/x/${count}`, 1).catch(() => undefined)
    hear(connection, '/late').stop()
    await turn()
    expect(types()).not.toContain('SUBSCRIBE')
  })
})

describe('the own limit', () => {
  it('lets a burst through and then so many a second', async () => {
    const connection = await online()
    for (let count = 0; count < BURST + 100; count++) connection.set(`/x/${count}`, 1).catch(() => undefined)
    const sets = () => types().filter((type) => type === 'SET').length
    await turn()
    expect(sets()).toBe(BURST)
    for (let step = 0; step < 20; step++) clock.advance(50)
    expect(sets()).toBeGreaterThanOrEqual(BURST + MESSAGES_PER_SECOND - 2)
    expect(sets()).toBeLessThanOrEqual(BURST + MESSAGES_PER_SECOND)
    clock.advance(5_000)
    expect(sets()).toBe(BURST + 100)
  })

  it('holds back also the PING that confirms', async () => {
    const connection = await online()
    for (let count = 0; count < BURST - 1; count++) connection.set(`/x/${count}`, 1).catch(() => undefined)
    const last = connection.publish('/last', 1)
    await turn()
    expect(types().filter((type) => type === 'PING')).toHaveLength(0)
    clock.advance(100)
    await last
    expect(types().filter((type) => type === 'PING')).toHaveLength(1)
  })

  it('counts the PINGs that confirm', async () => {
    const connection = await online()
    const all = Array.from({ length: BURST }, (_, count) => connection.publish('/x', count))
    expect(types().length).toBeLessThanOrEqual(BURST + 1)
    for (let step = 0; step < 300; step++) {
      clock.advance(50)
      await turn()
    }
    await Promise.all(all)
    expect(relay.published.map((each) => each.value)).toEqual(Array.from({ length: BURST }, (_, count) => count))
  })

  it('slows down at the relay’s, and sends again what may have been dropped', async () => {
    const connection = await online()
    let refusals = 1
    relay.policy = (message) => {
      if (message.type !== 'SET' || refusals === 0) return null
      refusals -= 1
      return { code: 429, message: 'Too fast.', unnamed: true }
    }
    const stored = connection.set('/a', 1)
    await turn()
    expect(relay.value('/a')).toBeUndefined()
    clock.advance(1_000)
    expect(types().filter((type) => type === 'SET')).toHaveLength(1)
    clock.advance(1_000)
    await stored
    expect(relay.value('/a')).toBe(1)
  })

  it('takes a 429 about a counted try as its answer', async () => {
    const connection = await online()
    relay.policy = (message) => (message.type === 'SET' ? { code: 429, message: 'Five tries a minute.' } : null)
    expect(await failed(connection.set('/proof', 'x'))).toMatchObject({ kind: 'tooMany' })
  })

  it('reports a subscription that is one too many, and does not repeat it', async () => {
    const connection = await online()
    relay.policy = (message) => (message.type === 'SUBSCRIBE' ? { code: 429, message: 'Too many.' } : null)
    const heard: [string, string | null][] = []
    connection.onError((failure, address) => heard.push([failure.kind, address]))
    const refused: string[] = []
    connection.subscribe(
      '/a/*',
      () => undefined,
      (failure) => refused.push(failure.kind),
    )
    for (let step = 0; step < 50; step++) {
      clock.advance(100)
      await turn()
    }
    expect([heard, refused]).toEqual([[['tooMany', '/a/*']], ['tooMany']])
    expect(types().filter((type) => type === 'SUBSCRIBE')).toHaveLength(1)
  })

  it('gives up after four times', async () => {
    const connection = await online()
    relay.policy = (message) => (message.type === 'SET' ? { code: 429, message: 'Too fast.', unnamed: true } : null)
    const result = failed(connection.set('/a', 1))
    for (let step = 0; step < 100; step++) {
      clock.advance(100)
      await turn()
    }
    expect(await result).toMatchObject({ kind: 'tooMany', message: 'Too fast.' })
  })
})

describe('errors about nothing that waits', () => {
  it('go to whoever listens', async () => {
    const connection = await online()
    const heard: [string, string | null][] = []
    const stop = connection.onError((failure, address) => heard.push([failure.kind, address]))
    socket().tell({ type: 'ERROR', code: 503, message: 'Too slow.' })
    socket().tell({ type: 'ERROR', code: 200, message: 'Bad address.', address: '/nobody' })
    await turn()
    stop()
    socket().tell({ type: 'ERROR', code: 500, message: 'Unheard.' })
    await turn()
    expect(heard).toEqual([
      ['server', null],
      ['invalid', '/nobody'],
    ])
  })
})

describe('time', () => {
  it('is the relay’s, also where the own clock is wrong', async () => {
    const connection = await online()
    const bytes = encode({
      type: 'WELCOME',
      version: 1,
      session: 's',
      name: 'n',
      features: [],
      time: (clock.now() + 5_000) * 1000,
    })
    socket().onmessage?.({ data: bytes.slice().buffer })
    expect(connection.serverNow()).toBe(clock.now() + 5_000)
  })
})

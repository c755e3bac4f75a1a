import { beforeEach, describe, expect, it } from 'vitest'
import { COMMANDS, expandCommand } from '@/stores/messages/commands'
import { seeded } from '../random'
import { breathe } from '../support/clock'
import type { Tester } from '../support/person'
import { World } from './world'

let world: World
let alice: Tester
let bob: Tester
let roomId: string

const shown = (tester: Tester) => tester.messages.timeline(roomId).filter((message) => message.kind !== 'system')
const texts = (tester: Tester) => shown(tester).map((message) => message.text)
const lines = (tester: Tester) =>
  tester.messages
    .timeline(roomId)
    .filter((message) => message.kind === 'system')
    .map(({ line }) => (line ? `${line.kind} ${line.params.name ?? ''}` : ''))

beforeEach(async () => {
  world = new World()
  alice = await world.person('Alice')
  bob = await world.person('Bob')
  roomId = await world.room(alice, [bob])
})

/** Fills a room's history as if it had been received. */
async function fill(tester: Tester, count: number): Promise<void> {
  const rows = Array.from({ length: count }, (_, at) => ({
    roomId,
    msgId: `m-${at}`,
    userId: 'olga',
    sessionId: 's',
    name: 'Olga',
    color: '#123456',
    kind: 'text' as const,
    text: `message ${at}`,
    image: null,
    alt: '',
    timestamp: 1_000 + at,
    replyTo: null,
    edited: false,
    deleted: false,
    unproven: false,
    delivery: 'confirmed' as const,
    failure: null,
    secrecy: 'plain' as const,
    verification: 'unsigned' as const,
    relayedBy: null,
  }))
  await tester.runtime.storage.messages.addMissing(rows)
}

describe('history', () => {
  /** Alice's page, opened again on what is stored. */
  async function reopened(count: number): Promise<Tester> {
    await fill(alice, count)
    await alice.runtime.end(false)
    const again = world.make('Alice', alice.local)
    await again.session.restore()
    await again.messages.reveal(roomId, `m-${count - 1}`)
    return again
  }

  it('pages in, oldest first, until there is no more', async () => {
    const again = await reopened(120)
    expect(shown(again)).toHaveLength(50)
    expect(shown(again).at(-1)!.text).toBe('message 119')
    expect(again.messages.hasOlder(roomId)).toBe(true)
    await again.messages.loadOlder(roomId)
    await again.messages.loadOlder(roomId)
    await again.messages.loadOlder(roomId)
    expect(texts(again)).toEqual(Array.from({ length: 120 }, (_, at) => `message ${at}`))
    expect(again.messages.hasOlder(roomId)).toBe(false)
  })

  it('goes as far back as a message that somebody wants to see', async () => {
    const again = await reopened(300)
    expect(await again.messages.reveal(roomId, 'm-100')).toBe(true)
    expect(shown(again)[0]!.text).toBe('message 50')
    expect(shown(again)).toHaveLength(250)
    expect(await again.messages.reveal(roomId, 'm-100')).toBe(true)
    expect(await again.messages.reveal(roomId, 'nothing')).toBe(false)
  })

  it('is searched, in one room or all', async () => {
    const again = await reopened(30)
    expect((await again.messages.search('MESSAGE 2', roomId)).map((message) => message.text)).toEqual([
      ...Array.from({ length: 9 }, (_, at) => `message ${29 - at}`),
      'message 20',
      'message 12',
      'message 2',
    ])
    expect(await again.messages.search('nowhere')).toEqual([])
  })

  it('of thousands of messages takes a new one without building the others anew', async () => {
    const again = await reopened(3_000)
    await again.messages.reveal(roomId, 'm-0')
    const before = shown(again)
    expect(before).toHaveLength(3_000)
    await world.pass(300)
    await world.done(again.messages.send(roomId, { text: 'one more' }))
    const after = shown(again)
    expect(after).toHaveLength(3_001)
    expect(before.every((message, at) => after[at] === message)).toBe(true)
  })

  it('reaches a newcomer from at most two of many, once', async () => {
    const others = [await world.person('Carol'), await world.person('Dave'), await world.person('Erin')]
    for (const other of others) await world.done(other.rooms.join(roomId))
    for (let count = 0; count < 5; count++)
      await world.done(alice.messages.send(roomId, { text: `line ${count}` }), 200)
    world.relay.published.length = 0
    const frank = await world.person('Frank')
    await world.done(frank.rooms.join(roomId))
    frank.messages.timeline(roomId)
    await world.pass(8_000)
    expect(texts(frank)).toEqual(['line 0', 'line 1', 'line 2', 'line 3', 'line 4'])
    const calls = world.emitted(`/chat/room/${roomId}/history/call`) as {
      type: string
      requestId: string
      userId: string
    }[]
    const asked = calls.filter((call) => call.type === 'request' && call.userId === frank.userId)
    expect(asked).toHaveLength(1)
    const offers = calls.filter((call) => call.type === 'offer' && call.requestId === asked[0]!.requestId)
    expect(offers.length).toBeGreaterThanOrEqual(1)
    expect(offers.length).toBeLessThanOrEqual(2)
    // Others, who found nobody to ask when they came, may ask Frank now, and take what he offers by the same address.
    const mail = world.emitted(`/chat/room/${roomId}/history/to/${frank.userId}`) as { type: string }[]
    expect(mail.filter(({ type }) => type === 'part')).toHaveLength(1)
    expect(frank.rooms.byId[roomId]!.unread).toBe(5)
  })

  /** Lets one back in while the relay takes nobody else. */
  async function comesBack(tester: Tester, ms: number): Promise<void> {
    world.relay.down = false
    tester.connection.retryNow()
    await world.pass(100)
    world.relay.down = true
    await world.pass(ms)
  }

  function loses(tester: Tester): void {
    for (const socket of [...world.relay.sockets]) if (socket.subject === tester.userId) socket.end()
  }

  async function relayStops(): Promise<void> {
    world.relay.down = true
    world.relay.restart()
    await world.pass(500)
  }

  it('reaches who comes back later than its sender, also where the sender is away again just then', async () => {
    await relayStops()
    await alice.messages.send(roomId, { text: 'meanwhile' })
    await comesBack(alice, 2_000)
    expect(shown(alice).at(-1)).toMatchObject({ delivery: 'confirmed' })
    loses(alice)
    await comesBack(bob, 6_000)
    expect(texts(bob)).toEqual([])
    await comesBack(alice, 10_000)
    expect(texts(bob)).toEqual(['meanwhile'])
    await world.pass(60_000)
    const calls = world.emitted(`/chat/room/${roomId}/history/call`) as { type: string; userId: string }[]
    expect(calls.filter((call) => call.type === 'offer' && call.userId === alice.userId)).toHaveLength(1)
  })

  it('is asked of who appears after everybody else had nothing, and no more once there is an answer', async () => {
    await relayStops()
    await alice.messages.send(roomId, { text: 'meanwhile' })
    await comesBack(alice, 2_000)
    loses(alice)
    await comesBack(bob, 120_000)
    world.relay.published.length = 0
    await world.pass(60_000)
    expect(world.emitted(`/chat/room/${roomId}/history/call`)).toEqual([])
    await comesBack(alice, 6_000)
    expect(texts(bob)).toEqual(['meanwhile'])
  })

  it('is asked a few times where nobody has any, and never of a room that was left', async () => {
    const requests = () =>
      (world.emitted(`/chat/room/${roomId}/history/call`) as { type: string; userId: string }[]).filter(
        (call) => call.type === 'request' && call.userId === bob.userId,
      ).length
    await world.pass(120_000)
    expect(requests()).toBe(4)
    await relayStops()
    world.relay.down = false
    bob.connection.retryNow()
    await world.pass(4_000)
    expect(requests()).toBe(5)
    await world.done(bob.rooms.leave(roomId))
    await world.pass(60_000)
    expect(requests()).toBe(5)
  })

  it('reaches back to where one was cut off, whatever one wrote oneself since then', async () => {
    await relayStops()
    await alice.messages.send(roomId, { text: 'early' })
    await comesBack(alice, 100_000)
    await bob.messages.send(roomId, { text: 'late' })
    await comesBack(bob, 6_000)
    expect(texts(bob)).toEqual(['early', 'late'])
  })

  it('brings edits and deletes that one missed, where their authors signed them', async () => {
    for (const text of ['keep', 'change', 'remove']) await world.done(alice.messages.send(roomId, { text }))
    const carol = await world.person('Carol')
    await world.done(carol.rooms.join(roomId))
    carol.messages.timeline(roomId)
    await world.pass(6_000)
    expect(texts(carol)).toEqual(['keep', 'change', 'remove'])
    const [, changed, removed] = shown(alice)
    loses(bob)
    world.relay.down = true
    await world.done(alice.messages.edit(roomId, changed!.msgId, 'changed'))
    await world.done(alice.messages.remove(roomId, removed!.msgId))
    await world.pass(100_000)
    // Carol, who heard of them, helps; Alice is away.
    loses(alice)
    await comesBack(bob, 10_000)
    expect(shown(bob)).toMatchObject([
      { text: 'keep', edited: false },
      { text: 'changed', edited: true, unproven: false, relayedBy: null },
      { text: '', deleted: true, unproven: false },
    ])
  })

  describe('of a helper that lies', () => {
    /** Answers Bob's next request for history, in another's name, with these rows. */
    async function lie(rows: object[], part: object = {}): Promise<void> {
      await world.pass(12_000)
      world.relay.published.length = 0
      loses(bob)
      await world.pass(2_500)
      const asked = (
        world.emitted(`/chat/room/${roomId}/history/call`) as { requestId: string; userId: string }[]
      ).find((call) => call.userId === bob.userId)
      const { requestId } = asked!
      const head = { userId: 'mallory', requestId }
      world.relay.emit(`/chat/room/${roomId}/history/call`, { ...head, type: 'offer', count: 200 })
      await world.pass(500)
      const messages = rows as never[]
      const mail = { ...head, type: 'part', last: true, messages, ...part }
      world.relay.emit(`/chat/room/${roomId}/history/to/${bob.userId}`, mail)
      await world.pass(1_000)
    }

    const row = (part: object = {}) => ({
      from: 'Bob',
      fromId: 'session-x',
      userId: bob.userId,
      msgId: 'forged-1',
      text: 'I never said this',
      timestamp: world.clock.now(),
      type: 'text',
      ...part,
    })

    it('nothing is shown of somebody whose devices sign, and of others nothing without a mark', async () => {
      const sig2 = `${'A'.repeat(86)}==`
      const device = { deviceId: alice.runtime.identity.deviceId, sig2 }
      await lie([row(), row({ msgId: 'forged-2', userId: alice.userId, ...device }), row({ msgId: 'forged-3', sig2 })])
      expect(texts(bob)).toEqual([])
      await lie([row({ userId: 'olga', signature: sig2 })])
      const forged = shown(bob).find((message) => message.msgId === 'forged-1')!
      expect(forged).toMatchObject({ own: false, verification: 'unsigned', relayedBy: { userId: 'mallory' } })
      expect(bob.messages.canEdit(forged)).toBe(false)
      await expect(bob.messages.edit(roomId, 'forged-1', 'x')).rejects.toMatchObject({ kind: 'forbidden' })
    })

    it('no edit and no delete is taken that its author did not sign', async () => {
      await world.done(alice.messages.send(roomId, { text: 'true' }))
      const { msgId } = shown(bob)[0]!
      const change = { fromId: 's', userId: alice.userId, targetId: msgId, timestamp: world.clock.now() + 1_000 }
      const signature = `${'A'.repeat(86)}==`
      const head = { userId: alice.userId, from: 'Alice', msgId }
      await lie([row({ ...head, text: 'false', change: { ...change, type: 'edit', text: 'false', signature } })])
      await lie([row({ ...head, deleted: true, change: { ...change, type: 'delete', signature } })])
      await lie([row({ ...head, deleted: true, change: { ...change, userId: 'mallory', type: 'delete', signature } })])
      expect(shown(bob)[0]).toMatchObject({ text: 'true', edited: false, deleted: false, relayedBy: null })
    })

    it('nothing unencrypted is taken in an encrypted room', async () => {
      await world.done(alice.rooms.enableEncryption(roomId))
      await world.pass(5_000)
      await lie([row()])
      expect(texts(bob)).toEqual([])
    })
  })

  it('from somebody who was not asked is not taken', async () => {
    const part = { type: 'part', userId: 'mallory', requestId: 'r', last: true }
    const messages = [{ fromId: 's', msgId: 'm', text: 'false', timestamp: 1, type: 'text', from: 'x' }]
    world.relay.emit(`/chat/room/${roomId}/history/to/${bob.userId}`, { ...part, messages })
    world.relay.emit(`/chat/room/${roomId}/history/to/${bob.userId}`, {
      type: 'take',
      userId: 'mallory',
      requestId: 'r',
    })
    await world.pass(500)
    expect(texts(bob)).toEqual([])
    expect(world.emitted(`/chat/room/${roomId}/history/to/mallory`)).toEqual([])
  })
})

describe('two tabs of one browser', () => {
  it('show and count what arrives in both, also where the other one has stored it first', async () => {
    const tab = world.make('Bob', bob.local)
    await world.done(tab.session.restore())
    tab.messages.timeline(roomId)
    await world.pass(4_000)
    // This tab is slower than the other one at everything.
    const { messages } = tab.runtime.storage
    const about = messages.about.bind(messages)
    let shownByOther = (): void => undefined
    const slowly = () => {
      const other = new Promise<void>((resolve) => (shownByOther = resolve))
      messages.about = async (...where) => {
        await other
        return about(...where)
      }
    }
    slowly()
    await world.done(alice.messages.send(roomId, { text: 'to both @Bob' }))
    expect([texts(bob), texts(tab)]).toEqual([['to both @Bob'], []])
    shownByOther()
    await world.pass(500)
    expect(texts(tab)).toEqual(['to both @Bob'])
    for (const each of [bob, tab]) expect(each.rooms.byId[roomId]).toMatchObject({ unread: 1, mentions: 1 })
    slowly()
    await world.done(alice.messages.edit(roomId, shown(alice)[0]!.msgId, 'to all'))
    shownByOther()
    await world.pass(500)
    expect(shown(tab)).toMatchObject([{ text: 'to all', edited: true, verification: 'verified' }])
    expect((await tab.messages.search('all', roomId)).map(({ text }) => text)).toEqual(['to all'])
    slowly()
    await world.done(alice.messages.remove(roomId, shown(alice)[0]!.msgId))
    shownByOther()
    await world.pass(500)
    expect(shown(tab)).toMatchObject([{ deleted: true }])
  })
})

describe('a mention', () => {
  it('is one’s whole name, wherever it stands', async () => {
    const anna = await world.person('Anna')
    await world.done(anna.rooms.join(roomId))
    for (const text of ['@Annabel', '@Annabel and @Anna', '@anna!', 'Anna'])
      await world.done(alice.messages.send(roomId, { text }))
    anna.messages.timeline(roomId)
    await breathe()
    expect(shown(anna).map((message) => message.mentionsMe)).toEqual([false, true, true, false])
  })
})

describe('the open room', () => {
  it('is read when one comes back to the window', async () => {
    bob.rooms.activate(roomId)
    bob.state.attended = false
    await world.done(alice.messages.send(roomId, { text: 'x' }))
    expect(bob.rooms.byId[roomId]!.unread).toBe(1)
    bob.state.attended = true
    bob.listeners.wake()
    expect(bob.rooms.byId[roomId]!.unread).toBe(0)
    await world.pass(2_000)
    expect(world.relay.value(`/chat/room/${roomId}/receipts/${bob.userId}`)).toBeDefined()
  })

  it('says that it asks for what was missed, until there is an answer', async () => {
    const carol = await world.person('Carol')
    await world.done(alice.messages.send(roomId, { text: 'x' }))
    await world.done(carol.rooms.join(roomId))
    carol.messages.timeline(roomId)
    expect(carol.messages.catchingUp(roomId)).toBe(true)
    await world.pass(6_000)
    expect([carol.messages.catchingUp(roomId), texts(carol)]).toEqual([false, ['x']])
    const alone = await world.done(carol.rooms.create({ name: 'Alone', isPublic: false, encrypted: false }))
    expect(carol.messages.catchingUp(alone)).toBe(false)
  })

  it('after a reload is known before anybody asks whether one is in it, with its unread part', async () => {
    bob.rooms.activate(roomId)
    await world.done(alice.messages.send(roomId, { text: 'read' }))
    bob.rooms.activate(null)
    await world.pass(100)
    const { lastActivityMs } = bob.rooms.byId[roomId]!
    await world.done(alice.messages.send(roomId, { text: 'unread' }))
    await bob.runtime.end(false)
    const again = world.make('Bob', bob.local)
    expect(again.rooms.ready).toBe(false)
    const restored = again.session.restore()
    await world.done(restored)
    expect(again.rooms.ready).toBe(true)
    expect(again.rooms.byId[roomId]).toMatchObject({ joined: true, unread: 1 })
    again.rooms.activate(roomId)
    expect(again.messages.unreadSince(roomId)).toBe(lastActivityMs)
  })
})

describe('a message that waited for long', () => {
  it('leaves with the time at which it leaves, on both sides', async () => {
    world.relay.down = true
    world.relay.restart()
    await world.pass(500)
    await alice.messages.send(roomId, { text: 'late' })
    const written = world.clock.now()
    await world.pass(600_000)
    world.relay.down = false
    alice.connection.retryNow()
    bob.connection.retryNow()
    await world.pass(5_000)
    const [sent] = shown(alice)
    expect(sent!.timestamp).toBeGreaterThan(written + 500_000)
    expect(shown(bob)[0]).toMatchObject({ text: 'late', timestamp: sent!.timestamp })
  })
})

describe('a browser that does not store', () => {
  it('shows messages all the same, and says once that it is full', async () => {
    const { messages } = alice.runtime.storage
    messages.put = messages.record = () => Promise.reject(new DOMException('full', 'QuotaExceededError'))
    await world.done(alice.messages.send(roomId, { text: 'one' }))
    await world.done(bob.messages.send(roomId, { text: 'two' }))
    expect(shown(alice)).toMatchObject([{ text: 'one', delivery: 'confirmed' }, { text: 'two' }])
    expect(alice.notifications.notices.map((notice) => notice.key)).toEqual(['errors.storage'])
  })

  it('and whose database a newer version took goes on in memory', async () => {
    alice.messages.timeline(roomId)
    await breathe()
    await new Promise<void>((resolve, reject) => {
      const request = indexedDB.open(`clasp-relay-chat-${alice.userId}`, 99)
      request.onsuccess = () => {
        request.result.close()
        resolve()
      }
      request.onerror = () => reject(request.error as Error)
    })
    expect(alice.notifications.notices.map((notice) => notice.key)).toEqual(['notices.storageTaken'])
    await world.done(bob.messages.send(roomId, { text: 'still arrives' }))
    await world.done(alice.messages.send(roomId, { text: 'still leaves' }))
    expect(shown(alice).map((message) => message.text)).toEqual(['still arrives', 'still leaves'])
    expect(texts(bob)).toEqual(['still arrives', 'still leaves'])
  })

  it('at all lets one talk, and says that nothing is kept', async () => {
    const { open } = indexedDB
    indexedDB.open = () => {
      throw new DOMException('refused', 'SecurityError')
    }
    const carol = await world.person('Carol')
    indexedDB.open = open
    await world.pass(100)
    expect(carol.notifications.notices.map((notice) => notice.key)).toEqual(['notices.storageRefused'])
    await world.done(carol.rooms.join(roomId))
    carol.messages.timeline(roomId)
    await world.done(carol.messages.send(roomId, { text: 'hello' }))
    expect(texts(bob)).toEqual(['hello'])
    expect(texts(carol)).toEqual(['hello'])
  })
})

describe('sending', () => {
  it('takes only what can be sent', async () => {
    const send = (message: Parameters<Tester['messages']['send']>[1], room = roomId) =>
      alice.messages.send(room, message)
    await expect(send({ text: '   ' })).rejects.toMatchObject({ kind: 'invalid' })
    await expect(send({ text: 'x'.repeat(2_001) })).rejects.toMatchObject({ kind: 'tooLarge' })
    await expect(send({ text: '', image: { dataUrl: 'https://x.test/y.png', alt: '' } })).rejects.toMatchObject({
      kind: 'invalid',
    })
    await expect(send({ text: 'x' }, '00000000-0000-4000-8000-000000000000')).rejects.toMatchObject({ kind: 'missing' })
    await world.done(send({ text: '漢'.repeat(2_000) }))
    expect(shown(bob)[0]!.text).toHaveLength(2_000)
  })

  it('shows what was refused as failed, and tries again or forgets when told', async () => {
    const refuse: typeof world.relay.policy = (message) =>
      message.type === 'PUBLISH' ? { code: 403, message: 'Not now.' } : null
    world.relay.policy = refuse
    await world.done(alice.messages.send(roomId, { text: 'one' }))
    await world.done(alice.messages.send(roomId, { text: 'two' }))
    expect(shown(alice)).toMatchObject([
      { delivery: 'failed', failure: { kind: 'forbidden', reason: null, detail: 'Not now.' } },
      { delivery: 'failed', failure: { kind: 'forbidden', detail: 'Not now.' } },
    ])
    expect(alice.messages.canEdit(shown(alice)[0]!)).toBe(false)
    world.relay.policy = () => null
    const [one, two] = shown(alice) as [ReturnType<typeof shown>[0], ReturnType<typeof shown>[0]]
    await world.done(alice.messages.retry(roomId, one.msgId))
    // It stands where the relay accepted it: after what was written meanwhile.
    expect(shown(alice)).toMatchObject([
      { text: 'two', delivery: 'failed' },
      { text: 'one', delivery: 'confirmed', failure: null },
    ])
    await alice.messages.discard(roomId, two.msgId)
    await alice.messages.discard(roomId, one.msgId)
    expect(texts(alice)).toEqual(['one'])
    expect(texts(bob)).toEqual(['one'])
  })

  it('retries after a reload what had failed before it', async () => {
    world.relay.policy = (message) => (message.type === 'PUBLISH' ? { code: 403, message: 'No.' } : null)
    await world.done(alice.messages.send(roomId, { text: 'stubborn' }))
    await alice.runtime.end(false)
    world.relay.policy = () => null
    const again = world.make('Alice', alice.local)
    await again.session.restore()
    again.messages.timeline(roomId)
    await world.pass(1_000)
    const [failed] = shown(again)
    expect(failed).toMatchObject({ delivery: 'failed' })
    await world.done(again.messages.retry(roomId, failed!.msgId))
    expect(texts(bob)).toEqual(['stubborn'])
  })

  it('edits only into what could have been sent', async () => {
    await world.done(alice.messages.send(roomId, { text: 'x' }))
    const { msgId } = shown(alice)[0]!
    await expect(alice.messages.edit(roomId, msgId, ' ')).rejects.toMatchObject({ kind: 'invalid' })
    await expect(alice.messages.edit(roomId, msgId, 'x'.repeat(2_001))).rejects.toMatchObject({ kind: 'tooLarge' })
    await expect(alice.messages.edit(roomId, 'nothing', 'y')).rejects.toMatchObject({ kind: 'missing' })
    await expect(bob.messages.remove(roomId, msgId)).rejects.toMatchObject({ kind: 'forbidden' })
    await expect(alice.messages.react(roomId, msgId, 'x')).rejects.toMatchObject({ kind: 'invalid' })
    expect(alice.messages.canEdit(shown(alice)[0]!)).toBe(true)
    expect(bob.messages.canRemove(shown(bob)[0]!)).toBe(false)
    expect(alice.messages.canRemove(shown(alice)[0]!)).toBe(true)
  })

  it('keeps drafts as long as there is something in them', async () => {
    const empty = { text: '', replyTo: null, image: null, edit: null }
    const image = { dataUrl: 'data:image/png;base64,AAAA', alt: 'a cat' }
    const kept = { text: 'half', replyTo: 'm', image, edit: { msgId: 'n', text: 'half an edit' } }
    alice.messages.setDraft(roomId, kept)
    expect(alice.messages.draft(roomId)).toMatchObject(kept)
    await breathe()
    expect(await alice.runtime.storage.drafts()).toMatchObject([kept])
    alice.messages.setDraft(roomId, empty)
    await breathe()
    expect(await alice.runtime.storage.drafts()).toEqual([])
    expect(bob.messages.draft(roomId)).toEqual(empty)
  })
})

describe('what happens in a room', () => {
  it('is told in lines, once', async () => {
    const carol = await world.person('Carol')
    await world.done(carol.rooms.join(roomId))
    world.relay.restart()
    await world.pass(5_000)
    await world.done(alice.members.promote(roomId, bob.userId))
    await world.done(alice.members.demote(roomId, bob.userId))
    await world.done(alice.rooms.rename(roomId, 'Salon'))
    await world.done(alice.rooms.enableEncryption(roomId))
    await world.pass(5_000)
    await world.done(carol.rooms.leave(roomId))
    expect(lines(bob)).toEqual([
      'joined Carol',
      'promoted Bob',
      'demoted Bob',
      'renamed Salon',
      'encrypted ',
      'keyReceived ',
      'left Carol',
    ])
  })

  it('and replies in an encrypted room quote what was read before', async () => {
    await world.done(alice.rooms.enableEncryption(roomId))
    await world.pass(5_000)
    await world.done(alice.messages.send(roomId, { text: 'question' }))
    await world.done(bob.messages.send(roomId, { text: 'answer', replyTo: shown(bob)[0]!.msgId }))
    expect(shown(alice)[1]!.replyTo).toEqual({ msgId: shown(alice)[0]!.msgId, name: 'Alice', text: 'question' })
    await world.done(alice.messages.edit(roomId, shown(alice)[0]!.msgId, 'other question'))
    expect(shown(bob)[1]!.replyTo).toMatchObject({ text: 'other question' })
    await world.done(alice.messages.remove(roomId, shown(alice)[0]!.msgId))
    expect(shown(bob)[0]).toMatchObject({ deleted: true })
  })
})

describe('commands', () => {
  const run = (text: string) => expandCommand(text, seeded(1), 'Alice')

  it('roll dice, shrug and speak of oneself', () => {
    expect(run('/roll 2d6')).toMatch(/^🎲 2d6: \*\*\d+\*\* \(\d, \d\)$/)
    expect(run('/roll')).toMatch(/^🎲 1d6: \*\*[1-6]\*\*$/)
    expect(run('/roll d20')).toMatch(/^🎲 1d20: /)
    expect(run('/shrug')).toBe('¯\\_(ツ)_/¯')
    expect(run('/shrug well')).toBe('well ¯\\_(ツ)_/¯')
    expect(run('/me waves')).toBe('*Alice waves*')
  })

  it('that are none are sent as they are', () => {
    for (const text of [
      '/me',
      '/roll 0d6',
      '/roll 101d6',
      '/roll 2d1',
      '/roll 2d1001',
      '/roll x',
      '/dance',
      'a /shrug',
      '/',
    ]) {
      expect(run(text)).toBe(text)
    }
    expect(COMMANDS.map((command) => command.name)).toEqual(['roll', 'shrug', 'me'])
  })
})

describe('settings', () => {
  it('last, and are what they may be', () => {
    alice.settings.set({
      theme: 'dark',
      locale: 'de',
      desktopNotifications: true,
      sendReceipts: false,
      collapsedGroups: ['a'],
      quickEmojis: ['1', '2', '3', '4', '5', '6'],
    })
    alice.settings.noteEmoji('👍')
    alice.settings.noteEmoji('🎉')
    alice.settings.noteEmoji('👍')
    const again = world.make('Alice', alice.local).settings
    expect(again).toMatchObject({
      theme: 'dark',
      locale: 'de',
      desktopNotifications: true,
      sendReceipts: false,
      collapsedGroups: ['a'],
      recentEmojis: ['👍', '🎉'],
      quickEmojis: ['1', '2', '3', '4', '5', '6'],
    })
    for (const junk of ['{', '{"theme":"pink","locale":7,"collapsedGroups":7,"quickEmojis":["1"]}']) {
      alice.local.setItem('clasp-relay-settings', junk)
      expect(world.make('Alice', alice.local).settings).toMatchObject({
        theme: 'system',
        locale: null,
        collapsedGroups: [],
        quickEmojis: { length: 6, 0: '👍️' },
      })
    }
  })

  it('export everything, and import it somewhere else', async () => {
    await world.done(alice.messages.send(roomId, { text: 'kept' }))
    const file = await alice.settings.exportData()
    const carol = await world.person('Carol')
    const counts = await world.done(carol.settings.importData(file), 3_000)
    expect(counts).toMatchObject({ messages: 1 })
    await world.pass(1_000)
    expect(carol.rooms.joined.map((room) => room.name)).toEqual(['Den'])
    carol.messages.timeline(roomId)
    await breathe()
    expect(texts(carol)).toEqual(['kept'])
    await expect(carol.settings.importData(new Blob(['<html>']))).rejects.toMatchObject({ kind: 'invalid' })
  })
})

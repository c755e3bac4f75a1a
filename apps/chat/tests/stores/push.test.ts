import { beforeEach, describe, expect, it } from 'vitest'
import { toBase64Url, type Bytes } from '@/crypto/bytes'
import type { PushPlatform, PushWords } from '@/stores/platform'
import { breathe } from '../support/clock'
import { makePerson, MemoryStorage, type Tester } from '../support/person'
import { World } from './world'

const RELAY_KEY = toBase64Url(new Uint8Array(65).fill(4) as Bytes)
const ENDPOINT = 'https://push.test/1'

/** A browser with push messages. */
class FakePush implements PushPlatform {
  answer: NotificationPermission = 'granted'
  granted: NotificationPermission = 'default'
  asked = 0
  keys: number[] = []
  subscription: PushSubscriptionJSON | null = null
  words: PushWords | null = null
  refusesOnce = false
  click: (room: string) => void = () => undefined

  permission = (): NotificationPermission => this.granted
  ask = (): Promise<NotificationPermission> => {
    this.asked += 1
    this.granted = this.answer
    return Promise.resolve(this.answer)
  }
  current = (): Promise<PushSubscriptionJSON | null> => Promise.resolve(this.subscription)
  subscribe = (key: Uint8Array): Promise<PushSubscriptionJSON> => {
    if (this.refusesOnce) {
      this.refusesOnce = false
      return Promise.reject(new Error('another key'))
    }
    this.keys.push(key.length)
    this.subscription = { endpoint: ENDPOINT, keys: { p256dh: 'p', auth: 'a' } }
    return Promise.resolve(this.subscription)
  }
  unsubscribe = (): Promise<void> => {
    this.subscription = null
    return Promise.resolve()
  }
  leaveWords = (words: PushWords | null): Promise<void> => {
    this.words = words
    return Promise.resolve()
  }
  onClick = (callback: (room: string) => void): (() => void) => {
    this.click = callback
    return () => undefined
  }
}

let world: World
let push: FakePush
let local: MemoryStorage
let offers: boolean
let calls: string[]

function fetch(url: string, init: RequestInit): Promise<Response> {
  const path = url.replace('/auth/', '')
  const { endpoint } = (init.body ? JSON.parse(init.body as string) : {}) as { endpoint?: string }
  if (path === 'push') {
    calls.push(`${init.method} ${endpoint ?? ''}`.trim())
    if (!offers) return Promise.resolve(Response.json({ error: 'no' }, { status: 404 }))
    return Promise.resolve(Response.json(init.method === 'GET' ? { public_key: RELAY_KEY } : {}))
  }
  return Promise.resolve(Response.json({ user_id: 'ada', username: 'Ada', guest: true, expires_at: 4e9 }))
}

async function ada(): Promise<Tester> {
  const person = makePerson({ clock: world.clock, connect: world.relay.connect, fetch, push }, 'Ada', 'ada', local)
  await person.start()
  await breathe()
  return person
}

const signs = (): string[] => [...world.relay.params.keys()].filter((each) => each.includes('/visible/'))

beforeEach(() => {
  world = new World()
  push = new FakePush()
  local = new MemoryStorage()
  offers = true
  calls = []
})

describe('push messages', () => {
  it('are offered where browser and relay have them', async () => {
    expect((await ada()).push.state).toBe('off')
    expect([push.asked, calls]).toEqual([0, ['GET']])
    offers = false
    expect((await ada()).push.state).toBe('unavailable')
  })

  it('begin with a click, and end with one', async () => {
    const person = await ada()
    await person.push.turn(true)
    expect([person.push.state, push.asked, push.keys]).toEqual(['on', 1, [65]])
    expect(push.words?.titles['dm']).toBe('New direct message')
    await person.push.turn(false)
    expect([person.push.state, push.subscription, push.words]).toEqual(['off', null, null])
    expect(calls).toEqual(['GET', `POST ${ENDPOINT}`, `DELETE ${ENDPOINT}`])
  })

  it('do not begin where the person refuses', async () => {
    push.answer = 'denied'
    const person = await ada()
    await person.push.turn(true)
    expect([person.push.state, push.subscription]).toEqual(['blocked', null])
  })

  it('go on after a reload, by a new subscription where the key is another one', async () => {
    await (await ada()).push.turn(true)
    push.refusesOnce = true
    expect((await ada()).push.state).toBe('on')
    expect(calls.filter((call) => call.startsWith('POST'))).toHaveLength(2)
  })

  it('end with signing out, and are nobody else’s afterwards', async () => {
    const person = await ada()
    await person.push.turn(true)
    await person.session.logout()
    await breathe()
    expect([push.subscription, push.words, person.push.state]).toEqual([null, null, 'off'])
  })

  it('open the room of the notification that was clicked', async () => {
    const person = await ada()
    push.click('r1')
    expect(person.notifications.openRoom).toBe('r1')
  })
})

describe('a room that is muted', () => {
  it('is told to the relay at once, so that nothing is told of it when the page is closed', async () => {
    const alice = await world.person('Alice')
    const roomId = await world.done(alice.rooms.create({ name: 'Den', isPublic: true, encrypted: false }))
    await world.pass(5_000)
    const shared = (): unknown => world.relay.value(`/chat/user/${alice.userId}/sync/${roomId}`)
    expect(shared()).toMatchObject({ muted: false })
    for (const muted of [true, false]) {
      alice.rooms.setMuted(roomId, muted)
      await world.pass(100)
      expect(shared()).toMatchObject({ muted })
    }
  })
})

describe('a page on screen', () => {
  it('says so while it is, and takes it back when it is not', async () => {
    const person = await ada()
    expect(signs()).toHaveLength(1)
    person.state.attended = false
    person.listeners.wake()
    await breathe()
    expect(signs()).toEqual([])
    person.state.attended = true
    person.listeners.wake()
    await breathe()
    expect(signs()).toHaveLength(1)
  })
})

describe('a message', () => {
  const mentioned = (): unknown[] =>
    world.relay.published
      .filter(({ address }) => address.endsWith('/messages'))
      .map(({ value }) => (value as { mentions?: unknown }).mentions)

  async function talk(
    encrypted: boolean,
  ): Promise<{ alice: Tester; bobId: string; say: (text: string) => Promise<void> }> {
    const [alice, bob] = [await world.person('Alice'), await world.person('Bob')]
    const roomId = await world.done(alice.rooms.create({ name: 'Den', isPublic: true, encrypted }))
    await world.done(bob.rooms.join(roomId), 8_000)
    const say = (text: string): Promise<void> => world.done(alice.messages.send(roomId, { text }))
    return { alice, bobId: bob.userId, say }
  }

  it('tells the relay whom it mentions', async () => {
    const { bobId, say } = await talk(false)
    await say('hello @bob, and @Alice')
    await say('bob@example.org and @Bobby')
    expect(mentioned()[0]).toContain(bobId)
    expect(mentioned()[1]).toBeUndefined()
  })

  it('does so in an encrypted room only where the person wants it', async () => {
    const { alice, bobId, say } = await talk(true)
    await say('hello @Bob')
    expect(mentioned()).toEqual([undefined])
    alice.push.setTellsMentions(true)
    await say('hello @Bob')
    expect(mentioned()[1]).toEqual([bobId])
  })
})

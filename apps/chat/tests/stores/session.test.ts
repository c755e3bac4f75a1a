import { beforeEach, describe, expect, it } from 'vitest'
import { parseRoomMeta } from '@/protocol/shapes'
import { breathe } from '../support/clock'
import { makePerson, MemoryStorage, type Tester } from '../support/person'
import { World } from './world'

interface Answer {
  status: number
  body: object
  headers?: Record<string, string>
}

let world: World
let local: MemoryStorage
let calls: { path: string; body: Record<string, unknown>; token: string | null }[]
let answers: Record<string, Answer[]>

/** The auth API, which answers what a test wants and gives out tokens that name their owner otherwise. */
async function fetch(url: string, init: RequestInit): Promise<Response> {
  const path = url.replace('/auth/', '')
  const body = (init.body ? JSON.parse(init.body as string) : {}) as Record<string, unknown>
  const token = ((init.headers as Record<string, string>)['Authorization'] ?? '').replace('Bearer ', '') || null
  calls.push({ path, body, token })
  const { status, body: answer, headers } = answers[path]?.shift() ?? usual(path, body, token)
  return new Response(JSON.stringify(answer), { status, ...(headers && { headers }) })
}

function usual(path: string, body: Record<string, unknown>, token: string | null): Answer {
  const userId = (body['user_id'] as string | undefined) ?? token?.split('.')[0] ?? 'account'
  const username = (body['username'] ?? body['name'] ?? 'Somebody') as string
  if (path === 'me') {
    const guest = token?.endsWith('guest') ?? true
    return { status: 200, body: { user_id: userId, username, guest, expires_at: world.clock.now() / 1000 + 86_400 } }
  }
  if (path === 'logout' || path === 'password') return { status: 200, body: {} }
  return { status: 200, body: { token: `${userId}.${calls.length}.${path}`, user_id: userId, username } }
}

function make(storage = local): Tester {
  return makePerson({ clock: world.clock, connect: world.relay.connect, fetch }, 'x', 'x', storage)
}

const paths = (): string[] => calls.map((call) => call.path)
const settle = async (): Promise<void> => {
  await breathe(5)
  await world.pass(300)
}

beforeEach(() => {
  world = new World()
  local = new MemoryStorage()
  calls = []
  answers = {}
})

describe('a guest', () => {
  it('comes in with one field and is there again after a reload', async () => {
    const first = make()
    await first.session.restore()
    expect(first.session.signedIn).toBe(false)
    await first.session.continueAsGuest('  Alice  ')
    await settle()
    expect(first.session).toMatchObject({ signedIn: true, guest: true, displayName: 'Alice', username: null })
    expect(first.connection.online).toBe(true)
    expect(calls[0]).toMatchObject({
      path: 'guest',
      body: { name: 'Alice', user_id: first.session.userId },
      token: null,
    })
    await first.runtime.end(false)
    const again = make()
    await again.session.restore()
    await again.session.restore()
    await settle()
    expect(again.session).toMatchObject({ signedIn: true, userId: first.session.userId, displayName: 'Alice' })
    expect(again.connection.online).toBe(true)
    expect(paths().filter((path) => path === 'guest')).toHaveLength(1)
    await again.runtime.end(true)
  })

  it('without a name does not come in', async () => {
    const tester = make()
    await expect(tester.session.continueAsGuest('   ')).rejects.toMatchObject({ kind: 'invalid' })
    expect(calls).toEqual([])
  })

  it('whose identity is another’s by now gets a new one', async () => {
    local.setItem('clasp-chat-userId', 'taken-id')
    answers['guest'] = [{ status: 409, body: { error: 'This identity belongs to a registered user.' } }]
    const tester = make()
    await tester.session.continueAsGuest('Alice')
    expect(tester.session.userId).not.toBe('taken-id')
    expect(tester.session.signedIn).toBe(true)
    await tester.runtime.end(true)
  })

  it('hears of a taken name and of too many tries', async () => {
    const tester = make()
    answers['guest'] = [
      { status: 409, body: { error: 'This name is taken.' } },
      { status: 429, body: { error: 'Too many.' }, headers: { 'Retry-After': '7' } },
    ]
    await expect(tester.session.continueAsGuest('Alice')).rejects.toMatchObject({ kind: 'nameTaken' })
    await expect(tester.session.continueAsGuest('Alice')).rejects.toMatchObject({ kind: 'tooMany', retryAfterS: 7 })
    expect(tester.session.signedIn).toBe(false)
  })

  it('keeps its identity when it registers, and does not lose it to a taken name', async () => {
    const tester = make()
    await tester.session.continueAsGuest('Alice')
    await settle()
    const { userId } = tester.session
    const token = local.getItem('clasp-chat-token')
    answers['register'] = [{ status: 409, body: { error: 'This name is taken.' } }]
    await expect(tester.session.register('alice', 'secret')).rejects.toMatchObject({ kind: 'nameTaken' })
    expect(tester.session).toMatchObject({ userId, guest: true, signedIn: true })
    await tester.session.register('alice2', 'secret')
    await settle()
    expect(calls.findLast((call) => call.path === 'register')).toMatchObject({ body: { user_id: userId }, token })
    expect(tester.session).toMatchObject({ userId, guest: false, username: 'alice2' })
    expect(tester.connection.online).toBe(true)
    await tester.runtime.end(true)
  })
})

describe('an account', () => {
  it('signs in as whom it is, with its name', async () => {
    const tester = make()
    answers['login'] = [{ status: 200, body: { token: 't.1', user_id: 'account-7', username: 'alice' } }]
    await tester.session.login('alice', 'secret')
    await settle()
    expect(tester.session).toMatchObject({ userId: 'account-7', username: 'alice', guest: false, displayName: 'alice' })
    await tester.session.changePassword('secret', 'new secret')
    expect(calls.at(-1)).toEqual({ path: 'password', body: { old: 'secret', new: 'new secret' }, token: 't.1' })
    await tester.runtime.end(true)
  })

  it('replaces a guest’s session with its own', async () => {
    const tester = make()
    await tester.session.continueAsGuest('Guest')
    await settle()
    const guestId = tester.session.userId
    const roomId = await world.done(tester.rooms.create({ name: 'Den', isPublic: false, encrypted: false }))
    expect(tester.rooms.joined).toHaveLength(1)
    answers['login'] = [{ status: 200, body: { token: 't.1', user_id: 'account-8', username: 'alice' } }]
    await tester.session.login('alice', 'secret')
    await settle()
    expect(tester.session.userId).toBe('account-8')
    expect(tester.rooms.byId[roomId]).toBeUndefined()
    expect(tester.connection.online).toBe(true)
    // Nobody can come back as that guest: its messages must not stay behind.
    const databases = (await indexedDB.databases()).map((database) => database.name)
    expect(databases).toContain('clasp-relay-chat-account-8')
    expect(databases).not.toContain(`clasp-relay-chat-${guestId}`)
    await tester.runtime.end(true)
  })

  it('takes the rooms of a guest along where told, but no conversation', async () => {
    const tester = make()
    await tester.session.continueAsGuest('Guest')
    await settle()
    const guestId = tester.session.userId
    const roomId = await world.done(tester.rooms.create({ name: 'Den', isPublic: false, encrypted: true }))
    await world.done(tester.messages.send(roomId, { text: 'said as a guest' }))
    await tester.runtime.storage.putRoom({
      id: 'dm-one-two',
      joined: true,
      muted: false,
      meta: parseRoomMeta({ name: 'Bob', type: 'dm', isPublic: false, dmUsers: { [guestId]: 'Guest', bob: 'Bob' } }),
      joinedAt: 0,
      lastReadMs: 0,
      lastActivityMs: 0,
      peerName: 'Bob',
    })
    answers['login'] = [{ status: 200, body: { token: 't.1', user_id: 'account-9', username: 'alice' } }]
    await world.done(tester.session.login('alice', 'secret', true), 2_000)
    await world.pass(2_000)
    expect(tester.session.userId).toBe('account-9')
    expect(tester.rooms.joined.map(({ id, name }) => [id, name])).toEqual([[roomId, 'Den']])
    expect(tester.rooms.directMessages).toEqual([])
    tester.messages.timeline(roomId)
    await settle()
    const said = tester.messages.timeline(roomId).filter(({ kind }) => kind === 'text')
    expect(said).toMatchObject([{ text: 'said as a guest', name: 'Guest', own: false }])
    const databases = (await indexedDB.databases()).map((database) => database.name)
    expect(databases).not.toContain(`clasp-relay-chat-${guestId}`)
    await tester.runtime.end(true)
  })

  it('signs out and leaves nothing behind', async () => {
    const tester = make()
    await tester.session.continueAsGuest('Alice')
    await settle()
    const { userId } = tester.session
    await world.done(tester.rooms.create({ name: 'Den', isPublic: false, encrypted: false }))
    local.setItem('other-app', 'stays')
    await tester.session.logout()
    expect(paths().at(-1)).toBe('logout')
    expect(tester.session).toMatchObject({ signedIn: false, displayName: '', username: null })
    expect(tester.session.userId).not.toBe(userId)
    expect(tester.connection.phase).toBe('idle')
    expect(tester.rooms.joined).toEqual([])
    expect(local.getItem('clasp-chat-token')).toBeNull()
    expect(local.getItem('other-app')).toBe('stays')
    await tester.session.continueAsGuest('Alice')
    expect(tester.rooms.joined).toEqual([])
    await tester.runtime.end(true)
  })

  it('signs out also where the server is not reached', async () => {
    const tester = make()
    await tester.session.continueAsGuest('Alice')
    answers['logout'] = [{ status: 500, body: {} }]
    await tester.session.logout()
    expect(tester.session.signedIn).toBe(false)
  })
})

describe('a token', () => {
  const expire = async (): Promise<void> => {
    world.relay.refuse = 'Your session has expired.'
    world.relay.restart()
    await world.pass(1_000)
  }

  it('is renewed before it expires', async () => {
    const tester = make()
    await tester.session.continueAsGuest('Alice')
    await settle()
    await world.clock.pass(18 * 3_600_000 + 60_000, 3_600_000)
    await settle()
    expect(paths()).toContain('refresh')
    expect(local.getItem('clasp-chat-token')).toMatch(/refresh$/)
    await tester.runtime.end(true)
  })

  it('that is refused is renewed in silence', async () => {
    const tester = make()
    await tester.session.continueAsGuest('Alice')
    await settle()
    answers['refresh'] = [
      { status: 200, body: { token: 'renewed', user_id: tester.session.userId, username: 'Alice' } },
    ]
    await expire()
    world.relay.refuse = null
    await world.pass(5_000)
    expect(local.getItem('clasp-chat-token')).toBe('renewed')
    await tester.runtime.end(true)
  })

  it('of a guest that cannot be renewed is replaced by the old one’s proof', async () => {
    const tester = make()
    await tester.session.continueAsGuest('Alice')
    await settle()
    const { userId } = tester.session
    answers['refresh'] = [{ status: 401, body: { error: 'No.' } }]
    await expire()
    expect(calls.findLast((call) => call.path === 'guest')).toMatchObject({ body: { user_id: userId } })
    expect(tester.session.userId).toBe(userId)
    await tester.runtime.end(true)
  })

  it('of an account that cannot be renewed asks to sign in again, keeping what is on screen', async () => {
    const tester = make()
    answers['login'] = [{ status: 200, body: { token: 'account-9.1', user_id: 'account-9', username: 'alice' } }]
    await tester.session.login('alice', 'secret')
    await settle()
    answers['refresh'] = [{ status: 401, body: { error: 'No.' } }]
    await expire()
    expect(tester.connection).toMatchObject({ phase: 'refused', reason: 'Your session has expired.' })
    expect(tester.notifications.notices.at(-1)).toMatchObject({ key: 'notices.sessionEnded' })
    expect(tester.session.signedIn).toBe(true)
    world.relay.refuse = null
    await tester.session.login('alice', 'secret')
    await settle()
    await tester.runtime.end(true)
  })

  it('that another tab renewed is taken from there', async () => {
    const tester = make()
    await tester.session.continueAsGuest('Alice')
    await settle()
    local.setItem('clasp-chat-token', 'from-another-tab')
    await expire()
    expect(paths()).not.toContain('refresh')
    expect(tester.runtime.token).toBe('from-another-tab')
    await tester.runtime.end(true)
  })
})

describe('the person', () => {
  it('changes name, colour and status everywhere', async () => {
    const tester = make()
    await tester.session.continueAsGuest('Alice')
    await settle()
    tester.session.setProfile({ displayName: 'Alicia', color: '#123456', status: 'dnd' })
    tester.session.setProfile({ color: 'url(x)' })
    await settle()
    expect(world.relay.value(`/chat/user/${tester.session.userId}/profile`)).toMatchObject({
      name: 'Alicia',
      avatarColor: '#123456',
      status: 'dnd',
    })
    await tester.runtime.end(true)
  })

  it('is not made of what somebody else wrote into the browser', async () => {
    local.setItem('clasp-chat-userId', '../evil')
    local.setItem('clasp-chat-avatarColor', 'red')
    local.setItem('clasp-chat-status', 'king')
    const tester = make()
    await tester.session.restore()
    expect(tester.session.userId).toMatch(/^[0-9a-f-]{36}$/)
    expect(tester.session.color).toMatch(/^#[0-9a-f]{6}$/)
    expect(tester.session.status).toBe('online')
  })
})

/** One person on several devices. */
import { beforeEach, describe, expect, it, vi } from 'vitest'
import { signEvent } from '@/crypto/devices'
import { parseMessage } from '@/protocol/shapes'
import type { Tester } from '../support/person'
import { World } from './world'

let world: World
let alice: Tester
let bob: Tester
let roomId: string

const messages = (tester: Tester) => tester.messages.timeline(roomId).filter((message) => message.kind !== 'system')

beforeEach(async () => {
  world = new World()
  alice = await world.person('Alice')
  bob = await world.person('Bob')
  roomId = await world.room(alice, [bob])
})

describe('a second device', () => {
  it('has the same name, color, rooms, conversations, groups and read positions', async () => {
    await world.done(alice.friends.request(bob.userId))
    await world.done(bob.friends.accept(alice.userId))
    const dm = await world.done(alice.friends.openDirectMessage(bob.userId))
    alice.session.setProfile({ displayName: 'Alice A.', color: '#123456' })
    alice.rooms.setMuted(roomId, true)
    alice.groups.pin('games/chess')
    alice.rooms.activate(roomId)
    await world.done(bob.messages.send(roomId, { text: 'read on the first' }))
    await world.pass(3_000)
    const { lastActivityMs } = alice.rooms.byId[roomId]!
    const second = await world.device(alice, 'alice')
    await world.pass(2_000)
    expect(second.session).toMatchObject({ displayName: 'Alice A.', color: '#123456' })
    expect(second.rooms.joined.map((room) => [room.id, room.name, room.muted])).toEqual([[roomId, 'Den', true]])
    expect(second.rooms.directMessages.map((room) => [room.id, room.name])).toEqual([[dm, 'Bob']])
    expect(second.groups.pinned.map((group) => group.path)).toEqual(['games/chess'])
    expect(second.friends.friends.map((friend) => friend.name)).toEqual(['Bob'])
    expect(second.rooms.lastRead(roomId)).toBe(lastActivityMs)
    expect(alice.session.displayName).toBe('Alice A.')
    expect(world.relay.value(`/chat/user/${alice.userId}/profile`)).toMatchObject({ name: 'Alice A.' })
  })

  it('is none of the next user, though its account was still being looked for', async () => {
    const { runtime, devices } = alice
    const account = await runtime.directory.account(alice.userId)
    let found: (value: typeof account) => void = () => undefined
    vi.spyOn(runtime.directory, 'account').mockImplementation(() => new Promise((resolve) => (found = resolve)))
    await world.device(alice)
    const before = devices.devices.length
    await runtime.end(false)
    await runtime.begin('somebody-else')
    found(account)
    await world.pass(500)
    expect(before).toBe(1)
    expect(devices.devices).toEqual([])
  })

  it('follows what happens on the first, and the other way round', async () => {
    const second = await world.device(alice)
    await world.done(bob.messages.send(roomId, { text: 'one' }))
    expect([alice.rooms.byId[roomId]!.unread, second.rooms.byId[roomId]!.unread]).toEqual([1, 1])
    second.rooms.activate(roomId)
    await world.pass(3_000)
    expect(alice.rooms.byId[roomId]!.unread).toBe(0)
    const other = await world.done(second.rooms.create({ name: 'New', isPublic: true, encrypted: false }))
    await world.pass(500)
    expect(alice.rooms.joined.map((room) => room.name)).toEqual(['Den', 'New'])
    await world.done(alice.rooms.leave(other))
    await world.pass(500)
    expect(second.rooms.joined.map((room) => room.name)).toEqual(['Den'])
    second.session.setProfile({ displayName: 'Ally' })
    await world.pass(500)
    expect(alice.session.displayName).toBe('Ally')
  })

  it('breaks no signature of the first, and is not verified before it is linked', async () => {
    await world.done(alice.messages.send(roomId, { text: 'from the first' }))
    const second = await world.device(alice)
    second.messages.timeline(roomId)
    await world.pass(4_000)
    await world.done(second.messages.send(roomId, { text: 'from the second' }))
    await world.done(alice.messages.send(roomId, { text: 'again' }))
    await bob.runtime.end(false)
    const reader = world.make('Bob', bob.local)
    await world.done(reader.session.restore())
    reader.messages.timeline(roomId)
    await world.pass(1_000)
    const marks = (tester: Tester) => messages(tester).map(({ text, verification, own }) => [text, verification, own])
    expect(marks(reader)).toEqual([
      ['from the first', 'verified', false],
      ['from the second', 'unverified', false],
      ['again', 'verified', false],
    ])
    expect(marks(alice).map(([, , own]) => own)).toEqual([true, true, true])
    expect(marks(second).map(([, , own]) => own)).toEqual([true, true, true])
  })

  it('gets the key of an encrypted room, and others believe it where the account signed it', async () => {
    const secret = await world.room(alice, [bob], { encrypted: true })
    await world.done(alice.messages.send(secret, { text: 'before' }))
    const second = await world.device(alice)
    await world.pass(6_000)
    expect(second.rooms.byId[secret]!.encryption).toBe('ready')
    expect(bob.security.keyChanges(secret)).toMatchObject([{ userId: alice.userId }])
    bob.security.dismissKeyChange(secret, alice.userId)
    await world.done(second.runtime.device.takeAccount((await alice.runtime.device.accountPair())!))
    const third = await world.person('Carol')
    await world.done(third.rooms.join(secret))
    await world.pass(6_000)
    await world.done(second.messages.send(secret, { text: 'after' }))
    expect(bob.messages.timeline(secret).map(({ text, secrecy }) => [text, secrecy])).toContainEqual([
      'after',
      'encrypted',
    ])
  })

  it('gives keys that are sent with only after it was confirmed or accepted', async () => {
    const second = await world.device(alice)
    await world.pass(4_000)
    const secret = await world.done(second.rooms.create({ name: 'New', isPublic: false, encrypted: true }), 1_000)
    await alice.runtime.end(false)
    await world.done(bob.rooms.join(secret))
    await world.pass(20_000)
    expect(bob.rooms.byId[secret]!.encryption).toBe('waiting')
    expect(bob.security.keyChanges(secret)).toMatchObject([{ userId: alice.userId }])
    await world.done(bob.security.acceptKey(secret, alice.userId))
    expect(bob.rooms.byId[secret]!.encryption).toBe('ready')
  })

  it('is not judged by a relay that did not answer: its signatures are checked when it does', async () => {
    await world.pass(2_000)
    bob.runtime.directory.forget(alice.userId)
    const [socket] = [...world.relay.sockets].filter((each) => each.subject === bob.userId)
    // Bob hears everything, and whatever he asks is lost with his connection.
    socket!.deaf = true
    await world.done(alice.messages.send(roomId, { text: 'in the tunnel' }))
    expect(messages(bob)).toMatchObject([{ text: 'in the tunnel', verification: 'pending' }])
    socket!.end()
    await world.pass(200)
    expect(messages(bob)).toMatchObject([{ text: 'in the tunnel', verification: 'pending' }])
    bob.connection.retryNow()
    await world.pass(2_000)
    expect(messages(bob)).toMatchObject([{ text: 'in the tunnel', verification: 'verified' }])
  })

  it('is verified once the first has confirmed it', async () => {
    const second = await world.device(alice)
    await world.pass(4_000)
    expect([alice.devices.mayConfirm, second.devices.mayConfirm]).toEqual([true, false])
    const { deviceId } = second.runtime.identity
    expect(alice.devices.devices.map(({ current, confirmed }) => [current, confirmed])).toEqual([
      [true, true],
      [false, false],
    ])
    await expect(second.devices.confirm(deviceId)).rejects.toMatchObject({ kind: 'missing' })
    await world.done(alice.devices.confirm(deviceId))
    expect(second.devices.devices.find(({ current }) => current)).toMatchObject({ deviceId, confirmed: true })
    await world.done(second.messages.send(roomId, { text: 'from the second' }))
    await world.pass(500)
    expect(messages(bob)).toMatchObject([{ text: 'from the second', verification: 'verified' }])
    second.connection.retryNow()
    for (const socket of [...world.relay.sockets]) if (socket.subject === alice.userId) socket.end()
    await world.pass(5_000)
    expect(alice.devices.devices.every(({ confirmed }) => confirmed)).toBe(true)
  })

  it('is verified once it has the account key', async () => {
    const second = await world.device(alice)
    await world.done(second.runtime.device.takeAccount((await alice.runtime.device.accountPair())!))
    await world.pass(4_000)
    await world.done(second.messages.send(roomId, { text: 'from the second' }))
    await world.pass(500)
    expect(messages(bob)).toMatchObject([{ text: 'from the second', verification: 'verified' }])
  })
})

describe('a device that was signed out', () => {
  const place = (tester: Tester): string => `/chat/user/${tester.userId}/devices/${tester.runtime.identity.deviceId}`

  it('is in no list any more; what it had signed stays verified, and nothing later', async () => {
    const second = await world.device(alice)
    await world.done(second.runtime.device.takeAccount((await alice.runtime.device.accountPair())!))
    await world.done(second.messages.send(roomId, { text: 'while signed in' }))
    const { deviceId } = second.runtime.identity
    const identity = second.runtime.identity
    const where = place(second)
    await world.done(second.session.logout(), 2_000)
    expect(world.relay.value(where)).toMatchObject({ endedAt: expect.any(Number) as number })
    expect(alice.devices.devices.map((each) => each.deviceId)).not.toContain(deviceId)
    // Whoever has copied its keys.
    const head = { kind: 'message', type: 'text', from: 'Alice', fromId: 's', userId: alice.userId, deviceId }
    await world.pass(60_000)
    const late = { ...head, msgId: '1700000000000-late', text: 'copied keys', timestamp: world.clock.now() }
    const sig2 = await signEvent(identity.signingKey, roomId, parseMessage(late)!)
    const carol = await world.person('Carol')
    await world.done(carol.rooms.join(roomId))
    carol.messages.timeline(roomId)
    await world.pass(4_000)
    world.relay.emit(`/chat/room/${roomId}/messages`, { ...late, sig2 })
    await world.pass(1_000)
    expect(messages(carol).map(({ text, verification }) => [text, verification])).toEqual([
      ['while signed in', 'verified'],
      ['copied keys', 'unverified'],
    ])
  })

  it('ends with its session, whoever ended that, and comes back with a new one', async () => {
    const list = (...ids: string[]) =>
      ids.map((id) => ({ id, device: 'x', created_at: 1, last_seen: 2, current: id === '0a' }))
    const sessionsOf = (tester: Tester, ids: () => string[], current: string): void => {
      tester.runtime.platform.fetch = async (_url, { method }) => {
        const body = list(...ids()).map((each) => ({ ...each, current: each.id === current }))
        return new Response(JSON.stringify(method === 'DELETE' ? {} : body))
      }
    }
    let ids = ['0a', '0b']
    sessionsOf(alice, () => ids, '0a')
    const second = await world.device(alice)
    sessionsOf(second, () => ids, '0b')
    await world.done(second.runtime.device.publish())
    expect(world.relay.value(place(second))).toMatchObject({ session: '0b' })
    await world.done(alice.devices.endSignIn('0b'))
    expect(alice.devices.devices).toHaveLength(1)
    await world.done(second.runtime.device.publish())
    expect(world.relay.value(place(second))).not.toHaveProperty('endedAt')
    expect(alice.devices.devices).toHaveLength(2)
    ids = ['0a']
    await world.done(alice.devices.loadSignIns())
    expect(alice.devices.devices.map(({ current }) => current)).toEqual([true])
  })
})

describe('an account key that was lost', () => {
  it('is replaced with a warning; others believe the new one once they have accepted it', async () => {
    await world.done(alice.messages.send(roomId, { text: 'before' }))
    const second = await world.device(alice)
    second.messages.timeline(roomId)
    await world.pass(4_000)
    await world.done(second.devices.startOver(), 1_000)
    expect([second.devices.hasAccountKey, second.devices.mayConfirm]).toEqual([true, true])
    await world.done(second.messages.send(roomId, { text: 'with new keys' }))
    await world.pass(500)
    const marks = () => messages(bob).map(({ text, verification }) => [text, verification])
    expect(marks().at(-1)).toEqual(['with new keys', 'unverified'])
    expect(bob.security.keyChanges(roomId)).toMatchObject([{ userId: alice.userId, name: 'Alice', account: true }])
    bob.security.dismissKeyChange(roomId, alice.userId)
    expect(bob.security.keyChanges(roomId)).toEqual([])
    await world.pass(31_000)
    await world.done(second.messages.send(roomId, { text: 'again' }))
    await world.pass(500)
    expect(marks().at(-1)).toEqual(['again', 'unverified'])
    await world.done(bob.security.acceptKey(roomId, alice.userId))
    await world.done(second.messages.send(roomId, { text: 'accepted' }))
    await world.pass(500)
    expect(marks().at(-1)).toEqual(['accepted', 'verified'])
    expect(bob.security.keyChanges(roomId)).toEqual([])
    // The account's other device learns that it is not confirmed any more.
    expect(alice.security.keyChanges(roomId)).toMatchObject([{ userId: alice.userId, account: true }])
  })
})

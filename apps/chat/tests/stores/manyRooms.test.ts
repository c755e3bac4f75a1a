/** Somebody in more rooms than have subscriptions of their own: the others are asleep. */
import { beforeEach, describe, expect, it } from 'vitest'
import type { Tester } from '../support/person'
import { World } from './world'

const ROOMS = 23

let world: World
let alice: Tester
let bob: Tester
/** The first of them are asleep. */
let rooms: string[]

const patterns = (tester: Tester): string[] =>
  [...world.relay.sockets]
    .filter((socket) => socket.subject === tester.userId)
    .flatMap((socket) => [...socket.subscriptions.values()])
const isAwake = (roomId: string): boolean => patterns(alice).includes(`/chat/room/${roomId}/*`)

beforeEach(async () => {
  world = new World()
  alice = await world.person('Alice')
  bob = await world.person('Bob')
  rooms = []
  for (let count = 0; count < ROOMS; count += 1)
    rooms.push(
      await world.done(alice.rooms.create({ name: `Room ${count}`, isPublic: true, encrypted: count === 0 }), 1_500),
    )
  await world.pass(1_000)
})

describe('a person in many rooms', () => {
  it('has few subscriptions, before and after the connection was lost', async () => {
    expect(patterns(alice).length).toBeLessThan(85)
    expect(rooms.filter(isAwake)).toEqual(rooms.slice(-20))
    world.relay.restart()
    await world.pass(60_000)
    expect(patterns(alice).length).toBeLessThan(85)
    expect(alice.rooms.byId[rooms[0]!]!.access).toBe('inside')
    await world.done(Promise.all(rooms.map((roomId) => alice.rooms.leave(roomId))))
    expect(patterns(alice).length).toBeLessThan(25)
  })

  it('hears what is said in all of them, once', async () => {
    const [asleep, awake] = [rooms[1]!, rooms[ROOMS - 1]!]
    for (const roomId of [asleep, awake]) {
      await world.done(bob.rooms.join(roomId))
      await world.done(bob.messages.send(roomId, { text: 'hello' }))
    }
    await world.pass(1_000)
    expect([isAwake(asleep), isAwake(awake)]).toEqual([false, true])
    expect([alice.rooms.byId[asleep]!.unread, alice.rooms.byId[awake]!.unread]).toEqual([1, 1])
    alice.rooms.activate(asleep)
    alice.messages.timeline(asleep)
    await world.pass(1_000)
    expect(isAwake(asleep)).toBe(true)
    const said = alice.messages.timeline(asleep).filter((message) => message.kind === 'text')
    expect(said.map(({ text }) => text)).toEqual(['hello'])
    expect(patterns(alice).length).toBeLessThan(85)
    await world.done(bob.rooms.leave(asleep))
    expect(alice.members.present(asleep).map(({ name }) => name)).toEqual(['Alice'])
  })

  it('shows a new name of a room that is asleep, and who is there in a direct message', async () => {
    const asleep = rooms[1]!
    expect(isAwake(asleep)).toBe(false)
    world.relay.put(`/chat/room/${asleep}/meta`, {
      ...(world.relay.value(`/chat/room/${asleep}/meta`) as object),
      name: 'New name',
    })
    await world.pass(500)
    expect(alice.rooms.byId[asleep]!.name).toBe('New name')
    expect(isAwake(asleep)).toBe(false)
    await world.done(alice.friends.request(bob.userId, 'Hello'))
    const dm = (await world.done(bob.friends.accept(alice.userId), 8_000))!
    for (const roomId of rooms.slice(0, 21)) {
      alice.rooms.activate(roomId)
      await world.pass(100)
    }
    expect(isAwake(dm)).toBe(false)
    const online = (): boolean => alice.friends.friends.find(({ userId }) => userId === bob.userId)!.online
    await world.pass(60_000)
    expect(online()).toBe(true)
    await bob.runtime.end(false)
    await world.pass(1_000)
    expect(online()).toBe(false)
  })

  it('gives a newcomer the key of a room that was asleep', async () => {
    const secret = rooms[0]!
    expect(isAwake(secret)).toBe(false)
    await world.done(bob.rooms.join(secret))
    await world.pass(20_000)
    expect(bob.rooms.byId[secret]!.encryption).toBe('ready')
  })

  it('makes another key when somebody leaves a room that was asleep', async () => {
    const secret = rooms[0]!
    await world.done(bob.rooms.join(secret))
    await world.pass(20_000)
    for (const roomId of rooms.slice(1, 22)) {
      alice.rooms.activate(roomId)
      await world.pass(100)
    }
    expect(isAwake(secret)).toBe(false)
    const before = (await alice.runtime.storage.cryptoRecord(secret))!.sendingKeyId
    await world.done(bob.rooms.leave(secret))
    await world.pass(5_000)
    expect((await alice.runtime.storage.cryptoRecord(secret))!.sendingKeyId).not.toBe(before)
  })

  it('learns of being removed from a room that was asleep', async () => {
    const asleep = rooms[2]!
    world.relay.put(`/chat/room/${asleep}/presence/${alice.userId}`, null)
    await world.pass(500)
    expect(alice.rooms.byId[asleep]?.joined ?? false).toBe(false)
  })

  it('takes a new key in a room that was asleep from its admins', async () => {
    const carol = await world.person('Carol')
    const secret = await world.done(carol.rooms.create({ name: 'Theirs', isPublic: true, encrypted: true }))
    await world.done(bob.rooms.join(secret))
    await world.done(alice.rooms.join(secret))
    await world.done(carol.members.promote(secret, bob.userId))
    await world.pass(20_000)
    for (const roomId of rooms.slice(0, 21)) {
      alice.rooms.activate(roomId)
      await world.pass(100)
    }
    expect(isAwake(secret)).toBe(false)
    await world.done(bob.members.ban(secret, 'nobody-here'))
    await world.pass(5_000)
    const key = async (tester: Tester) => (await tester.runtime.storage.cryptoRecord(secret))!.sendingKeyId
    expect(await key(alice)).toBe(await key(bob))
  })
})

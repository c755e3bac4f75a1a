/** What a relay has kept of a room, while somebody was away. */
import { beforeEach, describe, expect, it } from 'vitest'
import { MessageStorage } from '@/storage/messages'
import type { Tester } from '../../support/person'
import { World } from '../world'

let world: World
let alice: Tester
let bob: Tester
let roomId: string

const texts = (tester: Tester): string[] =>
  tester.messages
    .timeline(roomId)
    .filter((message) => message.kind === 'text' && !message.deleted)
    .map(({ text }) => text)

beforeEach(async () => {
  world = new World()
  world.relay.keeps = true
  alice = await world.person('Alice')
  bob = await world.person('Bob')
  roomId = await world.room(alice, [bob])
  bob.rooms.activate(roomId)
  await world.done(alice.messages.send(roomId, { text: 'seen by both' }))
  await world.pass(120_000)
})

/** Bob closes his page; resolves with a way to open it again. */
async function away(): Promise<() => Promise<Tester>> {
  await bob.runtime.end(false)
  return async () => {
    const back = world.make('Bob', bob.local)
    await world.done(back.session.restore())
    back.messages.timeline(roomId)
    await world.pass(1_000)
    return back
  }
}

describe('somebody who was away', () => {
  it('gets from the relay what was said, edited and deleted, though nobody is there any more', async () => {
    await world.done(alice.messages.send(roomId, { text: 'will be deleted' }))
    await world.done(alice.messages.send(roomId, { text: 'will be edited' }))
    await world.pass(500)
    const comeBack = await away()
    const [gone, changed] = alice.messages.timeline(roomId).slice(-2)
    await world.done(alice.messages.remove(roomId, gone!.msgId))
    await world.done(alice.messages.edit(roomId, changed!.msgId, 'edited'))
    await world.done(alice.messages.send(roomId, { text: 'new' }))
    await alice.runtime.end(false)
    await world.pass(120_000)
    const back = await comeBack()
    expect(texts(back)).toEqual(['seen by both', 'edited', 'new'])
    expect(back.messages.timeline(roomId).at(-1)).toMatchObject({ relayedBy: null, verification: 'verified' })
    expect(back.rooms.byId[roomId]!.unread).toBe(1)
    expect(back.messages.unreadSince(roomId)).toBeNull()
    back.rooms.activate(roomId)
    expect(back.messages.unreadSince(roomId)).not.toBeNull()
  })

  it('sees the newest of it before the others are stored, in their order afterwards', async () => {
    const comeBack = await away()
    const said = Array.from({ length: 20 }, (_, at) => `${at}`)
    for (const text of said) await world.done(alice.messages.send(roomId, { text }), 200)
    const stored: string[] = []
    const { record } = MessageStorage.prototype
    MessageStorage.prototype.record = function (...args) {
      stored.push(...args[1].rows.map((row) => row.text))
      return record.apply(this, args)
    }
    const back = await comeBack()
    MessageStorage.prototype.record = record
    expect(stored[0]).toBe('19')
    expect(texts(back)).toEqual(['seen by both', ...said])
    expect(back.rooms.byId[roomId]!.unread).toBe(20)
  })

  it('asks no member where the relay has kept all of it', async () => {
    const comeBack = await away()
    for (let count = 0; count < 130; count += 1)
      await world.done(alice.messages.send(roomId, { text: `${count}` }), 200)
    const calls = () => world.emitted(`/chat/room/${roomId}/history/call`).length
    const before = calls()
    const back = await comeBack()
    await world.pass(10_000)
    expect(calls()).toBe(before)
    expect(back.rooms.byId[roomId]!.unread).toBe(130)
    expect(back.messages.catchingUp(roomId)).toBe(false)
  })

  it('asks the members for what is older than the relay keeps', async () => {
    world.relay.kept.length = 0
    const carol = await world.person('Carol')
    await world.done(carol.rooms.join(roomId))
    carol.messages.timeline(roomId)
    await world.pass(10_000)
    expect(texts(carol)).toEqual(['seen by both'])
  })

  it('is not notified of what was said before, and reads what is said meanwhile', async () => {
    const comeBack = await away()
    await world.done(alice.messages.send(roomId, { text: 'before' }))
    const back = await comeBack()
    await world.done(alice.messages.send(roomId, { text: 'meanwhile' }))
    await world.pass(500)
    expect(texts(back)).toEqual(['seen by both', 'before', 'meanwhile'])
    expect(back.rooms.byId[roomId]!.unread).toBe(2)
  })
})

describe('a relay that keeps nothing', () => {
  it('is asked once for each connection, and the members help', async () => {
    world.relay.keeps = false
    const comeBack = await away()
    await world.done(alice.messages.send(roomId, { text: 'while Bob is away' }))
    const before = world.relay.replays
    const back = await comeBack()
    await world.done(back.rooms.create({ name: 'Another', isPublic: true, encrypted: false }))
    await world.pass(10_000)
    expect(world.relay.replays - before).toBe(1)
    expect(texts(back)).toEqual(['seen by both', 'while Bob is away'])
  })
})

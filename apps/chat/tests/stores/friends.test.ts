import { beforeEach, describe, expect, it } from 'vitest'
import type { Tester } from '../support/person'
import { World } from './world'

let world: World
let alice: Tester
let bob: Tester

beforeEach(async () => {
  world = new World()
  alice = await world.person('Alice')
  bob = await world.person('Bob')
})

const befriend = async (): Promise<void> => {
  await world.done(alice.friends.request(bob.userId))
  await world.done(bob.friends.accept(alice.userId))
}
const requests = (): string[] => Object.keys(world.stored('/chat/requests/'))

describe('a request', () => {
  it('is not made to oneself, nor to a friend', async () => {
    await expect(alice.friends.request(alice.userId)).rejects.toMatchObject({ kind: 'invalid' })
    await befriend()
    await alice.friends.request(bob.userId)
    expect(requests()).toEqual([])
  })

  it('is remembered as asked, and gone for good when it is declined', async () => {
    await world.done(alice.friends.request(bob.userId))
    expect(alice.friends.outgoing).toEqual([bob.userId])
    expect(bob.notifications.notices).toMatchObject([{ key: 'notices.friendRequest' }])
    await world.done(bob.friends.decline(alice.userId))
    expect(bob.friends.incoming).toEqual([])
    expect(requests()).toEqual([])
    await expect(bob.friends.accept(alice.userId)).rejects.toMatchObject({ kind: 'missing' })
  })

  it('that comes while one is there is told', async () => {
    await world.done(alice.friends.request(bob.userId))
    expect(bob.notifications.notices.at(-1)).toMatchObject({ key: 'notices.friendRequest', params: { name: 'Alice' } })
    bob.notifications.dismiss(bob.notifications.notices.at(-1)!.id)
    expect(bob.notifications.notices).toEqual([])
  })

  it('that came before is told in one line', async () => {
    const carol = await world.person('Carol')
    const dave = world.make('Dave')
    for (const each of [alice, carol]) await world.done(each.friends.request(dave.userId))
    await dave.start()
    await world.pass(3_000)
    expect(dave.notifications.notices).toMatchObject([{ key: 'notices.pendingRequests', params: { count: 2 } }])
    expect(dave.friends.incoming.map((each) => each.name)).toEqual(['Carol', 'Alice'])
  })

  it('of somebody who claims to be another, or of a friend, is not shown', async () => {
    world.relay.put(`/chat/requests/${bob.userId}/mallory`, { fromId: alice.userId, fromName: 'Alice', timestamp: 1 })
    await world.pass(300)
    expect(bob.friends.incoming).toEqual([])
    await befriend()
    world.relay.put(`/chat/requests/${bob.userId}/${alice.userId}`, {
      fromId: alice.userId,
      fromName: 'Alice',
      timestamp: 1,
    })
    await world.pass(500)
    expect(bob.friends.incoming).toEqual([])
    expect(requests()).toEqual([`/chat/requests/${bob.userId}/mallory`])
  })
})

describe('a friendship', () => {
  it('says who is there, and ends on one side', async () => {
    await befriend()
    const roomId = await world.room(alice, [bob])
    expect(alice.friends.friends).toMatchObject([{ userId: bob.userId, online: true }])
    await world.done(bob.rooms.leave(roomId))
    expect(alice.friends.friends).toMatchObject([{ online: false }])
    await world.done(alice.friends.remove(bob.userId))
    expect(alice.friends.isFriend(bob.userId)).toBe(false)
    expect(bob.friends.isFriend(alice.userId)).toBe(true)
  })

  it('that was ended is not brought back by an old yes', async () => {
    await befriend()
    const old = {
      type: 'accepted',
      fromId: bob.userId,
      fromName: 'Bob',
      fromColor: '#123456',
      timestamp: world.clock.now(),
    }
    await world.pass(1_000)
    await world.done(alice.friends.remove(bob.userId))
    world.relay.put(`/chat/requests/${alice.userId}/${bob.userId}`, old)
    await world.pass(1_000)
    expect(alice.friends.isFriend(bob.userId)).toBe(false)
    expect(requests()).toEqual([])
  })

  it('is needed for a direct message, and the other one has to want it', async () => {
    await expect(alice.friends.openDirectMessage(bob.userId)).rejects.toMatchObject({ kind: 'forbidden' })
    await befriend()
    world.relay.policy = (message) =>
      message.type === 'SET' && message.address.includes('/dms/') ? { code: 403, message: 'Not wanted.' } : null
    const roomId = await world.done(alice.friends.openDirectMessage(bob.userId))
    expect(alice.rooms.directMessages.map((room) => room.id)).toEqual([roomId])
    expect(bob.rooms.directMessages).toEqual([])
  })

  it('brings the other one’s direct message into the list, told when one is there', async () => {
    await befriend()
    await world.pass(2_000)
    const roomId = await world.done(alice.friends.openDirectMessage(bob.userId), 1_000)
    expect(bob.notifications.notices.at(-1)).toMatchObject({ key: 'notices.directMessage', roomId })
    expect(bob.rooms.byId[roomId]).toMatchObject({ type: 'dm', name: 'Alice', peerId: alice.userId, joined: true })
    await world.done(bob.rooms.leave(roomId))
    await bob.runtime.end(false)
    const again = world.make('Bob', bob.local)
    await again.session.restore()
    await world.pass(1_000)
    expect(again.rooms.directMessages).toEqual([])
  })

  it('talks encrypted where both have devices, and in the open, shown as such, where one has none', async () => {
    await befriend()
    const roomId = await world.done(alice.friends.openDirectMessage(bob.userId), 1_000)
    await world.pass(6_000)
    expect([alice, bob].map((each) => each.rooms.byId[roomId]!.encryption)).toEqual(['ready', 'ready'])
    await world.done(bob.messages.send(roomId, { text: 'between us' }))
    expect(JSON.stringify(world.relay.published)).not.toContain('between us')
    world.relay.put(`/chat/user/${alice.userId}/friends/olga`, { name: 'Olga', avatarColor: '#112233', addedAt: 1 })
    await world.pass(100)
    const open = await world.done(alice.friends.openDirectMessage('olga'), 1_000)
    expect(alice.rooms.byId[open]!.encryption).toBe('off')
  })
})

const said = (tester: Tester, roomId: string): string[] =>
  tester.messages.timeline(roomId).flatMap(({ kind, text }) => (kind === 'text' ? [text] : []))

describe('a stranger', () => {
  const notices = (tester: Tester): unknown[] => tester.notifications.notices.map(({ key, opens }) => [key, opens])

  it('asks with a first message, which begins the conversation once it is accepted', async () => {
    await world.pass(3_000)
    await world.done(alice.friends.request(bob.userId, '  Hello from the workshop  '))
    expect(notices(bob)).toContainEqual(['notices.messageRequest', 'friends'])
    expect(bob.friends.incoming).toMatchObject([{ userId: alice.userId, text: 'Hello from the workshop' }])
    expect(bob.rooms.directMessages).toEqual([])
    const roomId = (await world.done(bob.friends.accept(alice.userId), 8_000))!
    await world.pass(6_000)
    for (const each of [alice, bob]) {
      expect(each.rooms.directMessages.map(({ id, encryption }) => [id, encryption])).toEqual([[roomId, 'ready']])
      each.messages.timeline(roomId)
      await world.pass(100)
      expect(said(each, roomId)).toEqual(['Hello from the workshop'])
    }
    expect(requests()).toEqual([])
    // In the room itself it travels encrypted.
    expect(JSON.stringify(world.relay.published)).not.toContain('workshop')
  })

  it('who was away at the answer says it on coming back, once', async () => {
    await world.done(alice.friends.request(bob.userId, 'Hello'))
    await alice.runtime.end(false)
    const roomId = (await world.done(bob.friends.accept(alice.userId), 2_000))!
    const again = world.make('Alice', alice.local)
    await world.done(again.session.restore(), 8_000)
    expect(again.rooms.directMessages.map(({ id }) => id)).toEqual([roomId])
    again.messages.timeline(roomId)
    await world.pass(1_000)
    expect(said(again, roomId)).toEqual(['Hello'])
    expect(again.friends.outgoing).toEqual([])
  })

  it('says at most 500 characters, and is declined in silence', async () => {
    await expect(alice.friends.request(bob.userId, 'x'.repeat(501))).rejects.toMatchObject({ reason: 'requestTooLong' })
    await world.done(alice.friends.request(bob.userId, 'x'.repeat(500)))
    await world.done(bob.friends.decline(alice.userId))
    expect(bob.friends.incoming).toEqual([])
    expect(requests()).toEqual([])
    expect(alice.notifications.notices).toEqual([])
  })
})

describe('the name of a friend', () => {
  it('stays what it was, whatever a conversation says', async () => {
    await befriend()
    const roomId = 'dm-x'
    const dmUsers = { [alice.userId]: 'The boss', [bob.userId]: 'Bob' }
    world.relay.put(`/chat/room/${roomId}/meta`, { name: 'The boss', type: 'dm', isPublic: false, dmUsers })
    const call = { fromId: alice.userId, fromName: 'The boss', roomId, timestamp: world.clock.now() + 1 }
    world.relay.put(`/chat/user/${bob.userId}/dms/${roomId}`, call)
    await world.pass(500)
    expect(bob.rooms.byId[roomId]).toMatchObject({ name: 'Alice', peerId: alice.userId })
    expect(bob.notifications.notices.at(-1)).toMatchObject({ params: { name: 'Alice' } })
  })
})

describe('somebody who is blocked', () => {
  it('is a friend no more, and gets no request, conversation or notice through', async () => {
    await befriend()
    await world.pass(60_000)
    await world.done(bob.friends.block(alice.userId, 'Alice'))
    expect([bob.friends.isFriend(alice.userId), bob.blocks.isBlocked(alice.userId)]).toEqual([false, true])
    const before = bob.notifications.notices.length
    await world.done(alice.friends.remove(bob.userId))
    await world.done(alice.friends.request(bob.userId, 'Please'))
    const call = { fromId: alice.userId, fromName: 'Alice', roomId: 'dm-x', timestamp: world.clock.now() + 1 }
    world.relay.put(`/chat/user/${bob.userId}/dms/dm-x`, call)
    await world.pass(500)
    expect([bob.friends.incoming, bob.rooms.directMessages]).toEqual([[], []])
    expect(bob.notifications.notices.length).toBe(before)
    await world.done(bob.blocks.unblock(alice.userId))
    expect(bob.friends.incoming).toMatchObject([{ text: 'Please' }])
  })

  it('is not heard in rooms, on any device, until that is taken back', async () => {
    const roomId = await world.room(alice, [bob])
    await world.done(alice.messages.send(roomId, { text: 'before' }))
    expect(said(bob, roomId)).toEqual(['before'])
    bob.rooms.activate(roomId)
    bob.rooms.activate(null)
    await world.done(bob.friends.block(alice.userId, 'Alice'))
    await world.done(alice.messages.send(roomId, { text: 'after' }))
    alice.members.noteTyping(roomId)
    await world.pass(500)
    expect(said(bob, roomId)).toEqual([])
    expect([bob.rooms.byId[roomId]!.unread, bob.members.typing(roomId)]).toEqual([0, []])
    expect(await bob.messages.search('after')).toEqual([])
    const second = await world.device(bob)
    expect(second.blocks.blocked).toEqual([{ userId: alice.userId, name: 'Alice' }])
    await world.done(second.blocks.unblock(alice.userId))
    expect(said(bob, roomId)).toEqual(['before', 'after'])
  })

  it('is not oneself', async () => {
    await expect(bob.friends.block(bob.userId, 'Bob')).rejects.toMatchObject({ kind: 'invalid' })
  })
})

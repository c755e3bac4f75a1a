import { beforeEach, describe, expect, it } from 'vitest'
import { breathe, FakeClock } from '../support/clock'
import { makePerson, type Tester } from '../support/person'
import { FakeRelay } from '../support/relay'

let clock: FakeClock
let relay: FakeRelay
let run = 0

beforeEach(() => {
  clock = new FakeClock()
  relay = new FakeRelay((callback) => queueMicrotask(callback), clock.now)
  run += 1
})

async function person(name: string): Promise<Tester> {
  // Databases last as long as the process: every test has people of its own.
  const tester = makePerson({ clock, connect: relay.connect }, name, `${name.toLowerCase()}-${run}`)
  await tester.start()
  await clock.pass(500)
  return tester
}

const texts = (tester: Tester, roomId: string) =>
  tester.messages
    .timeline(roomId)
    .filter((message) => message.kind !== 'system')
    .map((message) => message.text)

async function roomOf(creator: Tester, others: Tester[], encrypted = false): Promise<string> {
  const roomId = await creator.rooms.create({ name: 'Den', isPublic: true, encrypted })
  await clock.pass(300)
  for (const other of others) await other.rooms.join(roomId)
  await clock.pass(4_000)
  // As the page does that shows it.
  for (const tester of [creator, ...others]) tester.messages.timeline(roomId)
  await breathe()
  return roomId
}

describe('talking', () => {
  it('reaches the other one, in an open room, both ways', async () => {
    const [alice, bob] = [await person('Alice'), await person('Bob')]
    const roomId = await roomOf(alice, [bob])
    await alice.messages.send(roomId, { text: 'hello' })
    await clock.pass(300)
    await bob.messages.send(roomId, { text: 'hi' })
    await clock.pass(300)
    expect(texts(alice, roomId)).toEqual(['hello', 'hi'])
    expect(texts(bob, roomId)).toEqual(['hello', 'hi'])
    expect(alice.messages.timeline(roomId)[0]).toMatchObject({ own: true, delivery: 'confirmed', secrecy: 'plain' })
    expect(bob.messages.timeline(roomId)[0]).toMatchObject({ own: false, verification: 'verified', name: 'Alice' })
  })

  it('is encrypted in an encrypted room, and a newcomer reads what was said before', async () => {
    const [alice, bob] = [await person('Alice'), await person('Bob')]
    const roomId = await roomOf(alice, [], true)
    await alice.messages.send(roomId, { text: 'before anybody came' })
    await clock.pass(300)
    await bob.rooms.join(roomId)
    await clock.pass(8_000)
    expect(bob.rooms.byId[roomId]!.encryption).toBe('ready')
    await bob.messages.send(roomId, { text: 'secret answer' })
    await clock.pass(500)
    expect(texts(alice, roomId)).toEqual(['before anybody came', 'secret answer'])
    await bob.messages.timeline(roomId)
    await breathe()
    expect(texts(bob, roomId)).toEqual(['before anybody came', 'secret answer'])
    expect(bob.messages.timeline(roomId)[0]).toMatchObject({
      name: 'Alice',
      relayedBy: null,
      secrecy: 'encrypted',
      verification: 'verified',
    })
    expect(JSON.stringify(relay.published)).not.toContain('secret answer')
    expect(JSON.stringify(relay.published)).not.toContain('before anybody')
  })

  it('waits for the connection and goes on after it, losing nothing', async () => {
    const [alice, bob] = [await person('Alice'), await person('Bob')]
    const roomId = await roomOf(alice, [bob])
    relay.down = true
    relay.restart()
    await clock.pass(200)
    expect(alice.connection.phase).toBe('waiting')
    await alice.messages.send(roomId, { text: 'while it was down' })
    await clock.pass(2_000)
    expect(alice.messages.timeline(roomId).at(-1)).toMatchObject({ delivery: 'queued' })
    relay.down = false
    await clock.pass(40_000)
    expect(alice.messages.timeline(roomId).at(-1)).toMatchObject({ delivery: 'confirmed' })
    expect(texts(bob, roomId)).toEqual(['while it was down'])
  })

  it('counts what was not seen, and mentions', async () => {
    const [alice, bob] = [await person('Alice'), await person('Bob')]
    const roomId = await roomOf(alice, [bob])
    await alice.messages.send(roomId, { text: 'one' })
    await alice.messages.send(roomId, { text: 'two for @bob' })
    await alice.messages.send(roomId, { text: '@bobby is another' })
    await clock.pass(500)
    expect(bob.rooms.byId[roomId]).toMatchObject({ unread: 3, mentions: 1 })
    bob.rooms.activate(roomId)
    expect(bob.rooms.byId[roomId]).toMatchObject({ unread: 0, mentions: 0 })
    await bob.messages.timeline(roomId)
    await alice.messages.timeline(roomId)
    await breathe()
    bob.rooms.markRead(roomId)
    await clock.pass(2_000)
    expect(
      alice.messages
        .timeline(roomId)
        .at(-1)!
        .readBy.map((reader) => reader.name),
    ).toEqual(['Bob'])
  })

  it('lets only the author edit and delete, or a moderator', async () => {
    const [alice, bob] = [await person('Alice'), await person('Bob')]
    const roomId = await roomOf(alice, [bob])
    await bob.messages.send(roomId, { text: 'first' })
    await clock.pass(500)
    texts(alice, roomId)
    await breathe()
    const msgId = bob.messages.timeline(roomId)[0]!.msgId
    await expect(alice.messages.edit(roomId, msgId, 'forged')).rejects.toMatchObject({ kind: 'forbidden' })
    const forged = {
      type: 'edit',
      fromId: 'session-x',
      userId: alice.userId,
      targetId: msgId,
      text: 'forged',
      timestamp: 1,
    }
    relay.emit(`/chat/room/${roomId}/messages`, forged)
    relay.emit(`/chat/room/${roomId}/messages`, { ...forged, userId: null, fromId: 'session-y' })
    await clock.pass(500)
    expect(texts(alice, roomId)).toEqual(['first'])
    const editing = bob.messages.edit(roomId, msgId, 'second')
    await clock.pass(500)
    await editing
    expect(texts(alice, roomId)).toEqual(['second'])
    expect(alice.messages.timeline(roomId)[0]).toMatchObject({ edited: true, unproven: false })
    const removing = alice.messages.remove(roomId, msgId)
    await clock.pass(500)
    await removing
    expect(bob.messages.timeline(roomId)[0]).toMatchObject({ deleted: true, text: '' })
  })

  it('shows reactions of all, the lists of old clients too', async () => {
    const [alice, bob] = [await person('Alice'), await person('Bob')]
    const roomId = await roomOf(alice, [bob])
    await alice.messages.send(roomId, { text: 'x' })
    await clock.pass(500)
    const { msgId } = alice.messages.timeline(roomId)[0]!
    texts(bob, roomId)
    await Promise.all([alice.messages.react(roomId, msgId, '👍'), clock.pass(300)])
    await Promise.all([bob.messages.react(roomId, msgId, '👍'), clock.pass(300)])
    relay.put(`/chat/room/${roomId}/reactions/${msgId}/👍`, { users: ['old-session'] })
    await clock.pass(300)
    expect(bob.messages.timeline(roomId)[0]!.reactions).toEqual([
      { emoji: '👍', count: 3, mine: true, names: ['Alice', 'Bob'] },
    ])
    await Promise.all([bob.messages.react(roomId, msgId, '👍'), clock.pass(300)])
    expect(alice.messages.timeline(roomId)[0]!.reactions).toEqual([
      { emoji: '👍', count: 2, mine: true, names: ['Alice'] },
    ])
  })
})

describe('people', () => {
  it('sees who is there, who types, and forgets ghosts', async () => {
    const [alice, bob] = [await person('Alice'), await person('Bob')]
    const roomId = await roomOf(alice, [bob])
    expect(alice.members.present(roomId).map(({ name, role, self }) => [name, role, self])).toEqual([
      ['Alice', 'creator', true],
      ['Bob', 'member', false],
    ])
    bob.members.noteTyping(roomId)
    await clock.pass(300)
    expect(alice.members.typing(roomId).map((each) => each.name)).toEqual(['Bob'])
    await clock.pass(4_000)
    expect(alice.members.typing(roomId)).toEqual([])
    bob.session.setProfile({ status: 'away' })
    await clock.pass(300)
    expect(alice.members.present(roomId)[1]).toMatchObject({ status: 'away' })
    await bob.runtime.end(false)
    await clock.pass(40_000)
    expect(alice.members.present(roomId).map((member) => member.name)).toEqual(['Alice'])
  })

  it('takes heartbeats that change nothing without a new list', async () => {
    const [alice, bob] = [await person('Alice'), await person('Bob')]
    const roomId = await roomOf(alice, [bob])
    const before = alice.members.present(roomId)
    await clock.pass(30_000)
    expect(alice.members.present(roomId)).toBe(before)
    expect(before).toHaveLength(2)
    bob.session.setProfile({ displayName: 'Robert' })
    await clock.pass(300)
    expect(alice.members.present(roomId).map((member) => member.name)).toEqual(['Alice', 'Robert'])
    await bob.runtime.end(false)
    await clock.pass(40_000)
    expect(alice.members.present(roomId).map((member) => member.name)).toEqual(['Alice'])
  })

  it('are listed anew when somebody comes or goes, not when somebody types', async () => {
    const [alice, bob] = [await person('Alice'), await person('Bob')]
    const roomId = await roomOf(alice, [bob])
    const before = alice.members.present(roomId)
    bob.members.noteTyping(roomId)
    await clock.pass(300)
    expect(alice.members.typing(roomId).map(({ name }) => name)).toEqual(['Bob'])
    await clock.pass(20_000)
    expect(alice.members.typing(roomId)).toEqual([])
    expect(alice.members.present(roomId)).toBe(before)
  })

  it('does not see the invisible type, and names those who left', async () => {
    const [alice, bob] = [await person('Alice'), await person('Bob')]
    const roomId = await roomOf(alice, [bob])
    bob.session.setProfile({ status: 'invisible' })
    await clock.pass(300)
    bob.members.noteTyping(roomId)
    relay.put(`/chat/room/${roomId}/typing/${bob.userId}`, { name: 'Bob', timestamp: clock.now() })
    await clock.pass(300)
    expect(alice.members.typing(roomId)).toEqual([])
    await bob.messages.send(roomId, { text: 'x' })
    await clock.pass(100)
    await alice.messages.send(roomId, { text: 'y' })
    await clock.pass(500)
    bob.rooms.activate(roomId)
    await clock.pass(2_000)
    await bob.runtime.end(false)
    await clock.pass(40_000)
    expect(
      alice.messages
        .timeline(roomId)
        .at(-1)!
        .readBy.map((reader) => reader.name),
    ).toEqual(['Bob'])
  })

  it('are gone at once when they sign out', async () => {
    const [alice, bob] = [await person('Alice'), await person('Bob')]
    const roomId = await roomOf(alice, [bob])
    bob.messages.setDraft(roomId, { text: 'half', replyTo: null, image: null, edit: null })
    await bob.session.logout()
    bob.messages.setDraft(roomId, { text: 'half', replyTo: null, image: null, edit: null })
    await clock.pass(500)
    expect(alice.members.present(roomId).map((member) => member.name)).toEqual(['Alice'])
  })

  it('kicks and bans with effect', async () => {
    const [alice, bob, carol] = [await person('Alice'), await person('Bob'), await person('Carol')]
    const roomId = await roomOf(alice, [bob, carol])
    const doing = alice.members.kick(roomId, bob.userId)
    await clock.pass(500)
    await doing
    expect(bob.rooms.byId[roomId]).toMatchObject({ joined: false, access: 'unknown' })
    expect(bob.notifications.notices.at(-1)).toMatchObject({ key: 'notices.kicked' })
    const banning = alice.members.ban(roomId, carol.userId)
    await clock.pass(500)
    await banning
    expect(alice.members.bans(roomId)).toMatchObject([{ userId: carol.userId, name: 'Carol', bannedBy: alice.userId }])
    expect(carol.rooms.byId[roomId]).toMatchObject({ joined: false, access: 'banned' })
    expect(carol.notifications.notices.at(-1)).toMatchObject({ key: 'notices.banned' })
  })

  it('become friends and write to each other', async () => {
    const [alice, bob] = [await person('Alice'), await person('Bob')]
    await Promise.all([alice.friends.request(bob.userId), clock.pass(300)])
    expect(bob.friends.incoming.map((each) => each.name)).toEqual(['Alice'])
    await Promise.all([bob.friends.accept(alice.userId), clock.pass(500)])
    await clock.pass(300)
    expect(alice.friends.friends.map((each) => each.name)).toEqual(['Bob'])
    expect(bob.friends.friends.map((each) => each.name)).toEqual(['Alice'])
    expect(bob.friends.incoming).toEqual([])
    expect([...relay.params.keys()].filter((address) => address.startsWith('/chat/requests'))).toEqual([])
    const [roomId] = await Promise.all([alice.friends.openDirectMessage(bob.userId), clock.pass(500)])
    await clock.pass(1_000)
    expect(bob.rooms.directMessages.map((room) => room.name)).toEqual(['Alice'])
    expect(alice.rooms.directMessages.map((room) => room.name)).toEqual(['Bob'])
    await alice.messages.send(roomId, { text: 'just us' })
    await clock.pass(500)
    texts(bob, roomId)
    await breathe()
    expect(texts(bob, roomId)).toEqual(['just us'])
  })
})

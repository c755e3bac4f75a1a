import { beforeEach, describe, expect, it } from 'vitest'
import { breathe } from '../support/clock'
import { MemoryStorage, type Tester } from '../support/person'
import { World } from './world'

let world: World
let alice: Tester
let bob: Tester

beforeEach(async () => {
  world = new World()
  alice = await world.person('Alice')
  bob = await world.person('Bob')
})

describe('finding a room', () => {
  it('lists what is public, and shows who made it', async () => {
    await world.done(alice.rooms.create({ name: 'Zoo', isPublic: true, encrypted: false }))
    await world.done(alice.rooms.create({ name: 'Attic', isPublic: false, encrypted: false }))
    const open = await world.done(alice.rooms.create({ name: 'Bar', isPublic: true, encrypted: false }))
    await world.pass(300)
    expect(bob.rooms.publicRooms.map((room) => room.name)).toEqual(['Bar', 'Zoo'])
    expect(bob.rooms.byId[open]).toMatchObject({ joined: false, creatorName: 'Alice', access: 'unknown' })
    expect(alice.rooms.joined.map((room) => room.name)).toEqual(['Attic', 'Bar', 'Zoo'])
  })

  it('looks one up by its invitation', async () => {
    const roomId = await world.done(alice.rooms.create({ name: 'Attic', isPublic: false, encrypted: false }))
    const link = alice.rooms.inviteLink(roomId)
    expect(link).toBe(`https://chat.test/chat?join=${roomId}`)
    expect(bob.rooms.parseInvite(link)).toBe(roomId)
    expect(await world.done(bob.rooms.lookUp(roomId))).toMatchObject({ name: 'Attic', joined: false })
    expect(bob.rooms.joined).toEqual([])
    const nowhere = '00000000-0000-4000-8000-000000000000'
    expect(await world.done(bob.rooms.lookUp(nowhere))).toBeNull()
    await expect(world.done(bob.rooms.join(nowhere))).rejects.toMatchObject({ kind: 'missing' })
    await expect(bob.rooms.join('**')).rejects.toMatchObject({ kind: 'invalid' })
  })

  it('takes names and groups only as they may be', async () => {
    const room = { isPublic: false, encrypted: false }
    await expect(alice.rooms.create({ ...room, name: '  ' })).rejects.toMatchObject({ kind: 'invalid' })
    await expect(alice.rooms.create({ ...room, name: 'x'.repeat(33) })).rejects.toMatchObject({ kind: 'invalid' })
    await expect(alice.rooms.create({ ...room, name: 'x', namespace: '**' })).rejects.toMatchObject({ kind: 'invalid' })
  })
})

describe('names that every object has', () => {
  it('are no rooms and no groups', async () => {
    for (const name of ['constructor', '__proto__', 'toString']) {
      expect(alice.rooms.byId[name]).toBeUndefined()
      expect(alice.groups.byPath[name]).toBeUndefined()
    }
    await world.done(alice.groups.create({ path: 'constructor', description: 'x', icon: '', isPublic: true }))
    expect(alice.groups.byPath['constructor']).toMatchObject({ description: 'x' })
  })
})

describe('changing a room', () => {
  it('renames and describes it for everybody', async () => {
    const roomId = await world.room(alice, [bob])
    await world.done(alice.rooms.rename(roomId, 'Salon'))
    await world.done(alice.rooms.setDescription(roomId, ' for talking '))
    expect(bob.rooms.byId[roomId]).toMatchObject({ name: 'Salon', description: 'for talking' })
    expect(world.relay.value(`/chat/registry/rooms/${roomId}`)).toMatchObject({ name: 'Salon' })
  })

  it('hides it and shows it again, without anybody losing it', async () => {
    const roomId = await world.room(alice, [bob])
    await world.done(alice.rooms.setVisibility(roomId, false))
    expect(world.relay.value(`/chat/registry/rooms/${roomId}`)).toBeUndefined()
    for (const each of [alice, bob]) {
      expect(each.rooms.joined.map((room) => room.id)).toEqual([roomId])
      expect(each.rooms.publicRooms).toEqual([])
    }
    await world.done(alice.rooms.setVisibility(roomId, true))
    expect(bob.rooms.publicRooms.map((room) => room.id)).toEqual([roomId])
  })

  it('moves it between groups', async () => {
    const roomId = await world.room(alice, [])
    await world.done(alice.rooms.setNamespace(roomId, 'games'))
    await world.done(alice.rooms.setNamespace(roomId, 'music'))
    const entries = () => Object.keys(world.stored('/chat/registry/ns/'))
    expect(entries()).toEqual([`/chat/registry/ns/music/${roomId}`])
    await world.done(alice.rooms.setNamespace(roomId, null))
    expect(entries()).toEqual([])
    await expect(alice.rooms.setNamespace(roomId, '__auth')).rejects.toMatchObject({ kind: 'invalid' })
  })

  it('keeps the password when something else changes, and takes it away when told', async () => {
    const roomId = await world.done(
      alice.rooms.create({ name: 'Den', isPublic: true, encrypted: false, password: 'sesame' }),
      2_000,
    )
    const hash = () => (world.relay.value(`/chat/room/${roomId}/meta`) as Record<string, unknown>)['passwordHash']
    const before = hash()
    await world.done(alice.rooms.rename(roomId, 'Salon'))
    expect(hash()).toBe(before)
    await world.done(alice.rooms.setPassword(roomId, 'other'), 2_000)
    expect(hash()).not.toBe(before)
    await world.done(alice.rooms.setPassword(roomId, null))
    expect(hash()).toBeUndefined()
    expect(alice.rooms.byId[roomId]!.hasPassword).toBe(false)
  })

  it('hands the key of a new password to nobody who only gave the old one', async () => {
    const room = { name: 'Den', isPublic: true, encrypted: true, password: 'sesame' }
    const roomId = await world.done(alice.rooms.create(room), 2_000)
    await world.done(bob.rooms.join(roomId, 'sesame'), 6_000)
    expect(bob.rooms.byId[roomId]!.encryption).toBe('ready')
    // The echo of what is stored comes late, after the ACK.
    const { soon } = world.relay
    const bobs = `/chat/room/${roomId}/crypto/keyex/${bob.userId}`
    const before = world.emitted(bobs).length
    Object.assign(world.relay, { soon: (callback: () => void) => setImmediate(callback) })
    await world.done(alice.rooms.setPassword(roomId, 'other'), 3_000)
    Object.assign(world.relay, { soon })
    expect(world.emitted(bobs)).toHaveLength(before)
    await world.done(bob.rooms.join(roomId, 'other'), 6_000)
    await world.done(alice.messages.send(roomId, { text: 'new' }))
    await world.pass(6_000)
    bob.messages.timeline(roomId)
    await breathe()
    expect(bob.messages.timeline(roomId).at(-1)).toMatchObject({ text: 'new', secrecy: 'encrypted' })
  })

  it('encrypts it from now on, for good', async () => {
    const roomId = await world.room(alice, [bob])
    await world.done(alice.rooms.enableEncryption(roomId))
    await world.pass(6_000)
    expect([alice, bob].map((each) => each.rooms.byId[roomId]!.encryption)).toEqual(['ready', 'ready'])
    expect(alice.members.rights(roomId).encrypt).toBe(false)
    world.relay.put(`/chat/room/${roomId}/meta`, { name: 'Den', type: 'text', isPublic: true, encrypted: false })
    await world.pass(500)
    await world.done(bob.messages.send(roomId, { text: 'still secret' }))
    expect(JSON.stringify(world.emitted(`/chat/room/${roomId}/messages`))).not.toContain('still secret')
  })

  it('lists who has joined and is away, and bans them', async () => {
    const roomId = await world.room(alice, [bob])
    expect(alice.members.away(roomId)).toEqual([])
    await bob.runtime.end(false)
    await world.pass(40_000)
    expect(alice.members.present(roomId).map(({ name }) => name)).toEqual(['Alice'])
    expect(alice.members.away(roomId)).toMatchObject([{ userId: bob.userId, name: 'Bob', role: 'member' }])
    await world.done(alice.members.ban(roomId, bob.userId))
    expect(alice.members.away(roomId)).toEqual([])
    expect(alice.members.bans(roomId)).toMatchObject([{ userId: bob.userId, name: 'Bob' }])
  })

  it('says when the relay refuses, and shows nothing as done', async () => {
    const roomId = await world.room(alice, [bob])
    world.relay.policy = (message, subject) =>
      message.type === 'SET' && message.address.endsWith('/meta') && subject === bob.userId
        ? { code: 403, message: 'Only the creator does that.' }
        : null
    const renaming = world.done(bob.rooms.rename(roomId, 'Mine'))
    await expect(renaming).rejects.toMatchObject({ kind: 'forbidden', message: 'Only the creator does that.' })
    expect(bob.rooms.byId[roomId]!.name).toBe('Den')
    expect(bob.members.rights(roomId)).toMatchObject({ rename: false, kick: false, remove: false })
    bob.notifications.fail(await renaming.catch((error: unknown) => error))
    expect(bob.notifications.notices.at(-1)).toMatchObject({ kind: 'error', key: 'errors.forbidden' })
  })

  it('ends it for everybody', async () => {
    const roomId = await world.room(alice, [bob])
    await world.done(alice.rooms.remove(roomId))
    expect(world.stored('/chat/registry/')).toEqual({})
    expect(world.relay.value(`/chat/room/${roomId}/meta`)).toBeUndefined()
    expect(alice.rooms.byId[roomId]).toBeUndefined()
    expect(bob.rooms.byId[roomId]).toMatchObject({ access: 'missing' })
    expect(bob.notifications.notices.at(-1)).toMatchObject({ key: 'notices.roomDeleted' })
  })
})

describe('a room one is in', () => {
  it('is there after a reload: private ones and direct messages with their names', async () => {
    const roomId = await world.room(alice, [], { isPublic: false })
    await world.done(alice.messages.send(roomId, { text: 'kept' }))
    alice.messages.setDraft(roomId, { text: 'half a th', replyTo: null, image: null, edit: null })
    alice.rooms.setMuted(roomId, true)
    await breathe()
    await alice.runtime.end(false)
    const again = world.make('Alice', alice.local)
    world.relay.down = true
    await again.session.restore()
    await world.pass(500)
    expect(again.rooms.byId[roomId]).toMatchObject({ name: 'Den', joined: true, muted: true, encryption: 'unknown' })
    again.messages.timeline(roomId)
    await breathe()
    expect(again.messages.timeline(roomId).map((message) => message.text)).toEqual(['kept'])
    expect(again.messages.draft(roomId).text).toBe('half a th')
    world.relay.down = false
    await world.pass(5_000)
    expect(again.rooms.byId[roomId]).toMatchObject({ access: 'inside', encryption: 'off' })
  })

  it('and what was not sent before a reload is sent after it, once', async () => {
    const roomId = await world.room(alice, [bob])
    world.relay.down = true
    world.relay.restart()
    await world.pass(200)
    await alice.messages.send(roomId, { text: 'written offline' })
    await breathe()
    await alice.runtime.end(false)
    world.relay.down = false
    const again = world.make('Alice', alice.local)
    await again.session.restore()
    await world.pass(40_000)
    expect(world.emitted(`/chat/room/${roomId}/messages`)).toMatchObject([{ text: 'written offline' }])
    expect(bob.messages.timeline(roomId).map((message) => message.text)).toEqual(['written offline'])
  })

  it('is taken over from the original app', async () => {
    const roomId = await world.room(alice, [], { isPublic: false })
    const local = new MemoryStorage()
    local.setItem('clasp-chat-joined', JSON.stringify([roomId, '**', 7]))
    const carol = await world.person('Carol', local)
    await world.pass(1_000)
    expect(carol.rooms.joined.map((room) => room.name)).toEqual(['Den'])
  })

  it('is left for good, also on another device', async () => {
    const roomId = await world.room(alice, [bob])
    alice.rooms.activate(roomId)
    await world.done(alice.rooms.leave(roomId))
    expect(alice.rooms.joined).toEqual([])
    expect(alice.rooms.activeId).toBeNull()
    await world.pass(30_000)
    expect(bob.members.present(roomId).map((member) => member.name)).toEqual(['Bob'])
    await world.done(bob.messages.send(roomId, { text: 'alone' }))
    expect(alice.rooms.byId[roomId]!.unread).toBe(0)
  })

  it('says why one is not inside', async () => {
    const roomId = await world.room(alice, [bob])
    world.relay.put(`/chat/room/${roomId}/bans/${bob.userId}`, { bannedBy: alice.userId, timestamp: 1, name: 'Bob' })
    await world.pass(100)
    expect(bob.rooms.byId[roomId]).toMatchObject({ access: 'banned' })
    world.relay.policy = (message, subject) =>
      message.type === 'SET' && message.address.includes('/presence/') && subject === bob.userId
        ? { code: 403, message: 'You are banned.' }
        : null
    await world.pass(12_000)
    expect(bob.rooms.byId[roomId]).toMatchObject({ access: 'banned' })
    world.relay.put(`/chat/room/${roomId}/bans/${bob.userId}`, null)
    await world.pass(12_000)
    expect(bob.rooms.byId[roomId]).toMatchObject({ access: 'refused' })
    world.relay.put(`/chat/room/${roomId}/bans/${bob.userId}`, { bannedBy: alice.userId, timestamp: 2, name: 'Bob' })
    await world.pass(100)
    expect(bob.rooms.byId[roomId]).toMatchObject({ access: 'banned' })
    world.relay.policy = () => null
    await world.pass(12_000)
    expect(bob.rooms.byId[roomId]).toMatchObject({ access: 'inside' })
  })
})

describe('two devices of one person', () => {
  it('show one person, who stays when one of them goes', async () => {
    const roomId = await world.room(alice, [bob])
    const phone = world.make('Bob', new MemoryStorage())
    await phone.start()
    await world.pass(500)
    await world.done(phone.rooms.join(roomId))
    await world.pass(1_000)
    expect(alice.members.present(roomId).map((member) => member.name)).toEqual(['Alice', 'Bob'])
    phone.listeners.close()
    await world.pass(100)
    await phone.runtime.end(false)
    await world.pass(3_000)
    expect(alice.members.present(roomId).map((member) => member.name)).toEqual(['Alice', 'Bob'])
    expect(bob.rooms.byId[roomId]).toMatchObject({ access: 'inside', joined: true })
    bob.listeners.close()
    await world.pass(100)
    await bob.runtime.end(false)
    await world.pass(500)
    expect(alice.members.present(roomId).map((member) => member.name)).toEqual(['Alice'])
  })
})

describe('groups', () => {
  it('are reached through parents that nobody created, and created with their first room', async () => {
    const path = 'games/board/chess'
    await world.done(alice.groups.ensure(path, true))
    await world.done(alice.groups.ensure(path, true))
    await world.done(bob.groups.ensure(path, true))
    expect(bob.groups.byPath[path]).toMatchObject({ createdBy: alice.userId, isPublic: true })
    expect(bob.groups.children('').map((group) => group.path)).toEqual(['games'])
    expect(bob.groups.children('games').map((group) => group.path)).toEqual(['games/board'])
    expect(bob.groups.children('games/board').map((group) => group.path)).toEqual([path])
    expect(bob.groups.children(path)).toEqual([])
  })

  it('list no private room: neither a new one, nor one that became private', async () => {
    await world.done(alice.groups.ensure('games', true))
    const room = { encrypted: false, namespace: 'games' }
    const hidden = await world.done(alice.rooms.create({ ...room, name: 'Hidden', isPublic: false }))
    const closing = await world.done(alice.rooms.create({ ...room, name: 'Closing', isPublic: true }))
    expect(Object.keys(world.stored('/chat/registry/ns/'))).toEqual([`/chat/registry/ns/games/${closing}`])
    await world.done(alice.rooms.setVisibility(closing, false))
    await world.done(alice.rooms.rename(hidden, 'Still hidden'))
    expect(world.stored('/chat/registry/ns/')).toEqual({})
    expect(alice.groups.roomsIn('games').map((each) => each.name)).toEqual(['Closing', 'Still hidden'])
  })

  it('are made, watched, pinned, changed and ended', async () => {
    await world.done(alice.groups.create({ path: 'Games', description: 'all', icon: '🎲', isPublic: true }))
    await expect(
      world.done(bob.groups.create({ path: 'games', description: '', icon: '', isPublic: true })),
    ).rejects.toMatchObject({ kind: 'conflict' })
    await expect(alice.groups.create({ path: '**', description: '', icon: '', isPublic: true })).rejects.toMatchObject({
      kind: 'invalid',
    })
    const room = { name: 'Chess', isPublic: true, encrypted: false, namespace: 'games' }
    const roomId = await world.done(alice.rooms.create(room))
    const [stop, again] = [bob.groups.watch('games'), bob.groups.watch('games')]
    bob.groups.watch('**')()
    await world.pass(300)
    expect(bob.groups.children('').map((group) => group.path)).toEqual(['games'])
    expect(bob.groups.roomsIn('games').map((each) => each.name)).toEqual(['Chess'])
    stop()
    stop()
    bob.groups.pin('games')
    bob.groups.pin('games')
    again()
    expect(bob.groups.pinned).toMatchObject([{ path: 'games', name: 'games', icon: '🎲', pinned: true, mine: false }])
    await world.done(alice.groups.update('games', { description: 'some' }))
    expect(bob.groups.byPath['games']).toMatchObject({ description: 'some', createdBy: alice.userId })
    await expect(world.done(alice.groups.update('nothing', {}))).rejects.toMatchObject({ kind: 'missing' })
    await world.done(alice.groups.remove('games'))
    expect(bob.groups.byPath['games']).toBeUndefined()
    expect(world.stored('/chat/registry/ns')).toEqual({})
    bob.groups.unpin('games')
    bob.groups.unpin('games')
    expect(bob.groups.pinned).toEqual([])
    expect(alice.rooms.byId[roomId]).toMatchObject({ joined: true })
  })
})

describe('the key of an encrypted room', () => {
  it('is not replaced by a reload, however late the list of members comes', async () => {
    const roomId = await world.room(alice, [bob], { encrypted: true })
    const keysSent = () => world.emitted(`/chat/room/${roomId}/crypto/keyex/${bob.userId}`) as { keyId: string }[]
    const [first] = keysSent()
    await alice.runtime.end(false)
    const again = world.make('Alice', alice.local)
    await world.done(again.session.restore())
    await world.pass(30_000)
    expect(keysSent().every(({ keyId }) => keyId === first!.keyId)).toBe(true)
    await again.runtime.end(false)
    await world.done(bob.rooms.leave(roomId))
    const later = world.make('Alice', alice.local)
    await world.done(later.session.restore())
    await world.pass(5_000)
    await world.done(later.messages.send(roomId, { text: 'without Bob' }))
    const sent = world.emitted(`/chat/room/${roomId}/messages`).at(-1) as { keyId: string }
    expect(sent.keyId).not.toBe(first!.keyId)
  })

  it('is replaced by a ban and a kick, also where the relay refuses to remove the presence', async () => {
    const roomId = await world.room(alice, [bob], { encrypted: true })
    const key = async () => {
      await world.done(alice.messages.send(roomId, { text: 'x' }))
      return (world.emitted(`/chat/room/${roomId}/messages`).at(-1) as { keyId: string }).keyId
    }
    const before = await key()
    world.relay.policy = (message) =>
      message.type === 'SET' && message.address.includes('/presence/') && message.value === null
        ? { code: 403, message: 'No.' }
        : null
    await expect(world.done(alice.members.kick(roomId, bob.userId))).rejects.toMatchObject({ kind: 'forbidden' })
    const kicked = await key()
    expect(kicked).not.toBe(before)
    await expect(world.done(alice.members.ban(roomId, bob.userId))).rejects.toMatchObject({ kind: 'forbidden' })
    expect(await key()).not.toBe(kicked)
  })
})

describe('somebody with hundreds of rooms', () => {
  it('takes three subscriptions for each, and talks at once after a reload', async () => {
    const ids: string[] = []
    for (let at = 0; at < 300; at++) ids.push(`${String(at).padStart(8, '0')}-0000-4000-8000-000000000000`)
    for (const id of ids) {
      world.relay.put(`/chat/room/${id}/meta`, { name: id, type: 'text', isPublic: true, encrypted: false })
      await bob.runtime.storage.putRoom({
        id,
        joined: true,
        muted: false,
        meta: null,
        joinedAt: 1,
        lastReadMs: 0,
        lastActivityMs: 0,
        peerName: '',
      })
    }
    const roomId = ids[200]!
    await world.done(alice.rooms.join(roomId))
    alice.messages.timeline(roomId)
    await bob.runtime.end(false)
    const again = world.make('Bob', bob.local)
    await again.session.restore()
    await breathe()
    again.rooms.activate(roomId)
    await world.pass(1_000)
    await world.done(again.messages.send(roomId, { text: 'at once' }), 1_000)
    expect(alice.messages.timeline(roomId).map((message) => message.text)).toContain('at once')
    await world.pass(90_000)
    const [socket] = [...world.relay.sockets].filter((each) => each.subject === bob.userId)
    const ofRooms = [...socket!.subscriptions.values()].filter((each) => each.startsWith('/chat/room/'))
    expect(ofRooms.length).toBeLessThanOrEqual(3 * 300 + 2)
    expect(again.rooms.joined.filter((room) => room.access !== 'inside').length).toBe(0)
  })
})

/** What this app writes is what the original writes: every address with every field, and what is added beside it. */
import { beforeEach, describe, expect, it } from 'vitest'
import type { Tester } from '../support/person'
import { World } from './world'

const ms = expect.any(Number) as number
const text = expect.any(String) as string
const color = expect.stringMatching(/^#[0-9a-f]{6}$/) as string
const base64 = expect.stringMatching(/^[A-Za-z0-9+/]+={0,2}$/) as string
const coordinate = expect.stringMatching(/^[A-Za-z0-9_-]{43}$/) as string
const jwk = (keyOps: string[]) => ({
  kty: 'EC',
  crv: 'P-256',
  x: coordinate,
  y: coordinate,
  ext: true,
  key_ops: keyOps,
})

let world: World
let alice: Tester
let bob: Tester

beforeEach(async () => {
  world = new World()
  alice = await world.person('Alice')
  bob = await world.person('Bob')
})

describe('what is written about oneself', () => {
  it('profile and signing key', () => {
    const { userId } = alice
    expect(world.relay.value(`/chat/user/${userId}/profile`)).toEqual({
      name: 'Alice',
      avatarColor: color,
      userId,
      status: 'online',
    })
    expect(world.relay.value(`/chat/user/${userId}/signingKey`)).toEqual({
      publicKey: jwk(['verify']),
      algorithm: 'ECDSA-P256-SHA256',
      timestamp: ms,
    })
  })

  it('the account key, and the device that it signs', () => {
    const { userId, runtime } = alice
    expect(world.relay.value(`/chat/user/${userId}/account`)).toEqual({ key: jwk(['verify']), createdAt: ms, v: 1 })
    expect(world.relay.value(`/chat/user/${userId}/devices/${runtime.identity.deviceId}`)).toEqual({
      name: 'Test',
      key: jwk(['verify']),
      exchange: jwk([]),
      createdAt: ms,
      sig: expect.stringMatching(/^.{88}$/) as string,
    })
  })

  it('presence, with the status beside it, and typing', async () => {
    const roomId = await world.room(alice, [])
    expect(world.relay.value(`/chat/room/${roomId}/presence/${alice.userId}`)).toEqual({
      name: 'Alice',
      avatarColor: color,
      joinedAt: ms,
      lastSeen: ms,
      status: 'online',
    })
    alice.members.noteTyping(roomId)
    await world.pass(100)
    expect(world.relay.value(`/chat/room/${roomId}/typing/${alice.userId}`)).toEqual({ name: 'Alice', timestamp: ms })
    alice.members.stopTyping(roomId)
    await world.pass(100)
    expect(world.relay.value(`/chat/room/${roomId}/typing/${alice.userId}`)).toBeUndefined()
  })

  it('nothing of the presence is left after leaving', async () => {
    const roomId = await world.room(alice, [bob])
    await world.done(bob.rooms.leave(roomId))
    expect(
      Object.keys(world.stored(`/chat/room/${roomId}/`)).filter((address) => address.endsWith(bob.userId)),
    ).toEqual([])
  })
})

describe('what is written about rooms', () => {
  it('a public room: meta and registry entry', async () => {
    const roomId = await world.done(alice.rooms.create({ name: ' Den ', isPublic: true, encrypted: false }))
    expect(roomId).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
    const own = { creatorId: alice.userId, creatorName: 'Alice', createdAt: ms }
    expect(world.relay.value(`/chat/room/${roomId}/meta`)).toEqual({
      name: 'Den',
      type: 'text',
      description: '',
      isPublic: true,
      encrypted: false,
      ...own,
    })
    expect(world.relay.value(`/chat/registry/rooms/${roomId}`)).toEqual({
      name: 'Den',
      type: 'text',
      isPublic: true,
      ...own,
      hasPassword: false,
      id: roomId,
    })
  })

  it('a public room with a password in a group', async () => {
    const room = { name: 'Den', isPublic: true, encrypted: false, password: 'sesame', namespace: 'games/chess' }
    const roomId = await world.done(alice.rooms.create(room), 2_000)
    expect(world.relay.value(`/chat/registry/ns/games/chess/${roomId}`)).toMatchObject({
      isPublic: true,
      hasPassword: true,
      namespace: 'games/chess',
    })
  })

  it('a private, encrypted room with a password in a group', async () => {
    const room = { name: 'Den', isPublic: false, encrypted: true, password: 'sesame', namespace: 'games/chess' }
    const roomId = await world.done(alice.rooms.create(room), 2_000)
    expect(world.relay.value(`/chat/room/${roomId}/meta`)).toMatchObject({
      encrypted: true,
      passwordHash: expect.stringMatching(/^.{43}=$/) as string,
      passwordSalt: expect.stringMatching(/^.{22}==$/) as string,
      namespace: 'games/chess',
    })
    expect(world.relay.value(`/chat/registry/rooms/${roomId}`)).toBeUndefined()
    // Whoever browses the group would find it there.
    expect(world.relay.value(`/chat/registry/ns/games/chess/${roomId}`)).toBeUndefined()
    expect(world.relay.value(`/chat/room/${roomId}/crypto/pubkey/${alice.userId}`)).toEqual({
      publicKey: jwk([]),
      timestamp: ms,
      deviceId: alice.runtime.identity.deviceId,
    })
    await world.done(bob.rooms.join(roomId, 'sesame'), 2_000)
    const { passwordHash } = world.relay.value(`/chat/room/${roomId}/meta`) as { passwordHash: string }
    expect(world.relay.value(`/chat/room/${roomId}/crypto/proof/${bob.userId}`)).toEqual({
      hash: passwordHash,
      timestamp: ms,
    })
    await world.pass(4_000)
    expect(world.emitted(`/chat/room/${roomId}/crypto/keyex/${bob.userId}`)[0]).toEqual({
      fromId: alice.userId,
      encryptedKey: base64,
      iv: expect.stringMatching(/^.{16}$/) as string,
      senderPublicKey: jwk([]),
      epoch: 1,
      keyId: expect.stringMatching(/^[0-9a-f]{8}$/) as string,
      deviceId: alice.runtime.identity.deviceId,
    })
  })

  it('a report', async () => {
    const roomId = await world.room(alice, [bob])
    await world.done(alice.messages.send(roomId, { text: 'Rude' }))
    await world.pass(500)
    const [message] = bob.messages.timeline(roomId)
    await world.done(bob.reports.send(message!, ' Insults '))
    const [address] = world.relay.addresses('/chat/reports/*')
    expect(address).toMatch(/^\/chat\/reports\/[0-9a-f-]{36}$/)
    expect(world.relay.value(address!)).toEqual({
      roomId,
      message: { msgId: message!.msgId, userId: alice.userId, from: 'Alice', text: 'Rude', timestamp: ms },
      reason: 'Insults',
      from: 'Bob',
      timestamp: ms,
    })
  })

  it('admins and bans', async () => {
    const roomId = await world.room(alice, [bob])
    await world.done(alice.members.promote(roomId, bob.userId))
    expect(world.relay.value(`/chat/room/${roomId}/admin/${bob.userId}`)).toEqual({
      role: 'admin',
      promotedBy: alice.userId,
      timestamp: ms,
    })
    expect(alice.members.admins(roomId)).toEqual([bob.userId])
    expect(bob.members.rights(roomId)).toMatchObject({
      kick: true,
      ban: true,
      moderate: true,
      promote: false,
      remove: false,
    })
    await world.done(alice.members.demote(roomId, bob.userId))
    expect(world.relay.value(`/chat/room/${roomId}/admin/${bob.userId}`)).toBeUndefined()
    await world.done(alice.members.ban(roomId, bob.userId))
    expect(world.relay.value(`/chat/room/${roomId}/bans/${bob.userId}`)).toEqual({
      bannedBy: alice.userId,
      timestamp: ms,
      name: 'Bob',
    })
    await world.done(alice.members.unban(roomId, bob.userId))
    expect(world.relay.value(`/chat/room/${roomId}/bans/${bob.userId}`)).toBeUndefined()
  })

  it('the line about a kick', async () => {
    const roomId = await world.room(alice, [bob])
    await world.done(alice.members.kick(roomId, bob.userId))
    expect(world.emitted(`/chat/room/${roomId}/messages`)).toEqual([
      {
        type: 'text',
        fromId: alice.userId,
        userId: alice.userId,
        from: 'System',
        msgId: expect.stringMatching(/^kick-\d+$/) as string,
        text,
        timestamp: ms,
        avatarColor: '#6b7280',
      },
    ])
  })

  it('groups', async () => {
    await world.done(alice.groups.create({ path: 'Board Games', description: ' d ', icon: '🎲♟️x', isPublic: true }))
    expect(world.relay.value('/chat/registry/ns-meta/board-games')).toEqual({
      description: 'd',
      isPublic: true,
      icon: '🎲♟',
      createdBy: alice.userId,
      creatorName: 'Alice',
      createdAt: ms,
    })
  })
})

describe('what is written among friends', () => {
  it('request, answer, entries on both sides', async () => {
    await world.done(alice.friends.request(bob.userId))
    expect(world.relay.value(`/chat/requests/${bob.userId}/${alice.userId}`)).toEqual({
      fromId: alice.userId,
      fromName: 'Alice',
      fromColor: color,
      timestamp: ms,
    })
    const answers: unknown[] = []
    const { policy } = world.relay
    world.relay.policy = (message, subject) => {
      if (message.type === 'SET' && message.address.startsWith('/chat/requests/'))
        answers.push([message.address, message.value])
      return policy(message, subject)
    }
    await world.done(bob.friends.accept(alice.userId))
    expect(answers).toEqual([
      [
        `/chat/requests/${alice.userId}/${bob.userId}`,
        { type: 'accepted', fromId: bob.userId, fromName: 'Bob', fromColor: color, timestamp: ms },
      ],
      [`/chat/requests/${bob.userId}/${alice.userId}`, null],
      [`/chat/requests/${alice.userId}/${bob.userId}`, null],
    ])
    for (const [one, other] of [
      [alice, bob],
      [bob, alice],
    ] as const) {
      expect(world.relay.value(`/chat/user/${one.userId}/friends/${other.userId}`)).toEqual({
        name: other.name,
        avatarColor: color,
        addedAt: ms,
      })
    }
  })

  it('a direct message: meta and the call in the other’s inbox', async () => {
    await world.done(alice.friends.request(bob.userId))
    await world.done(bob.friends.accept(alice.userId))
    const roomId = await world.done(alice.friends.openDirectMessage(bob.userId))
    const [small, large] = [alice.userId, bob.userId].sort() as [string, string]
    expect(roomId).toBe(`dm-${small.slice(0, 8)}-${large.slice(0, 8)}`)
    expect(world.relay.value(`/chat/room/${roomId}/meta`)).toEqual({
      name: 'Bob',
      type: 'dm',
      isPublic: false,
      encrypted: true,
      dmUsers: { [alice.userId]: 'Alice', [bob.userId]: 'Bob' },
    })
    expect(world.relay.value(`/chat/user/${bob.userId}/dms/${roomId}`)).toEqual({
      fromId: alice.userId,
      fromName: 'Alice',
      roomId,
      timestamp: ms,
    })
  })

  it('a direct message whose id two others have gets one of its own', async () => {
    await world.done(alice.friends.request(bob.userId))
    await world.done(bob.friends.accept(alice.userId))
    const [small, large] = [alice.userId, bob.userId].sort() as [string, string]
    const taken = `dm-${small.slice(0, 8)}-${large.slice(0, 8)}`
    world.relay.put(`/chat/room/${taken}/meta`, { name: 'x', type: 'dm', dmUsers: { x: 'X', y: 'Y' } })
    const roomId = await world.done(alice.friends.openDirectMessage(bob.userId))
    expect(roomId).toMatch(/^dm-[0-9a-f]{8}-/)
    expect(roomId).not.toBe(taken)
    await world.pass(1_000)
    expect(bob.rooms.directMessages.map((room) => room.id)).toEqual([roomId])
    expect(await world.done(alice.friends.openDirectMessage(bob.userId))).toBe(roomId)
    expect(await world.done(bob.friends.openDirectMessage(alice.userId))).toBe(roomId)
  })
})

describe('what is emitted', () => {
  const proof = () => ({
    deviceId: alice.runtime.identity.deviceId,
    sig2: expect.stringMatching(/^.{88}$/) as string,
  })
  const head = () => ({
    kind: 'message',
    ...proof(),
    from: 'Alice',
    fromId: alice.connection.sessionId,
    userId: alice.userId,
    msgId: expect.stringMatching(/^\d{13}-[0-9a-z]{6}$/) as string,
    timestamp: ms,
    avatarColor: color,
  })

  it('texts, replies and images', async () => {
    const roomId = await world.room(alice, [bob])
    await world.done(alice.messages.send(roomId, { text: '  hi  ' }))
    const { msgId } = alice.messages.timeline(roomId)[0]!
    await world.done(alice.messages.send(roomId, { text: 'answer', replyTo: msgId }))
    const image = 'data:image/webp;base64,AAAA'
    await world.done(alice.messages.send(roomId, { text: '', image: { dataUrl: image, alt: 'cat' } }))
    const signature = expect.stringMatching(/^.{88}$/) as string
    expect(world.emitted(`/chat/room/${roomId}/messages`)).toEqual([
      { ...head(), text: 'hi', type: 'text', signature },
      { ...head(), text: 'answer', type: 'text', signature, replyTo: { msgId, from: 'Alice', text: 'hi' } },
      { ...head(), text: '', type: 'image', image, alt: 'cat', signature },
    ])
  })

  it('edits and deletes', async () => {
    const roomId = await world.room(alice, [bob])
    await world.done(alice.messages.send(roomId, { text: 'hi' }))
    const { msgId } = alice.messages.timeline(roomId)[0]!
    await world.done(alice.messages.edit(roomId, msgId, 'ho'))
    await world.done(alice.messages.remove(roomId, msgId))
    const ids = { msgId: expect.stringMatching(/^\d{13}-[0-9a-z]{6}$/) as string, ...proof() }
    const change = { ...ids, fromId: alice.connection.sessionId, userId: alice.userId, targetId: msgId, timestamp: ms }
    expect(world.emitted(`/chat/room/${roomId}/messages`).slice(1)).toEqual([
      { kind: 'edit', type: 'edit', ...change, text: 'ho' },
      { kind: 'delete', type: 'delete', ...change },
    ])
  })

  it('encrypted messages, of which only who and when can be read', async () => {
    const roomId = await world.room(alice, [], { encrypted: true })
    await world.done(alice.messages.send(roomId, { text: 'secret' }))
    expect(world.emitted(`/chat/room/${roomId}/messages`)).toEqual([
      {
        ...head(),
        text: base64,
        iv: expect.stringMatching(/^.{16}$/) as string,
        encrypted: true,
        keyId: expect.stringMatching(/^[0-9a-f]{8}$/) as string,
        type: 'text',
      },
    ])
  })

  it('reactions as one leaf a person, and how far one has read', async () => {
    const roomId = await world.room(alice, [bob])
    await world.done(bob.messages.send(roomId, { text: 'x' }))
    const { msgId } = alice.messages.timeline(roomId)[0]!
    const [{ timestamp }] = world.emitted(`/chat/room/${roomId}/messages`) as [{ timestamp: number }]
    await world.done(alice.messages.react(roomId, msgId, '👍'))
    const leaf = `/chat/room/${roomId}/reactions/${msgId}/👍/${alice.userId}`
    expect(world.relay.value(leaf)).toEqual({ userId: alice.userId, timestamp: ms })
    await world.done(alice.messages.react(roomId, msgId, '👍'))
    expect(world.relay.value(leaf)).toBeUndefined()
    alice.rooms.activate(roomId)
    await world.pass(2_000)
    // The original compares it with what the sender's clock said.
    expect(world.relay.value(`/chat/room/${roomId}/receipts/${alice.userId}`)).toEqual({
      userId: alice.userId,
      msgId,
      timestamp,
    })
  })
})

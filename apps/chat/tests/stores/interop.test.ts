/** People who use the original app, whose habits this app copes with. */
import { beforeEach, describe, expect, it } from 'vitest'
import { newExchangePair, publicJwkOf, unwrapRoomKey } from '@/crypto/exchange'
import { encrypt, importRoomKey, type RoomKey } from '@/crypto/roomKey'
import { newSigningPair, sign } from '@/crypto/signing'
import { parseKeyex, type PublicJwk } from '@/protocol/shapes'
import type { Tester } from '../support/person'
import { World } from './world'

let world: World
let alice: Tester
let roomId: string

const shown = () => alice.messages.timeline(roomId)
const messages = () => `/chat/room/${roomId}/messages`

/** What the original emits. */
const text = (part: object = {}) => ({
  from: 'Olga',
  fromId: 'session-olga',
  userId: 'olga',
  msgId: '1700000000000-olga01',
  text: 'hello',
  timestamp: world.clock.now(),
  avatarColor: '#abcdef',
  type: 'text',
  ...part,
})

beforeEach(async () => {
  world = new World()
  alice = await world.person('Alice')
})

describe('in an open room', () => {
  beforeEach(async () => {
    roomId = await world.room(alice, [])
  })

  it('texts, images and replies are shown', async () => {
    world.relay.emit(messages(), text())
    const reply = { msgId: '1700000000000-olga01', from: 'Olga', text: 'hello' }
    world.relay.emit(messages(), text({ msgId: 'm-2', timestamp: world.clock.now() + 1, replyTo: reply }))
    const image = { msgId: 'm-3', type: 'image', text: '', image: 'data:image/png;base64,AAAA' }
    world.relay.emit(messages(), text({ ...image, timestamp: world.clock.now() + 2 }))
    await world.pass(500)
    expect(shown()).toMatchObject([
      { text: 'hello', name: 'Olga', verification: 'unsigned', secrecy: 'plain' },
      { replyTo: { msgId: '1700000000000-olga01', name: 'Olga', text: 'hello' } },
      { kind: 'image', image: 'data:image/png;base64,AAAA' },
    ])
  })

  it('signatures are verified where the key is there, and others are marked', async () => {
    const pair = await newSigningPair()
    world.relay.put('/chat/user/olga/signingKey', { publicKey: await publicJwkOf(pair.publicKey, ['verify']) })
    const one = text({ msgId: 'm-1' })
    const signature = await sign(pair.privateKey, {
      text: 'hello',
      fromId: one.fromId,
      msgId: 'm-1',
      timestamp: one.timestamp,
    })
    world.relay.emit(messages(), { ...one, signature })
    world.relay.emit(messages(), { ...one, msgId: 'm-2', timestamp: one.timestamp + 1, signature })
    await world.pass(1_000)
    expect(shown().map((message) => message.verification)).toEqual(['verified', 'unverified'])
  })

  it('edits and deletes without a person count by the session where the target has no person, and are marked', async () => {
    world.relay.emit(messages(), { ...text(), userId: null })
    const change = { fromId: 'session-olga', targetId: '1700000000000-olga01', timestamp: world.clock.now() }
    world.relay.emit(messages(), { type: 'edit', ...change, text: 'changed' })
    await world.pass(300)
    expect(shown()).toMatchObject([{ text: 'changed', edited: true, unproven: true }])
    world.relay.emit(messages(), { type: 'delete', ...change, fromId: 'another', isModAction: true })
    await world.pass(300)
    expect(shown()).toMatchObject([{ deleted: false }])
    world.relay.emit(messages(), { type: 'delete', ...change })
    await world.pass(300)
    expect(shown()).toMatchObject([{ deleted: true, unproven: true }])
  })

  it('edits and deletes with somebody’s public session id do nothing to messages that name a person', async () => {
    world.relay.emit(messages(), text())
    await world.done(alice.messages.send(roomId, { text: 'mine' }))
    for (const { msgId, sessionId } of shown()) {
      const change = { fromId: sessionId, targetId: msgId, timestamp: world.clock.now() }
      world.relay.emit(messages(), { type: 'edit', ...change, text: 'forged' })
      world.relay.emit(messages(), { type: 'delete', ...change })
      world.relay.emit(messages(), { type: 'delete', ...change, isModAction: true })
      world.relay.emit(messages(), { type: 'delete', ...change, userId: 'mallory', isModAction: true })
    }
    await world.pass(300)
    expect(shown()).toMatchObject([
      { text: 'hello', edited: false, deleted: false },
      { text: 'mine', edited: false, deleted: false },
    ])
  })

  it('a message from a wrong clock stands where it arrived, is counted, and its signature still verifies', async () => {
    const pair = await newSigningPair()
    world.relay.put('/chat/user/olga/signingKey', { publicKey: await publicJwkOf(pair.publicKey, ['verify']) })
    alice.rooms.activate(roomId)
    world.relay.emit(messages(), text({ msgId: 'm-1' }))
    await world.pass(300)
    alice.rooms.activate(null)
    for (const [msgId, timestamp] of [
      ['m-2', world.clock.now() - 3_600_000],
      ['m-3', 0],
    ] as const) {
      const signature = await sign(pair.privateKey, { text: 'hello', fromId: 'session-olga', msgId, timestamp })
      world.relay.emit(messages(), text({ msgId, timestamp, signature }))
      await world.pass(300)
    }
    expect(shown().map((message) => message.msgId)).toEqual(['m-1', 'm-2', 'm-3'])
    expect(shown().every((message) => message.timestamp > world.clock.now() - 60_000)).toBe(true)
    expect(alice.rooms.byId[roomId]!.unread).toBe(2)
    expect(shown()[2]).toMatchObject({ verification: 'verified' })
  })

  it('messages stand in the order of their acceptance, whatever the clocks of their senders say', async () => {
    const { relay, clock } = world
    const say = (msgId: string, skewMs: number, atMs: number | null) => {
      const value = text({ msgId, timestamp: clock.now() + skewMs })
      relay.emit(messages(), value, atMs === null ? undefined : atMs * 1000)
    }
    const now = clock.now()
    // Clocks that are slow and fast, less than what is told apart from a wrong one.
    say('m-1', 240_000, now + 100)
    say('m-2', -240_000, now + 200)
    say('m-3', 0, now + 300)
    // One that the relay accepted earlier, on a slow way.
    say('m-4', 0, now + 150.5)
    await world.pass(600)
    // A time that is none of a relay's, and none at all: when it arrived counts.
    say('m-5', 0, now - 86_400_000)
    await world.pass(100)
    say('m-6', -240_000, null)
    await world.pass(300)
    expect(shown().map((message) => message.msgId)).toEqual(['m-1', 'm-4', 'm-2', 'm-3', 'm-5', 'm-6'])
    expect(
      shown()
        .slice(0, 4)
        .map(({ timestamp }) => timestamp - now),
    ).toEqual([100, 150.5, 200, 300])
  })

  it('a delete counts by the role that the relay names, not by what the sender claims or is now', async () => {
    world.relay.emit(messages(), text({ msgId: 'm-1' }))
    world.relay.emit(messages(), text({ msgId: 'm-2' }))
    await world.pass(300)
    const change = { type: 'delete', fromId: 'x', userId: 'former', timestamp: world.clock.now() }
    world.relay.emit(messages(), { ...change, targetId: 'm-1', isModAction: true })
    world.relay.emit(messages(), { ...change, targetId: 'm-2', role: 'admin' })
    world.relay.emit(messages(), { ...change, targetId: 'm-1', role: 'owner', isModAction: true })
    await world.pass(300)
    expect(shown().map(({ deleted }) => deleted)).toEqual([false, true])
  })

  it('a message that comes twice is shown once, one from the future is from now', async () => {
    world.relay.emit(messages(), text())
    world.relay.emit(messages(), text())
    world.relay.emit(messages(), text({ msgId: 'm-2', timestamp: world.clock.now() + 86_400_000 }))
    await world.pass(300)
    expect(shown().map((message) => message.msgId)).toEqual(['1700000000000-olga01', 'm-2'])
    expect(shown()[1]!.timestamp).toBeLessThanOrEqual(world.clock.now())
  })

  it('what is no message changes nothing', async () => {
    for (const junk of [null, 7, 'x', {}, { type: 'edit' }, text({ msgId: '../x' })]) world.relay.emit(messages(), junk)
    await world.pass(300)
    expect(shown()).toEqual([])
  })

  it('a ghost in the snapshot is not shown', async () => {
    world.relay.put(`/chat/room/${roomId}/presence/ghost`, {
      name: 'Ghost',
      avatarColor: '#000000',
      joinedAt: 1,
      lastSeen: 1,
    })
    await world.pass(60_000)
    const bob = await world.person('Bob')
    await world.done(bob.rooms.join(roomId))
    await world.pass(1_000)
    expect(bob.members.present(roomId).map((member) => member.name)).toEqual(['Alice', 'Bob'])
  })
})

describe('in an encrypted room', () => {
  let olga: CryptoKeyPair
  let olgaKey: PublicJwk
  let roomKey: RoomKey

  /** Olga's app publishes its key and gets the room's. */
  beforeEach(async () => {
    roomId = await world.room(alice, [], { encrypted: true })
    olga = await newExchangePair()
    olgaKey = await publicJwkOf(olga.publicKey)
    world.relay.put(`/chat/room/${roomId}/presence/olga`, {
      name: 'Olga',
      avatarColor: '#abcdef',
      joinedAt: 1,
      lastSeen: 1,
    })
    world.relay.put(`/chat/room/${roomId}/crypto/pubkey/olga`, { publicKey: olgaKey, timestamp: 1 })
    await world.pass(3_000)
    const sent = world.emitted(`/chat/room/${roomId}/crypto/keyex/olga`)
    expect(sent).toHaveLength(1)
    const { senderPublicKey, encryptedKey, iv } = parseKeyex(sent[0])!
    roomKey = await importRoomKey((await unwrapRoomKey(olga.privateKey, senderPublicKey, { text: encryptedKey, iv }))!)
  })

  it('the key reaches the original, and what it encrypts is read', async () => {
    const { text: ciphertext, iv } = await encrypt(roomKey.key, 'from the original')
    world.relay.emit(messages(), text({ text: ciphertext, iv, encrypted: true }))
    await world.pass(500)
    expect(shown()).toMatchObject([{ text: 'from the original', secrecy: 'encrypted' }])
  })

  it('clear text is shown, marked, and not answered in kind', async () => {
    world.relay.emit(messages(), text())
    await world.pass(300)
    expect(shown()).toMatchObject([{ text: 'hello', secrecy: 'exposed' }])
    await world.done(alice.messages.send(roomId, { text: 'sealed', replyTo: shown()[0]!.msgId }))
    expect(world.emitted(messages())).toMatchObject([{ encrypted: true, replyTo: { from: 'Olga', text: '' } }])
  })

  it('what cannot be read is kept until it can, and the key is asked for', async () => {
    const stranger = await importRoomKey({ ...roomKey.jwk, k: 'A'.repeat(43) })
    const { text: ciphertext, iv } = await encrypt(stranger.key, 'later')
    const asked = () => world.relay.value(`/chat/room/${roomId}/crypto/pubkey/${alice.userId}`)
    const before = asked()
    world.relay.emit(messages(), text({ text: ciphertext, iv, encrypted: true }))
    await world.pass(3_000)
    expect(shown()).toMatchObject([{ text: '', secrecy: 'unreadable' }])
    expect(asked()).not.toEqual(before)
    await alice.runtime.storage.putCryptoRecord(roomId, {
      ...(await alice.runtime.storage.cryptoRecord(roomId))!,
      keys: [{ jwk: stranger.jwk, epoch: 0, trusted: false }],
    })
    await alice.runtime.rooms.get(roomId)!.sync()
    await world.pass(500)
    expect(shown()).toMatchObject([{ text: 'later', secrecy: 'encrypted' }])
  })

  it('another key after a reload is warned of, and accepted by hand', async () => {
    const again = await publicJwkOf((await newExchangePair()).publicKey)
    world.relay.put(`/chat/room/${roomId}/crypto/pubkey/olga`, { publicKey: again, timestamp: 2 })
    await world.pass(500)
    const [change] = alice.security.keyChanges(roomId)
    expect(change).toMatchObject({
      userId: 'olga',
      name: 'Olga',
      oldFingerprint: alice.security.fingerprint(roomId, 'olga'),
    })
    await alice.security.acceptKey(roomId, 'olga')
    expect(alice.security.keyChanges(roomId)).toEqual([])
    expect(alice.security.fingerprint(roomId, 'olga')).toBe(change!.newFingerprint)
    expect(alice.security.fingerprint(roomId, alice.userId)).toBe(alice.security.ownFingerprint)
    world.relay.put(`/chat/room/${roomId}/crypto/pubkey/olga`, { publicKey: olgaKey, timestamp: 3 })
    await world.pass(500)
    expect(alice.security.keyChanges(roomId)).toEqual([])
    const third = await publicJwkOf((await newExchangePair()).publicKey)
    world.relay.put(`/chat/room/${roomId}/crypto/pubkey/olga`, { publicKey: third, timestamp: 4 })
    await world.pass(500)
    alice.security.dismissKeyChange(roomId, 'olga')
    expect(alice.security.keyChanges(roomId)).toEqual([])
  })
})

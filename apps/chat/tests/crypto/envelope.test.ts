import { describe, expect, it } from 'vitest'
import { seal as sealIn, type Outgoing, type OutgoingText } from '@/crypto/envelope'
import type { Identity } from '@/crypto/identity'
import { RoomCrypto } from '@/crypto/roomCrypto'
import { signEvent, verifyEvent } from '@/crypto/devices'
import { verify } from '@/crypto/signing'
import { parseMessage, wireOf, type RoomMessage, type TextMessage } from '@/protocol/shapes'
import { seeded } from '../random'
import { identity } from './room'

const ROOM = '11111111-1111-4111-8111-111111111111'

const seal = (room: RoomCrypto, own: Identity, outgoing: Outgoing) => sealIn(room, own, ROOM, outgoing)

async function machine(encrypted: boolean): Promise<RoomCrypto> {
  const room = await RoomCrypto.load(await identity('bob'), seeded(1), null)
  await room.handle(encrypted ? { type: 'create' } : { type: 'meta', meta: null })
  return room
}

const message = (extra: Partial<OutgoingText> = {}): OutgoingText => ({
  kind: 'message',
  from: 'Bob',
  fromId: 'session',
  userId: 'bob',
  msgId: '1700000000000-abc123',
  timestamp: 1_700_000_000_000,
  avatarColor: '#112233',
  text: 'hi',
  image: null,
  alt: '',
  replyTo: null,
  ...extra,
})
const IMAGE = 'data:image/webp;base64,AAAA'

describe('seal', () => {
  it('writes a text in an open room as the original does', async () => {
    const { value } = await seal(await machine(false), await identity('bob'), message())
    expect(value).toEqual({
      kind: 'message',
      deviceId: (await identity('bob')).deviceId,
      sig2: expect.stringMatching(/^.{88}$/) as string,
      from: 'Bob',
      fromId: 'session',
      userId: 'bob',
      msgId: '1700000000000-abc123',
      text: 'hi',
      timestamp: 1_700_000_000_000,
      avatarColor: '#112233',
      type: 'text',
      signature: expect.stringMatching(/^.{88}$/) as string,
    })
  })

  it('signs the text for the original in an open room, and never in an encrypted one', async () => {
    const own = await identity('bob')
    const open = (await seal(await machine(false), own, message())).value as Record<string, unknown>
    const sealed = (await seal(await machine(true), own, message())).value as Record<string, unknown>
    const signed = { fromId: 'session', msgId: '1700000000000-abc123', timestamp: 1_700_000_000_000 }
    const key = own.signingPublicKey
    expect(await verify(key, { text: 'hi', ...signed }, open['signature'] as string)).toBe(true)
    expect(sealed['signature']).toBeUndefined()
  })

  it('seals text, image and its description, each with an iv of its own, and leaves the quoted text out', async () => {
    const room = await machine(true)
    const replyTo = { msgId: '1-a', from: 'Carol', text: 'quoted' }
    const { value } = await seal(room, await identity('bob'), message({ image: IMAGE, alt: 'a cat', replyTo }))
    const parsed = parseMessage(value) as TextMessage
    expect(parsed).toMatchObject({
      type: 'image',
      text: '',
      image: null,
      replyTo: { msgId: '1-a', from: 'Carol', text: '' },
    })
    expect(await room.open(parsed.sealed!, parsed.keyId)).toBe('hi')
    expect(await room.open(parsed.sealedImage!, parsed.keyId)).toBe(IMAGE)
    expect(await room.open(parsed.sealedAlt!, null)).toBe('a cat')
    expect(new Set([parsed.sealed!.iv, parsed.sealedImage!.iv, parsed.sealedAlt!.iv]).size).toBe(3)
  })

  it('writes images and quotes in clear text where the room is open, the quote cut to 100', async () => {
    const replyTo = { msgId: '1-a', from: 'Carol', text: 'q'.repeat(500) }
    const { value } = await seal(
      await machine(false),
      await identity('bob'),
      message({ image: IMAGE, alt: 'a cat', replyTo }),
    )
    expect(value).toMatchObject({
      type: 'image',
      image: IMAGE,
      alt: 'a cat',
      replyTo: { ...replyTo, text: 'q'.repeat(100) },
    })
    const plain = await seal(await machine(false), await identity('bob'), message({ image: IMAGE, text: '' }))
    expect(plain.value).toMatchObject({ type: 'image', image: IMAGE, text: '' })
  })

  it('refuses what no reader would take for a message', async () => {
    const odd = message({ msgId: 'a/b' })
    await expect(seal(await machine(false), await identity('bob'), odd)).rejects.toMatchObject({ kind: 'invalid' })
  })

  it('signs nothing that names no person or no device', async () => {
    const own = await identity('bob')
    const { event } = await seal(await machine(false), own, message())
    for (const part of [{ userId: null }, { deviceId: null }, { msgId: null }]) {
      const nameless = { ...event, ...part } as RoomMessage
      expect(await signEvent(own.signingKey, ROOM, nameless)).toBeNull()
      expect(await verifyEvent(own.signingPublicKey, ROOM, nameless)).toBe(false)
    }
  })

  it('writes edits and deletes with the session and the person', async () => {
    const head = { fromId: 'session', userId: 'bob', msgId: '5-b', timestamp: 5, targetId: '1-a' }
    const own = await identity('bob')
    const proof = { deviceId: own.deviceId, sig2: expect.stringMatching(/^.{88}$/) as string }
    expect((await seal(await machine(false), own, { kind: 'edit', ...head, text: 'new' })).value).toEqual({
      kind: 'edit',
      type: 'edit',
      ...head,
      ...proof,
      text: 'new',
    })
    const room = await machine(true)
    const sealed = (await seal(room, own, { kind: 'edit', ...head, text: 'new' })).value
    expect(sealed).toEqual({
      kind: 'edit',
      type: 'edit',
      ...head,
      ...proof,
      text: expect.any(String) as string,
      iv: expect.any(String) as string,
      encrypted: true,
      keyId: expect.any(String) as string,
    })
    const gone = await seal(room, own, { kind: 'delete', ...head, moderator: false })
    expect(gone.value).toEqual({ kind: 'delete', type: 'delete', ...head, ...proof })
    expect(gone.guard()).toBe(true)
    const moderated = await seal(room, own, { kind: 'delete', ...head, moderator: true })
    expect(moderated.value).toMatchObject({ ...head, fromId: 'bob', isModAction: true })
  })

  it('signs everything that one says, for one room, and what is handed on verifies as it did', async () => {
    const own = await identity('bob')
    const other = await identity('mallory')
    const head = { fromId: 'session', userId: 'bob', msgId: '5-b', timestamp: 5, targetId: '1-a' }
    const replyTo = { msgId: '1-a', from: 'Carol', text: 'quoted' }
    const outgoings: Outgoing[] = [
      message({ image: IMAGE, alt: 'a cat', replyTo }),
      { kind: 'edit', ...head, text: 'new' },
      { kind: 'delete', ...head, moderator: true },
    ]
    for (const encrypted of [false, true]) {
      for (const outgoing of outgoings) {
        const { value, event } = await seal(await machine(encrypted), own, outgoing)
        expect(parseMessage(value)).toEqual(event)
        expect(parseMessage(wireOf(event))).toEqual(event)
        const verifies = (part: object, roomId = ROOM, key = own.signingPublicKey) =>
          verifyEvent(key, roomId, { ...event, ...part } as RoomMessage)
        expect(await verifies({})).toBe(true)
        const lies: object[] = [{ msgId: 'x' }, { userId: 'mallory' }, { deviceId: other.deviceId }, { timestamp: 6 }]
        if (event.kind !== 'message') lies.push({ targetId: 'x' })
        if (event.kind !== 'delete') {
          lies.push(event.sealed ? { sealed: { ...event.sealed, text: 'AAAA' } } : { text: 'x' })
          lies.push({ kind: event.kind === 'edit' ? 'message' : 'edit', image: null, sealedImage: null, replyTo: null })
        }
        if (event.kind === 'message') lies.push({ replyTo: null }, { replyTo: { ...replyTo, text: 'another' } })
        for (const lie of lies) expect(await verifies(lie), JSON.stringify(lie)).toBe(false)
        expect(await verifies({}, ROOM.replace('1', '2'))).toBe(false)
        expect(await verifies({}, ROOM, other.signingPublicKey)).toBe(false)
      }
    }
  })
})

import { describe, expect, it } from 'vitest'
import { seal, type OutgoingDelete, type OutgoingEdit, type OutgoingText } from '@/crypto/envelope'
import { RoomCrypto } from '@/crypto/roomCrypto'
import { signedChange, verify } from '@/crypto/signing'
import { changeFields, parseMessage, type ChangeMessage, type TextMessage } from '@/protocol/shapes'
import { seeded } from '../random'
import { identity } from './room'

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

  it('signs the text in an open room and the ciphertext in an encrypted one', async () => {
    const own = await identity('bob')
    const open = (await seal(await machine(false), own, message())).value as Record<string, unknown>
    const sealed = (await seal(await machine(true), own, message())).value as Record<string, unknown>
    const signed = { fromId: 'session', msgId: '1700000000000-abc123', timestamp: 1_700_000_000_000 }
    const key = own.signingPublicKey
    expect(await verify(key, { text: 'hi', ...signed }, open['signature'] as string)).toBe(true)
    expect(sealed['signature']).toBeUndefined()
    expect(await verify(key, { text: sealed['text'] as string, ...signed }, sealed['cipherSignature'] as string)).toBe(
      true,
    )
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

  it('writes edits and deletes with the session and the person', async () => {
    const head = { fromId: 'session', userId: 'bob', timestamp: 5, targetId: '1-a' }
    const own = await identity('bob')
    const signature = expect.stringMatching(/^.{88}$/) as string
    expect((await seal(await machine(false), own, { kind: 'edit', ...head, text: 'new' })).value).toEqual({
      type: 'edit',
      ...head,
      text: 'new',
      signature,
    })
    const room = await machine(true)
    const sealed = (await seal(room, own, { kind: 'edit', ...head, text: 'new' })).value
    expect(sealed).toEqual({
      type: 'edit',
      ...head,
      text: expect.any(String) as string,
      iv: expect.any(String) as string,
      encrypted: true,
      keyId: expect.any(String) as string,
      cipherSignature: signature,
    })
    const gone = await seal(room, own, { kind: 'delete', ...head, moderator: false })
    expect(gone.value).toEqual({ type: 'delete', ...head, signature })
    expect(gone.guard()).toBe(true)
    const moderated = await seal(room, own, { kind: 'delete', ...head, moderator: true })
    expect(moderated.value).toEqual({ type: 'delete', ...head, fromId: 'bob', isModAction: true, signature })
  })

  it('signs edits and deletes, with signatures that pass for no message', async () => {
    const own = await identity('bob')
    const head = { fromId: 'session', userId: 'bob', timestamp: 5, targetId: '1-a' }
    const of = async (room: RoomCrypto, change: OutgoingEdit | OutgoingDelete) =>
      parseMessage((await seal(room, own, change)).value) as ChangeMessage
    const proves = (change: ChangeMessage, covered: string, text = signedChange(change.kind, covered)) =>
      verify(own.signingPublicKey, { text, fromId: change.fromId, msgId: '1-a', timestamp: 5 }, change.signature!)
    const open = await of(await machine(false), { kind: 'edit', ...head, text: 'new' })
    expect([await proves(open, 'new'), await proves(open, 'other'), await proves(open, '', 'new')]).toEqual([
      true,
      false,
      false,
    ])
    const sealed = await of(await machine(true), { kind: 'edit', ...head, text: 'new' })
    expect(await proves(sealed, (sealed.kind === 'edit' && sealed.sealed?.text) || '')).toBe(true)
    const gone = await of(await machine(true), { kind: 'delete', ...head, moderator: true })
    expect([await proves(gone, ''), await proves(gone, '', '')]).toEqual([true, false])
    for (const change of [open, sealed, gone]) expect(parseMessage(changeFields(change))).toEqual(change)
  })
})

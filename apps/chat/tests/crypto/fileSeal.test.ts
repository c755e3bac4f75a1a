import { describe, expect, it } from 'vitest'
import { openFile, sealFile, TAG_BYTES } from '@/crypto/fileSeal'
import { signEvent, verifyEvent } from '@/crypto/devices'
import { parseMessage } from '@/protocol/shapes'
import { identity } from './room'

const bytes = (text: string): ArrayBuffer => new TextEncoder().encode(text).buffer as ArrayBuffer
const text = (data: ArrayBuffer): string => new TextDecoder().decode(data)
const DAMAGED = { kind: 'invalid', reason: 'fileDamaged' }

describe('the bytes of a file', () => {
  it('are the same again, encrypted or not', async () => {
    for (const encrypted of [true, false]) {
      const { bytes: kept, seal } = await sealFile(bytes('a secret'), encrypted)
      expect(text(await openFile(kept, seal))).toBe('a secret')
      expect(text(kept).includes('secret')).toBe(!encrypted)
      expect(kept.byteLength).toBe(8 + (encrypted ? TAG_BYTES : 0))
    }
  })

  it('have a key of their own each', async () => {
    const seals = await Promise.all([1, 2].map(() => sealFile(bytes('x'), true)))
    expect(new Set(seals.map(({ seal }) => seal.key)).size).toBe(2)
    expect(new Set(seals.map(({ seal }) => seal.iv)).size).toBe(2)
  })

  it('are not opened if they are others, or the key is another one', async () => {
    const [one, other] = await Promise.all([sealFile(bytes('one'), true), sealFile(bytes('two'), true)])
    await expect(openFile(other.bytes, one.seal)).rejects.toMatchObject(DAMAGED)
    await expect(openFile(one.bytes, { ...one.seal, key: other.seal.key })).rejects.toMatchObject(DAMAGED)
    await expect(openFile(one.bytes, { ...one.seal, key: 'AAAA' })).rejects.toMatchObject(DAMAGED)
    const plain = await sealFile(bytes('one'), false)
    await expect(openFile(bytes('two'), plain.seal)).rejects.toMatchObject(DAMAGED)
  })
})

describe('the signature of a message', () => {
  const file = { id: '0'.repeat(32), name: 'a', type: 'a/b', size: 1, sha256: '0'.repeat(64) }
  const head = {
    fromId: 's',
    userId: 'bob',
    deviceId: '0'.repeat(16),
    timestamp: 1,
    msgId: 'm-1',
    type: 'text',
    text: 'x',
  }

  it.each([
    ['open', { ...head, file }, { ...head, file: { ...file, sha256: '1'.repeat(64) } }],
    [
      'sealed',
      { ...head, text: 'AAAA', iv: 'AAAA', encrypted: true, encryptedFile: 'AAAA', fileIv: 'BBBB' },
      { ...head, text: 'AAAA', iv: 'AAAA', encrypted: true, encryptedFile: 'CCCC', fileIv: 'BBBB' },
    ],
  ])('covers its file, %s', async (_name, value, forged) => {
    const bob = await identity('bob')
    const sig2 = await signEvent(bob.signingKey, 'room', parseMessage(value)!)
    const key = bob.signingPublicKey
    expect(await verifyEvent(key, 'room', parseMessage({ ...value, sig2 })!)).toBe(true)
    expect(await verifyEvent(key, 'room', parseMessage({ ...forged, sig2 })!)).toBe(false)
    const without = { ...value, sig2, file: undefined, encryptedFile: undefined }
    expect(await verifyEvent(key, 'room', parseMessage(without)!)).toBe(false)
  })
})

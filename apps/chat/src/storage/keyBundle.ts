/**
 * The keys that one device of an account hands to another, or keeps in its backup: the account key and the keys of all
 * rooms.
 */
import type { RoomCryptoRecord } from '@/crypto/roomCrypto'
import { parseRing } from './keyRings'
import type { UserStorage } from './storage'

const CURVE = { name: 'ECDSA', namedCurve: 'P-256' } as const
const COORDINATE = /^[A-Za-z0-9_-]{43}$/
/** Older keys of each room are left out, from the first number to the last, until the text is short enough. */
const KEYS_PER_ROOM = [64, 16, 4, 1] as const

export interface KeyBundle {
  account: CryptoKeyPair
  rings: Map<string, RoomCryptoRecord>
}

/** All keys of this device as a text of at most `maxChars` characters, if there are not thousands of rooms. */
export async function writeBundle(storage: UserStorage, account: CryptoKeyPair, maxChars: number): Promise<string> {
  const { x, y, d } = await crypto.subtle.exportKey('jwk', account.privateKey)
  const records = [...(await storage.cryptoRecords())].filter(([, { keys }]) => keys.length > 0)
  const write = (most: number): string => {
    const rings = records.map(([roomId, { encrypted, keys, sendingKeyId }]) => {
      return { roomId, encrypted, keys: keys.slice(-most), sendingKeyId }
    })
    return JSON.stringify({ v: 1, account: { x, y, d }, rings })
  }
  for (const most of KEYS_PER_ROOM.slice(0, -1)) {
    const text = write(most)
    if (text.length <= maxChars) return text
  }
  return write(KEYS_PER_ROOM.at(-1) as number)
}

/** Reads what another device wrote; null: it is no bundle of keys. */
export async function readBundle(text: string): Promise<KeyBundle | null> {
  try {
    const { account, rings } = JSON.parse(text) as Record<string, unknown>
    const { x, y, d } = account as Record<string, unknown>
    if (![x, y, d].every((part) => typeof part === 'string' && COORDINATE.test(part)) || !Array.isArray(rings))
      return null
    const jwk = { kty: 'EC', crv: 'P-256', x: x as string, y: y as string, ext: true }
    const [privateKey, publicKey] = await Promise.all([
      crypto.subtle.importKey('jwk', { ...jwk, d: d as string }, CURVE, true, ['sign']),
      crypto.subtle.importKey('jwk', jwk, CURVE, true, ['verify']),
    ])
    const read = rings.map(parseRing).filter((ring) => ring !== null)
    return { account: { privateKey, publicKey }, rings: new Map(read) }
  } catch {
    // Not JSON, or a key that is not on the curve.
    return null
  }
}

/** Key exchange: a room key is wrapped with a key that only sender and receiver can derive. */
import type { PublicJwk, Sealed } from '@/protocol/shapes'
import { utf8, type Bytes } from './bytes'
import { decrypt, encrypt, parseRoomKeyJwk, type RoomKeyJwk } from './roomKey'

const CURVE = { name: 'ECDH', namedCurve: 'P-256' } as const
const SALT = new Uint8Array(32)
const INFO = utf8('clasp-chat-keyex-v1')

/** An exchange key pair, whose private key cannot be exported. */
export const newExchangePair = (): Promise<CryptoKeyPair> => crypto.subtle.generateKey(CURVE, false, ['deriveBits'])

/** A public key as clients write it. */
export async function publicJwkOf(key: CryptoKey, keyOps: readonly string[] = []): Promise<PublicJwk> {
  const { x, y } = await crypto.subtle.exportKey('jwk', key)
  return { kty: 'EC', crv: 'P-256', x: x as string, y: y as string, ext: true, key_ops: [...keyOps] }
}

/** HKDF-SHA-256 over the shared secret of an exchange; `info` says what the key is for. */
export async function wrapKeyFrom(secret: ArrayBuffer, info: Bytes = INFO): Promise<CryptoKey> {
  const material = await crypto.subtle.importKey('raw', secret, 'HKDF', false, ['deriveKey'])
  const hkdf = { name: 'HKDF', hash: 'SHA-256', salt: SALT, info }
  return crypto.subtle.deriveKey(hkdf, material, { name: 'AES-GCM', length: 256 }, true, ['encrypt', 'decrypt'])
}

/** The key that the holders of two exchange keys can derive. Throws if the other one's public key is invalid. */
export async function sharedKey(own: CryptoKey, peer: PublicJwk, info: Bytes = INFO): Promise<CryptoKey> {
  const { kty, crv, x, y } = peer
  const foreign = await crypto.subtle.importKey('jwk', { kty, crv, x, y, ext: true, key_ops: [] }, CURVE, true, [])
  return wrapKeyFrom(await crypto.subtle.deriveBits({ name: 'ECDH', public: foreign }, own, 256), info)
}

/** Wraps the room key for a peer; null: the peer's public key is invalid. */
export async function wrapRoomKey(own: CryptoKey, peer: PublicJwk, jwk: RoomKeyJwk): Promise<Sealed | null> {
  try {
    return await encrypt(await sharedKey(own, peer), JSON.stringify(jwk))
  } catch {
    return null
  }
}

/** Unwraps a room key from a peer; null: wrapped for another key, or not a room key. */
export async function unwrapRoomKey(own: CryptoKey, peer: PublicJwk, sealed: Sealed): Promise<RoomKeyJwk | null> {
  try {
    const json = await decrypt(await sharedKey(own, peer), sealed)
    return json === null ? null : parseRoomKeyJwk(JSON.parse(json))
  } catch {
    return null
  }
}

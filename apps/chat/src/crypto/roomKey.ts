/** The key of a room: AES-GCM, 256 bits, used for all messages until it is replaced. */
import type { Sealed } from '@/protocol/shapes'
import { fromBase64, fromBase64Url, fromUtf8, sha256, toBase64, toHex, utf8, type Bytes } from './bytes'

const IV_BYTES = 12
const KEY_ID_DIGITS = 8
const RAW_KEY = /^[A-Za-z0-9_-]{43}$/

/** A room key as clients write and keep it. */
export interface RoomKeyJwk {
  kty: 'oct'
  alg: 'A256GCM'
  k: string
  ext: true
  key_ops: ['encrypt', 'decrypt']
}

export interface RoomKey {
  /** The first 8 hex digits of the SHA-256 of the raw key. */
  readonly keyId: string
  readonly jwk: RoomKeyJwk
  readonly key: CryptoKey
}

const jwkOf = (k: string): RoomKeyJwk => ({ kty: 'oct', alg: 'A256GCM', k, ext: true, key_ops: ['encrypt', 'decrypt'] })

/** Parses a room key that others wrote; null: not a room key. */
export function parseRoomKeyJwk(value: unknown): RoomKeyJwk | null {
  if (typeof value !== 'object' || value === null) return null
  const { kty, k } = value as Record<string, unknown>
  return kty === 'oct' && typeof k === 'string' && RAW_KEY.test(k) ? jwkOf(k) : null
}

export async function importRoomKey(jwk: RoomKeyJwk): Promise<RoomKey> {
  const raw = fromBase64Url(jwk.k)
  const key = await crypto.subtle.importKey('raw', raw, 'AES-GCM', false, ['encrypt', 'decrypt'])
  return { keyId: toHex(await sha256(raw)).slice(0, KEY_ID_DIGITS), jwk, key }
}

export async function newRoomKey(): Promise<RoomKey> {
  const key = await crypto.subtle.generateKey({ name: 'AES-GCM', length: 256 }, true, ['encrypt', 'decrypt'])
  const { k } = await crypto.subtle.exportKey('jwk', key)
  return importRoomKey(jwkOf(k as string))
}

/** Encrypts a text with a fresh iv. */
export async function encrypt(key: CryptoKey, text: string): Promise<Sealed> {
  const iv = crypto.getRandomValues(new Uint8Array(IV_BYTES))
  return { text: toBase64(await crypto.subtle.encrypt({ name: 'AES-GCM', iv }, key, utf8(text))), iv: toBase64(iv) }
}

/** Decrypts a text; null: wrong key, or modified ciphertext. */
export async function decrypt(key: CryptoKey, sealed: Sealed): Promise<string | null> {
  let iv: Bytes, ciphertext: Bytes
  try {
    iv = fromBase64(sealed.iv)
    ciphertext = fromBase64(sealed.text)
    return fromUtf8(await crypto.subtle.decrypt({ name: 'AES-GCM', iv }, key, ciphertext))
  } catch {
    // WebCrypto gives no reason for the failure.
    return null
  }
}

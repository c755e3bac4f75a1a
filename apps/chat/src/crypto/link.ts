/**
 * How a new device gets the keys of its account from another one, through a relay that neither of them trusts.
 *
 * The new device commits to a public key before it knows the other one's. So whoever stands between them cannot choose
 * keys that give the same code on both screens, and has one guess in a million.
 */
import type { PublicJwk, Sealed } from '@/protocol/shapes'
import { sha256, toBase64, toHex, utf8 } from './bytes'
import { newExchangePair, publicJwkOf, sharedKey } from './exchange'
import { decrypt, encrypt } from './roomKey'

const NONCE_BYTES = 16
const CODE_DIGITS = 6
/** A value of the relay has at most 48 kB; this is before encryption and base64. */
const PART_CHARS = 30_000

/** What the new device reveals once the other one has answered. */
export interface Reveal {
  key: PublicJwk
  nonce: string
}

export interface LinkPair {
  privateKey: CryptoKey
  publicKey: PublicJwk
}

export async function newLinkPair(): Promise<LinkPair> {
  const { privateKey, publicKey } = await newExchangePair()
  return { privateKey, publicKey: await publicJwkOf(publicKey) }
}

export const newNonce = (): string => toBase64(crypto.getRandomValues(new Uint8Array(NONCE_BYTES)))

/** What the new device publishes first. */
export async function commitmentOf(linkId: string, { key, nonce }: Reveal): Promise<string> {
  return toHex(await sha256(utf8(JSON.stringify(['link', linkId, key.x, key.y, nonce]))))
}

/** The six digits that both screens show, if nobody stands between them. */
export async function linkCode(linkId: string, { key, nonce }: Reveal, answer: PublicJwk): Promise<string> {
  const parts = ['link', linkId, key.x, key.y, nonce, answer.x, answer.y]
  const hash = await sha256(utf8(JSON.stringify(parts)))
  return String(new DataView(hash).getUint32(0) % 10 ** CODE_DIGITS).padStart(CODE_DIGITS, '0')
}

/** The key between the two devices; null: the other one's public key is invalid. */
export async function linkKey(linkId: string, own: LinkPair, other: PublicJwk): Promise<CryptoKey | null> {
  try {
    return await sharedKey(own.privateKey, other, utf8(`clasp-chat-link-v1 ${linkId}`))
  } catch {
    return null
  }
}

// --- long texts in parts ---

/** Encrypts a text in parts, each of which fits one value; `tag` keeps parts of different texts apart. */
export async function sealParts(key: CryptoKey, tag: string, text: string): Promise<Sealed[]> {
  const count = Math.max(1, Math.ceil(text.length / PART_CHARS))
  const parts = Array.from({ length: count }, (_, at) => text.slice(at * PART_CHARS, (at + 1) * PART_CHARS))
  return Promise.all(parts.map((part, at) => encrypt(key, JSON.stringify([tag, at, count, part]))))
}

/** The text in all its parts; null: another key, another tag, or a part is missing. */
export async function openParts(key: CryptoKey, tag: string, sealed: readonly Sealed[]): Promise<string | null> {
  const texts = await Promise.all(sealed.map((part) => decrypt(key, part)))
  let whole = ''
  for (const [at, text] of texts.entries()) {
    const [ofTag, place, count, part] = text === null ? [] : (JSON.parse(text) as unknown[])
    if (ofTag !== tag || place !== at || count !== sealed.length) return null
    whole += String(part)
  }
  return sealed.length > 0 ? whole : null
}

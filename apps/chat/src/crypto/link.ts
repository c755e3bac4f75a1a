/**
 * How a new device gets the keys of its account from another one, through a relay that neither of them trusts.
 *
 * The new device commits to a public key before it knows the other one's. So whoever stands between them cannot choose
 * keys that give the same code on both screens, and has one guess in a million. Each device shows a code of its own, to be
 * typed at the other: so each of them knows whose keys it has, the new one too, which takes nothing before. A QR code
 * carries a secret instead, without which nobody can make or read what is handed over.
 */
import type { PublicJwk, Sealed } from '@/protocol/shapes'
import { sha256, toBase64, toHex, utf8, type Bytes } from './bytes'
import { newExchangePair, publicJwkOf, sharedKey } from './exchange'
import { decrypt, encrypt } from './roomKey'

const NONCE_BYTES = 16
const CODE_DIGITS = 6
const SECRET_BYTES = 16
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

/** What a QR code carries beside the link's id, as 32 hex digits. */
export const newSecret = (): string => toHex(crypto.getRandomValues(new Uint8Array(SECRET_BYTES)).buffer)

/**
 * Six digits that both devices find, if nobody stands between them: `there` is shown by the new device and typed at the
 * other one, `back` the other way round.
 */
export async function linkCode(
  way: 'there' | 'back',
  linkId: string,
  { key, nonce }: Reveal,
  answer: PublicJwk,
): Promise<string> {
  const parts = [way === 'there' ? 'link' : 'link-back', linkId, key.x, key.y, nonce, answer.x, answer.y]
  const hash = await sha256(utf8(JSON.stringify(parts)))
  return String(new DataView(hash).getUint32(0) % 10 ** CODE_DIGITS).padStart(CODE_DIGITS, '0')
}

/**
 * The key between the two devices; null: the other one's public key is invalid. With the secret of a QR code, nobody else
 * has it, whatever public keys were exchanged.
 */
export async function linkKey(
  linkId: string,
  own: LinkPair,
  other: PublicJwk,
  secret: string | null,
): Promise<CryptoKey | null> {
  const info: Bytes = utf8(`clasp-chat-link-v1 ${linkId}${secret === null ? '' : ` ${secret}`}`)
  try {
    return await sharedKey(own.privateKey, other, info)
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

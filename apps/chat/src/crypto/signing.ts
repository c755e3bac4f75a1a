/** Signatures of messages: they prove that the holder of a user's signing key wrote the text. */
import type { PublicJwk } from '@/protocol/shapes'
import { fromBase64, toBase64, utf8 } from './bytes'

const CURVE = { name: 'ECDSA', namedCurve: 'P-256' } as const
const ALGORITHM = { name: 'ECDSA', hash: 'SHA-256' } as const
export const SIGNING_ALGORITHM = 'ECDSA-P256-SHA256'

/** What the original's signature covers. `text` is the trimmed text, also where the message is encrypted. */
export interface Signed {
  text: string
  fromId: string
  msgId: string
  timestamp: number
}

export const newSigningPair = (): Promise<CryptoKeyPair> => crypto.subtle.generateKey(CURVE, false, ['sign', 'verify'])

/** The bytes under a signature: compact JSON with exactly these names in this order. */
export const signedBytes = ({ text, fromId, msgId, timestamp }: Signed) =>
  utf8(JSON.stringify({ text, fromId, msgId, timestamp }))

export const sign = (privateKey: CryptoKey, signed: Signed): Promise<string> =>
  signBytes(privateKey, signedBytes(signed))

export const verify = (publicKey: PublicJwk, signed: Signed, signature: string): Promise<boolean> =>
  verifyBytes(publicKey, signedBytes(signed), signature)

export async function signBytes(privateKey: CryptoKey, bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  return toBase64(await crypto.subtle.sign(ALGORITHM, privateKey, bytes))
}

export async function verifyBytes(
  publicKey: PublicJwk,
  bytes: Uint8Array<ArrayBuffer>,
  signature: string,
): Promise<boolean> {
  try {
    const { kty, crv, x, y } = publicKey
    const key = await crypto.subtle.importKey('jwk', { kty, crv, x, y, ext: true }, CURVE, false, ['verify'])
    return await crypto.subtle.verify(ALGORITHM, key, fromBase64(signature), bytes)
  } catch {
    // An invalid key or an invalid signature: not signed by that key.
    return false
  }
}

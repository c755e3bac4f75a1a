/** Signatures of messages: they prove that the holder of a user's signing key wrote the text. */
import type { PublicJwk } from '@/protocol/shapes'
import { fromBase64, toBase64, utf8 } from './bytes'

const CURVE = { name: 'ECDSA', namedCurve: 'P-256' } as const
const ALGORITHM = { name: 'ECDSA', hash: 'SHA-256' } as const
export const SIGNING_ALGORITHM = 'ECDSA-P256-SHA256'

/** What a signature covers. `text` is the trimmed text, or the ciphertext where one signs that. */
export interface Signed {
  text: string
  fromId: string
  msgId: string
  timestamp: number
}

/**
 * What the `text` of a signature covers where it is under an edit or a delete. A message's text is trimmed, so that it
 * can never begin with a line break: no signature under a message passes for one under a change, or the reverse.
 *
 * @param covered the new text, or its ciphertext where the edit is encrypted; '' for a delete.
 */
export const signedChange = (kind: 'edit' | 'delete', covered: string): string => `\n${kind}\n${covered}`

export const newSigningPair = (): Promise<CryptoKeyPair> => crypto.subtle.generateKey(CURVE, false, ['sign', 'verify'])

/** The bytes under a signature: compact JSON with exactly these names in this order. */
export const signedBytes = ({ text, fromId, msgId, timestamp }: Signed) =>
  utf8(JSON.stringify({ text, fromId, msgId, timestamp }))

export async function sign(privateKey: CryptoKey, signed: Signed): Promise<string> {
  return toBase64(await crypto.subtle.sign(ALGORITHM, privateKey, signedBytes(signed)))
}

export async function verify(publicKey: PublicJwk, signed: Signed, signature: string): Promise<boolean> {
  try {
    const { kty, crv, x, y } = publicKey
    const key = await crypto.subtle.importKey('jwk', { kty, crv, x, y, ext: true }, CURVE, false, ['verify'])
    return await crypto.subtle.verify(ALGORITHM, key, fromBase64(signature), signedBytes(signed))
  } catch {
    // An invalid key or an invalid signature: not signed by that key.
    return false
  }
}

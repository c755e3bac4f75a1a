/** Fingerprints, which two people compare to exclude an interceptor. */
import type { PublicJwk } from '@/protocol/shapes'
import { sha256, toHex, utf8 } from './bytes'

/** SHA-256 over the key's JSON with sorted names: 16 groups of 4 hex digits. */
export async function fingerprintOf(publicKey: PublicJwk): Promise<string> {
  const { crv, ext, key_ops, kty, x, y } = publicKey
  const hex = toHex(await sha256(utf8(JSON.stringify({ crv, ext, key_ops, kty, x, y }))))
  return hex.replace(/.{4}(?=.)/g, '$& ')
}

/** Room passwords: a slow, salted hash that the relay compares with the room's. */
import { toBase64, utf8 } from './bytes'

const ITERATIONS = 600_000
const SALT_BYTES = 16

export const newSalt = (): string => toBase64(crypto.getRandomValues(new Uint8Array(SALT_BYTES)))

/** PBKDF2-HMAC-SHA-256. As in the original app, the salt is the base64 *text*, not the bytes it encodes. */
export async function hashPassword(password: string, salt: string): Promise<string> {
  const material = await crypto.subtle.importKey('raw', utf8(password), 'PBKDF2', false, ['deriveBits'])
  const pbkdf2 = { name: 'PBKDF2', hash: 'SHA-256', salt: utf8(salt), iterations: ITERATIONS }
  return toBase64(await crypto.subtle.deriveBits(pbkdf2, material, 256))
}

/** The bytes of files: encrypted under a fresh key each, and compared with their hash before anything is done with them. */
import { Failure } from '@/protocol/errors'
import type { FileInfo } from '@/protocol/shapes'
import { fromBase64, sha256, toBase64, toHex, type Bytes } from './bytes'

const IV_BYTES = 12

/** What AES-GCM adds to a file. */
export const TAG_BYTES = 16

export type Seal = Pick<FileInfo, 'key' | 'iv' | 'sha256'>

const hashOf = async (data: ArrayBuffer): Promise<string> => toHex(await sha256(new Uint8Array(data)))

/** The bytes for the relay, and what a reader needs for them. */
export async function sealFile(file: ArrayBuffer, encrypted: boolean): Promise<{ bytes: ArrayBuffer; seal: Seal }> {
  if (!encrypted) return { bytes: file, seal: { key: null, iv: null, sha256: await hashOf(file) } }
  const key = await crypto.subtle.generateKey({ name: 'AES-GCM', length: 256 }, true, ['encrypt'])
  const iv = crypto.getRandomValues(new Uint8Array(IV_BYTES))
  const bytes = await crypto.subtle.encrypt({ name: 'AES-GCM', iv }, key, file)
  const raw = await crypto.subtle.exportKey('raw', key)
  return { bytes, seal: { key: toBase64(raw), iv: toBase64(iv), sha256: await hashOf(bytes) } }
}

const damaged = (): Failure =>
  new Failure('invalid', 'the file is not the one that was sent', { reason: 'fileDamaged' })

/**
 * The file in the bytes that the relay gave out.
 *
 * @throws {Failure} `invalid` if they are others than were sent.
 */
export async function openFile(bytes: ArrayBuffer, { key, iv, sha256: hash }: Seal): Promise<ArrayBuffer> {
  if ((await hashOf(bytes)) !== hash) throw damaged()
  if (key === null || iv === null) return bytes
  const raw: Bytes = fromBase64(key)
  try {
    const opener = await crypto.subtle.importKey('raw', raw, 'AES-GCM', false, ['decrypt'])
    return await crypto.subtle.decrypt({ name: 'AES-GCM', iv: fromBase64(iv) }, opener, bytes)
  } catch {
    // WebCrypto gives no reason for the failure.
    throw damaged()
  }
}

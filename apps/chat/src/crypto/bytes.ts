/** Byte encodings of the conventions: base64 with padding, lower-case hex, UTF-8. */

export type Bytes = Uint8Array<ArrayBuffer>

const CHUNK = 0x2000

export const utf8 = (text: string): Bytes => new TextEncoder().encode(text) as Bytes
/** `ignoreBOM` keeps a byte order mark: what was encrypted is what is read. Throws at invalid UTF-8. */
export const fromUtf8 = (bytes: BufferSource): string =>
  new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)

export function toBase64(data: ArrayBuffer | Bytes): string {
  const bytes = new Uint8Array(data)
  let binary = ''
  // In chunks: the number of arguments of a call is limited.
  for (let at = 0; at < bytes.length; at += CHUNK) binary += String.fromCharCode(...bytes.subarray(at, at + CHUNK))
  return btoa(binary)
}

export const fromBase64 = (text: string): Bytes => Uint8Array.from(atob(text), (char) => char.charCodeAt(0))

/** Base64 for URLs without padding, as JWKs write keys. */
export const toBase64Url = (data: ArrayBuffer | Bytes): string =>
  toBase64(data).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '')

export const fromBase64Url = (text: string): Bytes => fromBase64(text.replaceAll('-', '+').replaceAll('_', '/'))

export const toHex = (data: ArrayBuffer): string =>
  Array.from(new Uint8Array(data), (byte) => byte.toString(16).padStart(2, '0')).join('')

export const sha256 = (data: Bytes): Promise<ArrayBuffer> => crypto.subtle.digest('SHA-256', data)

/** Files beside messages: what a message says about a file that the relay keeps. */
import { type Fields, base64, fieldsOf, id, line, own } from './fields'

export interface FileInfo {
  /** Where the relay keeps it. */
  id: string
  name: string
  type: string
  /** Bytes, as its sender had it. */
  size: number
  /** SHA-256 of the bytes that the relay keeps, in hex. */
  sha256: string
  /** AES-GCM, 256 bits, base64; null where the bytes are not encrypted. */
  key: string | null
  iv: string | null
  /** Of a voice message: its length in seconds, and how loud it is, 0 to 31, at as many moments. */
  seconds: number | null
  waveform: readonly number[] | null
}

export const OTHER_TYPE = 'application/octet-stream'
export const MAX_FILE_NAME = 128
export const WAVEFORM_STEPS = 31
const MAX_WAVEFORM = 128
const MAX_SECONDS = 24 * 3600
const KEY_CHARS = 44
const IV_CHARS = 16

const isFileId = (text: string): boolean => /^[0-9a-f]{32}$/.test(text)
const isHash = (text: string): boolean => /^[0-9a-f]{64}$/.test(text)
const isType = (text: string): boolean => text.length <= 100 && /^[a-z0-9.+-]+\/[a-z0-9.+-]+$/.test(text)
const isLevel = (value: unknown): value is number =>
  Number.isInteger(value) && (value as number) >= 0 && (value as number) <= WAVEFORM_STEPS

function amount(fields: Fields, key: string, max: number): number | null {
  const value = own(fields, key)
  return typeof value === 'number' && value >= 0 && value <= max ? value : null
}

function waveform(fields: Fields): readonly number[] | null {
  const value = own(fields, 'waveform')
  return Array.isArray(value) && value.length <= MAX_WAVEFORM && value.every(isLevel) ? value : null
}

/** The name of a file without folders and signs that would hide what it is. */
export const fileName = (fields: Fields): string =>
  line(fields, 'name', MAX_FILE_NAME).replaceAll(/[/\\:]/g, '_') || 'file'

export function parseFile(value: unknown): FileInfo | null {
  const fields = fieldsOf(value)
  if (!fields) return null
  const fileId = id(fields, 'id', isFileId)
  const sha256 = id(fields, 'sha256', isHash)
  const size = amount(fields, 'size', Number.MAX_SAFE_INTEGER)
  const [key, iv] = [base64(fields, 'key', KEY_CHARS), base64(fields, 'iv', IV_CHARS)]
  if (!fileId || !sha256 || size === null || (key === null) !== (iv === null)) return null
  return {
    id: fileId,
    name: fileName(fields),
    type: id(fields, 'type', isType) ?? OTHER_TYPE,
    size: Math.trunc(size),
    sha256,
    key,
    iv,
    seconds: amount(fields, 'seconds', MAX_SECONDS),
    waveform: waveform(fields),
  }
}

/** A file as a ciphertext has it: JSON. */
export function parseFileText(text: string | null): FileInfo | null {
  if (text === null) return null
  try {
    return parseFile(JSON.parse(text))
  } catch {
    return null
  }
}

/** What is emitted of a file; parsed again it is the same. */
export function fileFields(file: FileInfo): object {
  const { id: fileId, name, type, size, sha256, key, iv, seconds, waveform: levels } = file
  const voice = { ...(seconds !== null && { seconds }), ...(levels && { waveform: [...levels] }) }
  return { id: fileId, name, type, size, sha256, ...(key !== null && { key, iv }), ...voice }
}

/** How a file without a caption is told to apps that know no files. */
export const fileText = (file: Pick<FileInfo, 'name'>): string => `📎 ${file.name}`

const PICTURES: ReadonlySet<string> = new Set(['image/png', 'image/jpeg', 'image/gif', 'image/webp', 'image/avif'])
const SOUNDS: ReadonlySet<string> = new Set([
  'audio/webm',
  'audio/ogg',
  'audio/mp4',
  'audio/mpeg',
  'audio/wav',
  'audio/aac',
  'audio/flac',
])

/** How a file is shown: only pictures and sounds in the page, everything else is only downloaded. */
export function showsAs({ type }: Pick<FileInfo, 'type'>): 'picture' | 'sound' | 'download' {
  if (PICTURES.has(type)) return 'picture'
  return SOUNDS.has(type) ? 'sound' : 'download'
}

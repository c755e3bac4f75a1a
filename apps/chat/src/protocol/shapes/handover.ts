/** How devices of a user hand keys to each other: links and backups, at addresses that only this user reads. */
import { BACKUP_PLACES, isDeviceId, MAX_BACKUP_PARTS } from '../addresses'
import { base64, fieldsOf, flag, id, line, own, time } from './fields'
import { publicJwk, type PublicJwk } from './keys'
import type { Sealed } from './messages'

const MAX_DEVICE_NAME = 64
const MAX_PARTS = 99
const HASH = /^[0-9a-f]{64}$/

/** What a device that wants the keys writes: first a commitment, and the key once somebody has answered. */
export interface LinkRequest {
  name: string
  deviceId: string
  commit: string
  reveal: { key: PublicJwk; nonce: string } | null
}

export function parseLinkRequest(value: unknown): LinkRequest | null {
  const fields = fieldsOf(value)
  const deviceId = fields && id(fields, 'deviceId', isDeviceId)
  const commit = fields && id(fields, 'commit', (text) => HASH.test(text))
  if (!fields || !deviceId || !commit) return null
  const key = publicJwk(own(fields, 'key'), [])
  const nonce = base64(fields, 'nonce', 32)
  return { name: line(fields, 'name', MAX_DEVICE_NAME), deviceId, commit, reveal: key && nonce ? { key, nonce } : null }
}

const partCount = (value: unknown, max: number): number | null =>
  typeof value === 'number' && Number.isInteger(value) && value > 0 && value <= max ? value : null

/** What a device that has the keys writes. */
export interface LinkAnswer {
  key: PublicJwk
  /** The number of parts, once the code was right; null: not yet. */
  parts: number | null
  /** They are encrypted with the secret of the QR code, too. */
  scanned: boolean
}

export function parseLinkAnswer(value: unknown): LinkAnswer | null {
  const fields = fieldsOf(value)
  const key = fields && publicJwk(own(fields, 'key'), [])
  return fields && key
    ? { key, parts: partCount(own(fields, 'parts'), MAX_PARTS), scanned: flag(fields, 'scanned') }
    : null
}

/** The head of a backup: the salt of the phrase, and where its parts are. */
export interface BackupHead {
  salt: string
  tag: string
  first: number
  parts: number
  at: number
}

export function parseBackupHead(value: unknown): BackupHead | null {
  const fields = fieldsOf(value)
  const salt = fields && base64(fields, 'salt', 32)
  const tag = fields && base64(fields, 'tag', 32)
  const parts = fields && partCount(own(fields, 'parts'), MAX_BACKUP_PARTS)
  const first = fields && partCount(own(fields, 'first'), BACKUP_PLACES - MAX_BACKUP_PARTS)
  if (!fields || !salt || !tag || !parts || !first) return null
  return { salt, tag, first, parts, at: time(fields, 'at') ?? 0 }
}

/** A part of a backup or of what a link carries. */
export function parsePart(value: unknown): Sealed | null {
  const fields = fieldsOf(value)
  const text = fields && base64(fields, 'text')
  const iv = fields && base64(fields, 'iv', 16)
  return text && iv ? { text, iv } : null
}

/** Keys and password proofs of encrypted rooms. */
import { isDeviceId, isUserId } from '../addresses'
import { type Fields, base64, fieldsOf, id, line, own, time } from './fields'

/** A P-256 public key with exactly the fields that all clients write. */
export interface PublicJwk {
  kty: 'EC'
  crv: 'P-256'
  x: string
  y: string
  ext: true
  key_ops: string[]
}

const COORDINATE = /^[A-Za-z0-9_-]{43}$/

export function publicJwk(value: unknown, keyOps: readonly string[]): PublicJwk | null {
  const fields = fieldsOf(value)
  if (!fields || own(fields, 'kty') !== 'EC' || own(fields, 'crv') !== 'P-256') return null
  const x = own(fields, 'x')
  const y = own(fields, 'y')
  if (typeof x !== 'string' || typeof y !== 'string' || !COORDINATE.test(x) || !COORDINATE.test(y)) return null
  return { kty: 'EC', crv: 'P-256', x, y, ext: true, key_ops: [...keyOps] }
}

export interface SigningKey {
  publicKey: PublicJwk
}

export function parseSigningKey(value: unknown): SigningKey | null {
  const fields = fieldsOf(value)
  const publicKey = fields && publicJwk(own(fields, 'publicKey'), ['verify'])
  return publicKey ? { publicKey } : null
}

/** The public key of an account, which signs the records of its devices. */
export interface AccountRecord {
  key: PublicJwk
  createdAt: number
}

export function parseAccount(value: unknown): AccountRecord | null {
  const fields = fieldsOf(value)
  const key = fields && publicJwk(own(fields, 'key'), ['verify'])
  return fields && key ? { key, createdAt: time(fields, 'createdAt') ?? 0 } : null
}

/** A device of a user. */
export interface DeviceRecord {
  name: string
  key: PublicJwk
  exchange: PublicJwk
  createdAt: number
  /** The signature of the account key; null: the device has not been linked to the account yet. */
  sig: string | null
  /** The session in which it is signed in, as the auth API lists it; null: not known. */
  session: string | null
  /** When it was signed out, ms: what it signed later does not count. null: it is signed in. */
  endedAt: number | null
}

/** What the account key signs of a device. */
export type DeviceKeys = Pick<DeviceRecord, 'name' | 'key' | 'exchange' | 'createdAt'>

const SESSION_ID = /^[A-Za-z0-9_-]{1,64}$/

export function parseDevice(value: unknown): DeviceRecord | null {
  const fields = fieldsOf(value)
  const key = fields && publicJwk(own(fields, 'key'), ['verify'])
  const exchange = fields && publicJwk(own(fields, 'exchange'), [])
  if (!fields || !key || !exchange) return null
  const createdAt = time(fields, 'createdAt') ?? 0
  const session = id(fields, 'session', (text) => SESSION_ID.test(text))
  const [sig, endedAt] = [base64(fields, 'sig', 88), time(fields, 'endedAt')]
  return { name: line(fields, 'name', 64), key, exchange, createdAt, sig, session, endedAt }
}

/** The record of a device as it is written. */
export function wireOfDevice({ sig, session, endedAt, ...keys }: DeviceRecord): object {
  return { ...keys, ...(sig && { sig }), ...(session && { session }), ...(endedAt !== null && { endedAt }) }
}

/** The public exchange key of a user in a room. */
export function parsePubkey(value: unknown): PublicJwk | null {
  const fields = fieldsOf(value)
  return fields && publicJwk(own(fields, 'publicKey'), [])
}

/** The device that wrote a value; null: it does not say so. */
export function parseDeviceId(value: unknown): string | null {
  const fields = fieldsOf(value)
  return fields && id(fields, 'deviceId', isDeviceId)
}

/** Whether a proof exists. The relay checks its hash, and shows it only to the creator. */
export const parseProof = (value: unknown): boolean => fieldsOf(value) !== null

export interface Keyex {
  fromId: string
  encryptedKey: string
  iv: string
  senderPublicKey: PublicJwk
  /** Written by this app: the key's id, and the number of keys before it. */
  epoch: number | null
  keyId: string | null
  /** Written by this app: the device whose exchange key it is. */
  deviceId: string | null
}

const KEY_ID = /^[0-9a-f]{8}$/
const MAX_EPOCH = 1_000_000

export function keyMarks(fields: Fields): { epoch: number | null; keyId: string | null } {
  const epoch = own(fields, 'epoch')
  const sound = typeof epoch === 'number' && Number.isInteger(epoch) && epoch >= 0 && epoch <= MAX_EPOCH
  return { epoch: sound ? epoch : null, keyId: id(fields, 'keyId', (text) => KEY_ID.test(text)) }
}

export function parseKeyex(value: unknown): Keyex | null {
  const fields = fieldsOf(value)
  if (!fields) return null
  const fromId = id(fields, 'fromId', isUserId)
  const encryptedKey = base64(fields, 'encryptedKey', 4096)
  const iv = base64(fields, 'iv', 16)
  const senderPublicKey = publicJwk(own(fields, 'senderPublicKey'), [])
  if (!fromId || !encryptedKey || !iv || !senderPublicKey) return null
  const deviceId = parseDeviceId(value)
  return { fromId, encryptedKey, iv, senderPublicKey, deviceId, ...keyMarks(fields) }
}

/**
 * What the devices of an account sign. A device signs every event that it sends (`sig2`); the account key signs the
 * record of each of its devices. So everybody who knows the account key can tell who wrote an event, whoever delivers it.
 */
import {
  fileFields,
  type DeviceKeys,
  type DeviceRecord,
  type PublicJwk,
  type Quote,
  type RoomMessage,
} from '@/protocol/shapes'
import { sha256, toHex, utf8 } from './bytes'
import { fingerprintOf } from './fingerprint'
import { signBytes, verifyBytes } from './signing'

const DEVICE_ID_CHARS = 16

/** The id of a device: the beginning of the fingerprint of its signing key, so that nobody can put another key there. */
export async function deviceIdOf(key: PublicJwk): Promise<string> {
  return (await fingerprintOf(key)).replaceAll(' ', '').slice(0, DEVICE_ID_CHARS)
}

/** Account keys can be exported, to be handed to another device. */
export const newAccountPair = (): Promise<CryptoKeyPair> =>
  crypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, ['sign', 'verify'])

// --- device records ---

function recordBytes(userId: string, { name, key, exchange, createdAt }: DeviceKeys) {
  return utf8(JSON.stringify(['device', userId, name, key.x, key.y, exchange.x, exchange.y, createdAt]))
}

export const signDevice = (account: CryptoKey, userId: string, record: DeviceKeys): Promise<string> =>
  signBytes(account, recordBytes(userId, record))

/** Whether the account key signed the record of a device, and the record is the one of this id. */
export async function isDeviceOf(
  account: PublicJwk,
  userId: string,
  deviceId: string,
  record: DeviceRecord,
): Promise<boolean> {
  if (record.sig === null || (await deviceIdOf(record.key)) !== deviceId) return false
  return verifyBytes(account, recordBytes(userId, record), record.sig)
}

// --- events ---

/** The parts of an event that `sig2` covers. */
interface SignedEvent {
  kind: 'message' | 'edit' | 'delete' | 'notice'
  msgId: string
  roomId: string
  userId: string
  deviceId: string
  targetId: string | null
  timestamp: number
  text: string | null
  image: string | null
  replyTo: Quote | null
  /** Only of messages with a file: the ciphertext about it, or compact JSON of its fields. */
  file?: string | undefined
}

async function digestOf({ text, image, replyTo, file }: SignedEvent): Promise<string> {
  const quote = replyTo && { msgId: replyTo.msgId, from: replyTo.from, text: replyTo.text }
  return toHex(await sha256(utf8(JSON.stringify([text, image, quote, ...(file === undefined ? [] : [file])]))))
}

/** The bytes under `sig2`: compact JSON with exactly these names in this order. */
async function eventBytes(event: SignedEvent) {
  const { kind, msgId, roomId, userId, deviceId, targetId, timestamp } = event
  const digest = await digestOf(event)
  return utf8(JSON.stringify({ kind, msgId, roomId, userId, deviceId, targetId, timestamp, digest }))
}

/** What `sig2` of an event covers, as it is sent: ciphertext where it is encrypted. null: it has no such signature. */
function signedPart(roomId: string, event: RoomMessage): SignedEvent | null {
  const { kind, msgId, userId, deviceId, timestamp } = event
  if (userId === null || deviceId === null || msgId === null) return null
  const head = { kind, msgId, roomId, userId, deviceId, timestamp }
  if (event.kind === 'delete') return { ...head, targetId: event.targetId, text: null, image: null, replyTo: null }
  const text = event.sealed?.text ?? event.text
  if (event.kind === 'edit') return { ...head, targetId: event.targetId, text, image: null, replyTo: null }
  const image = event.sealed ? (event.sealedImage?.text ?? null) : event.image
  const file = event.sealed ? event.sealedFile?.text : event.file && JSON.stringify(fileFields(event.file))
  return { ...head, targetId: null, text, image, replyTo: event.replyTo, file }
}

/** Signs an event that names its device; null: it does not. */
export async function signEvent(key: CryptoKey, roomId: string, event: RoomMessage): Promise<string | null> {
  const part = signedPart(roomId, event)
  return part && signBytes(key, await eventBytes(part))
}

/** Whether the device with this key wrote the event in this room. */
export async function verifyEvent(key: PublicJwk, roomId: string, event: RoomMessage): Promise<boolean> {
  const part = signedPart(roomId, event)
  return part !== null && event.sig2 !== null && verifyBytes(key, await eventBytes(part), event.sig2)
}

/**
 * Export and import. The file has the original app's format (`messages` as rows, `cryptoKeys`) and additional fields,
 * so that each app reads the files of the other. Every row is parsed field by field, as if it came from the network.
 */
import { isRoomId } from '@/protocol/addresses'
import { Failure } from '@/protocol/errors'
import { parseHistoryRow, parseMessage } from '@/protocol/shapes'
import { importRoomKey, parseRoomKeyJwk } from '@/crypto/roomKey'
import type { RoomCryptoRecord } from '@/crypto/roomCrypto'
import { parseRing, storeRings } from './keyRings'
import type { UserStorage } from './storage'
import type { StoredMessage, StoredRoom } from './types'

export const MAX_FILE_BYTES = 200 * 1024 * 1024
const MAX_ROWS = 200_000
const FORMAT = 'clasp-relay-chat'

type Json = Readonly<Record<string, unknown>>

const asObject = (value: unknown): Json => (typeof value === 'object' && value !== null ? (value as Json) : {})
const asList = (value: unknown): unknown[] => (Array.isArray(value) ? value.slice(0, MAX_ROWS) : [])

/** A stored message as it was emitted, with its plain text. */
export function payloadOf(message: StoredMessage): object {
  const { msgId, timestamp, name, sessionId, userId, text, color, kind, image, alt, replyTo, edited } = message
  const head = { from: name, fromId: sessionId, ...(userId && { userId }), msgId, text, timestamp, avatarColor: color }
  const rest = { type: kind, ...(image && { image, alt }), ...(replyTo && { replyTo }), ...(edited && { edited }) }
  return { ...head, ...rest }
}

/** A row as the original keeps and exports it. */
function rowOf(message: StoredMessage): object {
  const { roomId, msgId, timestamp } = message
  return { roomId, msgId, timestamp, data: payloadOf(message) }
}

/** @param takes leaves out the rooms for which it is false, with their messages and keys. */
export async function exportData(
  storage: UserStorage,
  now: number,
  takes: (room: StoredRoom) => boolean = () => true,
): Promise<string> {
  const all = await storage.rooms()
  const rooms = all.filter(takes)
  const messages: object[] = []
  for (const { id } of rooms) {
    const stored = await storage.messages.before(id, MAX_ROWS)
    messages.push(...stored.filter((message) => !message.deleted && message.secrecy !== 'unreadable').map(rowOf))
  }
  const leftOut = new Set(all.filter((room) => !takes(room)).map(({ id }) => id))
  const records = [...(await storage.cryptoRecords())].filter(([id]) => !leftOut.has(id))
  const cryptoKeys = records.flatMap(([roomId, { keys }]) => keys.slice(-1).map(({ jwk }) => ({ roomId, key: jwk })))
  const keyRings = records.map(([roomId, { encrypted, keys, sendingKeyId }]) => ({
    roomId,
    encrypted,
    keys,
    sendingKeyId,
  }))
  const joined = rooms.filter((room) => room.joined).map(({ id, peerName }) => ({ id, peerName }))
  return JSON.stringify({ format: FORMAT, version: 1, exportedAt: now, messages, cryptoKeys, keyRings, joined })
}

export interface ImportedData {
  messages: StoredMessage[]
  keys: Map<string, RoomCryptoRecord>
  joined: { id: string; peerName: string }[]
}

function readRow(value: unknown): StoredMessage | null {
  const { roomId, data } = asObject(value)
  const row = parseHistoryRow(data)
  if (typeof roomId !== 'string' || !isRoomId(roomId) || !row) return null
  const { msgId, userId, fromId, from, avatarColor, timestamp, type, text, image, alt, replyTo, edited } = row
  return {
    roomId,
    msgId,
    userId,
    sessionId: fromId,
    name: from,
    color: avatarColor,
    kind: type,
    text,
    image,
    alt,
    timestamp,
    replyTo,
    edited,
    deleted: false,
    unproven: false,
    delivery: 'confirmed',
    failure: null,
    secrecy: 'plain',
    verification: 'unsigned',
    relayedBy: null,
  }
}

/** One key per room, written by the original app. */
async function readLegacyKey(value: unknown): Promise<[string, RoomCryptoRecord] | null> {
  const { roomId, key } = asObject(value)
  const jwk = parseRoomKeyJwk(key)
  if (typeof roomId !== 'string' || !isRoomId(roomId) || !jwk) return null
  const { keyId } = await importRoomKey(jwk)
  const keys = [{ jwk, epoch: 0, trusted: false }]
  return [roomId, { encrypted: true, keys, sendingKeyId: keyId, pins: {}, enrolled: [] }]
}

/**
 * Reads a file.
 *
 * @throws {Failure} `invalid` if it is not an export of either app; nothing is changed then.
 */
export async function readExport(text: string): Promise<ImportedData> {
  let file: unknown
  try {
    file = JSON.parse(text)
  } catch {
    throw new Failure('invalid', 'export file is not JSON', { reason: 'notAnExport' })
  }
  const { messages, cryptoKeys, keyRings, joined } = asObject(file)
  if (!Array.isArray(messages)) throw new Failure('invalid', 'export file has no messages', { reason: 'notAnExport' })
  const rows = asList(messages).map(readRow)
  if (rows.includes(null)) {
    const unsound = rows.filter((row) => row === null).length
    // Rows of edits and deletes in an old export are no messages; a file with only such rows is not an export.
    if (unsound === rows.length || !asList(messages).some((row) => parseMessage(asObject(row)['data']))) {
      throw new Failure('invalid', 'export file has no readable message', { reason: 'notAnExport' })
    }
  }
  const legacy = await Promise.all(asList(cryptoKeys).map(readLegacyKey))
  const rings = asList(keyRings).map(parseRing)
  const keys = new Map([...legacy, ...rings].filter((entry) => entry !== null))
  const rooms = asList(joined)
    .map(asObject)
    .flatMap(({ id, peerName }) => {
      if (typeof id !== 'string' || !isRoomId(id)) return []
      return [{ id, peerName: typeof peerName === 'string' ? peerName.slice(0, 64) : '' }]
    })
  return { messages: rows.filter((row) => row !== null), keys, joined: rooms }
}

/** Stores imported data. Existing messages stay unchanged; imported keys decrypt, but are not used for sending. */
export async function storeImport(
  storage: UserStorage,
  data: ImportedData,
): Promise<{ messages: number; keys: number }> {
  const added = await storage.messages.addMissing(data.messages)
  const fresh = await storeRings(storage, data.keys, { send: false })
  const keys = [...fresh.values()].reduce((sum, count) => sum + count, 0)
  const present = new Set((await storage.rooms()).map((room) => room.id))
  const roomIds = new Set([...data.messages.map((message) => message.roomId), ...data.joined.map((room) => room.id)])
  for (const id of roomIds) {
    if (present.has(id)) continue
    const listed = data.joined.find((room) => room.id === id)
    const times = data.messages.filter((message) => message.roomId === id).map((message) => message.timestamp)
    const newest = times.reduce((one, other) => Math.max(one, other), 0)
    await storage.putRoom({
      id,
      joined: listed !== undefined,
      muted: false,
      meta: null,
      joinedAt: 0,
      lastReadMs: newest,
      lastActivityMs: newest,
      peerName: listed?.peerName ?? '',
    })
  }
  return { messages: added.length, keys }
}

/** Key rings as files, backups and other devices have them. */
import { parseRoomKeyJwk } from '@/crypto/roomKey'
import type { KeyRecord } from '@/crypto/keyRing'
import type { RoomCryptoRecord } from '@/crypto/roomCrypto'
import { isRoomId } from '@/protocol/addresses'
import type { UserStorage } from './storage'

const MAX_RING = 256
const MAX_EPOCH = 1_000_000

const fieldsOf = (value: unknown): Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}

function parseKey(value: unknown): KeyRecord | null {
  const { jwk, epoch, trusted } = fieldsOf(value)
  const key = parseRoomKeyJwk(jwk)
  if (!key) return null
  const sound = typeof epoch === 'number' && Number.isInteger(epoch) && epoch >= 0 && epoch <= MAX_EPOCH
  return { jwk: key, epoch: sound ? epoch : 0, trusted: trusted === true }
}

/** A key ring with the id of its room; null: it is none. */
export function parseRing(value: unknown): [string, RoomCryptoRecord] | null {
  const { roomId, encrypted, keys, sendingKeyId } = fieldsOf(value)
  if (typeof roomId !== 'string' || !isRoomId(roomId)) return null
  const read = (Array.isArray(keys) ? keys.slice(0, MAX_RING) : []).map(parseKey)
  const record: RoomCryptoRecord = {
    encrypted: encrypted === true,
    keys: read.filter((key) => key !== null),
    sendingKeyId: typeof sendingKeyId === 'string' ? sendingKeyId : null,
    pins: {},
    enrolled: [],
  }
  return [roomId, record]
}

/**
 * Stores key rings beside the keys that are there; resolves with the number of new keys of each room.
 *
 * @param send whether a room that has no key for sending takes theirs: only from a device of the same person.
 */
export async function storeRings(
  storage: UserStorage,
  rings: ReadonlyMap<string, RoomCryptoRecord>,
  { send }: { send: boolean },
): Promise<Map<string, number>> {
  const added = new Map<string, number>()
  for (const [roomId, record] of rings) {
    const held = await storage.cryptoRecord(roomId)
    const known = new Set(held?.keys.map((key) => key.jwk.k))
    const fresh = record.keys.filter((key) => !known.has(key.jwk.k))
    added.set(roomId, fresh.length)
    const merged = held && {
      ...held,
      encrypted: held.encrypted || record.encrypted,
      keys: [...fresh, ...held.keys],
      sendingKeyId: held.sendingKeyId ?? (send ? record.sendingKeyId : null),
    }
    await storage.putCryptoRecord(roomId, merged ?? record)
  }
  return added
}

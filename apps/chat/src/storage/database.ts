/** The IndexedDB schema. One database per user id, so that accounts do not mix. */
import { deleteDB, openDB, type DBSchema, type IDBPDatabase, type IDBPTransaction } from 'idb'
import type { IdentityPairs } from '@/crypto/identity'
import type { RoomCryptoRecord } from '@/crypto/roomCrypto'
import { eventsOfRow, rowOf, type RowV1 } from './rows'
import { textOf, type SearchText } from './search'
import type { StoredDraft, StoredEvent, StoredMessage, StoredRoom } from './types'

const VERSION = 3
/** Sorts after every text in an index. */
const LAST = '\uffff'

/** An event with the marks of its indexes: the key is there only where something is left to do. */
export type EventRow = StoredEvent & { closed?: 1; pending?: 1 }

interface Schema extends DBSchema {
  events: {
    key: [string, string, string]
    value: EventRow
    indexes: { byTime: [string, number]; closed: [string, number]; pending: [string, number] }
  }
  messages: {
    key: [string, string]
    value: StoredMessage
    indexes: { byTime: [string, number, string]; byDelivery: [string, string]; bySecrecy: [string, string] }
  }
  texts: { key: [string, string]; value: SearchText }
  rooms: { key: string; value: StoredRoom }
  drafts: { key: string; value: StoredDraft }
  crypto: { key: string; value: RoomCryptoRecord }
  identity: { key: string; value: IdentityPairs }
  values: { key: string; value: unknown }
}

type StoreNames = 'events' | 'messages' | 'texts' | 'rooms' | 'drafts' | 'crypto' | 'identity' | 'values'

export type Database = IDBPDatabase<Schema>

export const databaseName = (userId: string): string => `clasp-relay-chat-${userId}`

/** Version 1 stored results only. What was known of each message becomes its first events. */
async function moveRows(transaction: IDBPTransaction<Schema, StoreNames[], 'versionchange'>): Promise<void> {
  const messages = transaction.objectStore('messages')
  const events = transaction.objectStore('events')
  for (let cursor = await messages.openCursor(); cursor; cursor = await cursor.continue()) {
    const row = cursor.value as RowV1
    for (const event of eventsOfRow(row)) await events.put(marked(event))
    await cursor.update(rowOf(row))
  }
}

/**
 * Version 2 sorted messages by their senders' clocks, and searched in the messages themselves. Now they stand where the
 * relay accepted them, and what can be found is in a store of its own.
 */
async function placeRows(transaction: IDBPTransaction<Schema, StoreNames[], 'versionchange'>): Promise<void> {
  const events = transaction.objectStore('events')
  const texts = transaction.objectStore('texts')
  for (let cursor = await transaction.objectStore('messages').openCursor(); cursor;) {
    const { roomId, msgId, userId, timestamp } = cursor.value
    const about = await events.getAll(IDBKeyRange.bound([roomId, msgId], [roomId, msgId, LAST]))
    const own = about.filter(
      ({ event, via }) => event.kind === 'message' && event.userId === userId && via !== 'shared',
    )
    const at = own.reduce((first, event) => Math.min(first, event.at), Infinity)
    const moved = at !== Infinity && at !== timestamp
    const row = moved ? { ...cursor.value, timestamp: at, writtenAt: timestamp } : cursor.value
    const text = textOf(row)
    if (moved) await cursor.update(row)
    if (text) await texts.put(text)
    cursor = await cursor.continue()
  }
}

/** Adds the marks of the indexes. */
export function marked(event: StoredEvent): EventRow {
  const closed = event.event.kind !== 'delete' && event.event.sealed !== null && event.content === null
  return { ...event, ...(closed && { closed: 1 as const }), ...(event.proof === 'pending' && { pending: 1 as const }) }
}

export function openDatabase(userId: string, onTaken: () => void): Promise<Database> {
  return openDB<Schema>(databaseName(userId), VERSION, {
    async upgrade(database, from, _to, transaction) {
      database.createObjectStore('texts', { keyPath: ['roomId', 'msgId'] })
      if (from === 2) return placeRows(transaction)
      const events = database.createObjectStore('events', { keyPath: ['roomId', 'target', 'id'] })
      events.createIndex('byTime', ['roomId', 'at'])
      events.createIndex('closed', ['roomId', 'closed'])
      events.createIndex('pending', ['roomId', 'pending'])
      if (from === 1) return moveRows(transaction).then(() => placeRows(transaction))
      const messages = database.createObjectStore('messages', { keyPath: ['roomId', 'msgId'] })
      messages.createIndex('byTime', ['roomId', 'timestamp', 'msgId'])
      messages.createIndex('byDelivery', ['roomId', 'delivery'])
      messages.createIndex('bySecrecy', ['roomId', 'secrecy'])
      database.createObjectStore('rooms', { keyPath: 'id' })
      database.createObjectStore('drafts', { keyPath: 'roomId' })
      database.createObjectStore('crypto')
      database.createObjectStore('identity')
      database.createObjectStore('values')
    },
    blocking(_current, _blocked, event) {
      // A newer version of the app, or a sign-out in another tab, waits until this connection is closed.
      ;(event.target as unknown as { close(): void }).close()
      onTaken()
    },
  })
}

export const deleteDatabase = (userId: string): Promise<void> => deleteDB(databaseName(userId))

/** The IndexedDB schema. One database per user id, so that accounts do not mix. */
import { deleteDB, openDB, type DBSchema, type IDBPDatabase } from 'idb'
import type { IdentityPairs } from '@/crypto/identity'
import type { RoomCryptoRecord } from '@/crypto/roomCrypto'
import type { StoredDraft, StoredMessage, StoredRoom } from './types'

const VERSION = 1

interface Schema extends DBSchema {
  messages: {
    key: [string, string]
    value: StoredMessage
    indexes: { byTime: [string, number, string]; byDelivery: [string, string]; bySecrecy: [string, string] }
  }
  rooms: { key: string; value: StoredRoom }
  drafts: { key: string; value: StoredDraft }
  crypto: { key: string; value: RoomCryptoRecord }
  identity: { key: string; value: IdentityPairs }
  values: { key: string; value: unknown }
}

export type Database = IDBPDatabase<Schema>

export const databaseName = (userId: string): string => `clasp-relay-chat-${userId}`

export function openDatabase(userId: string, onTaken: () => void): Promise<Database> {
  return openDB<Schema>(databaseName(userId), VERSION, {
    upgrade(database) {
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

/** The stored data of one user, in IndexedDB. */
import { newIdentityPairs, type IdentityPairs } from '@/crypto/identity'
import { MAX_KEYS } from '@/crypto/keyRing'
import type { RoomCryptoRecord } from '@/crypto/roomCrypto'
import { deleteDatabase, openDatabase, type Database } from './database'
import { MessageStorage, type MessageStore } from './messages'
import type { StoredDraft, StoredRoom } from './types'

const IDENTITY = 'pairs'

/** Everything that is stored of one user. */
export interface UserStorage {
  readonly userId: string
  readonly messages: MessageStore
  close(): void
  /** Deletes everything. */
  destroy(): Promise<void>
  /** The long-lived keys of this person in this browser. */
  identityPairs(): Promise<IdentityPairs>
  rooms(): Promise<StoredRoom[]>
  putRoom(room: StoredRoom): Promise<void>
  removeRoom(id: string): Promise<void>
  cryptoRecord(roomId: string): Promise<RoomCryptoRecord | undefined>
  /** Stores the state of a room's encryption; keys that another tab has stored stay. */
  putCryptoRecord(roomId: string, record: RoomCryptoRecord): Promise<void>
  cryptoRecords(): Promise<Map<string, RoomCryptoRecord>>
  drafts(): Promise<StoredDraft[]>
  putDraft(draft: StoredDraft): Promise<void>
  value(key: string): Promise<unknown>
  putValue(key: string, value: unknown): Promise<void>
}

/** A record with the keys that another tab has stored meanwhile. */
export function mergeRecords(held: RoomCryptoRecord | undefined, record: RoomCryptoRecord): RoomCryptoRecord {
  const known = new Set(record.keys.map((key) => key.jwk.k))
  const missing = held?.keys.filter((key) => !known.has(key.jwk.k)) ?? []
  const encrypted = record.encrypted || (held?.encrypted ?? false)
  return { ...record, encrypted, keys: [...missing, ...record.keys].slice(-MAX_KEYS) }
}

export class Storage implements UserStorage {
  readonly messages: MessageStorage

  private constructor(
    readonly userId: string,
    private readonly database: Database,
  ) {
    this.messages = new MessageStorage(database)
  }

  /**
   * Opens the database of a user; rejects where the browser refuses to store anything.
   *
   * @param onTaken called when a newer version of the app in another tab takes the database over: it is closed then.
   */
  static async open(userId: string, onTaken: () => void = () => undefined): Promise<Storage> {
    return new Storage(userId, await openDatabase(userId, onTaken))
  }

  close(): void {
    this.database.close()
  }

  async destroy(): Promise<void> {
    this.close()
    await deleteDatabase(this.userId)
  }

  /** Created once, by the tab that comes first. */
  async identityPairs(): Promise<IdentityPairs> {
    const stored = await this.database.get('identity', IDENTITY)
    if (stored) return stored
    const fresh = await newIdentityPairs()
    const transaction = this.database.transaction('identity', 'readwrite')
    const other = await transaction.store.get(IDENTITY)
    if (!other) await transaction.store.put(fresh, IDENTITY)
    await transaction.done
    return other ?? fresh
  }

  rooms(): Promise<StoredRoom[]> {
    return this.database.getAll('rooms')
  }

  async putRoom(room: StoredRoom): Promise<void> {
    await this.database.put('rooms', room)
  }

  async removeRoom(id: string): Promise<void> {
    await Promise.all([
      this.database.delete('rooms', id),
      this.database.delete('drafts', id),
      this.messages.clearRoom(id),
    ])
  }

  cryptoRecord(roomId: string): Promise<RoomCryptoRecord | undefined> {
    return this.database.get('crypto', roomId)
  }

  async putCryptoRecord(roomId: string, record: RoomCryptoRecord): Promise<void> {
    const transaction = this.database.transaction('crypto', 'readwrite')
    const held = await transaction.store.get(roomId)
    await transaction.store.put(mergeRecords(held, record), roomId)
    await transaction.done
  }

  async cryptoRecords(): Promise<Map<string, RoomCryptoRecord>> {
    const roomIds = await this.database.getAllKeys('crypto')
    const records = await this.database.getAll('crypto')
    return new Map(roomIds.map((roomId, at) => [roomId, records[at] as RoomCryptoRecord]))
  }

  drafts(): Promise<StoredDraft[]> {
    return this.database.getAll('drafts')
  }

  async putDraft(draft: StoredDraft): Promise<void> {
    const { text, replyTo, image, edit } = draft
    if (text === '' && replyTo === null && !image && !edit) await this.database.delete('drafts', draft.roomId)
    else await this.database.put('drafts', draft)
  }

  value(key: string): Promise<unknown> {
    return this.database.get('values', key)
  }

  async putValue(key: string, value: unknown): Promise<void> {
    await this.database.put('values', value, key)
  }
}

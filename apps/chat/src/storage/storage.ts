/** Everything that is stored of one user, by what it is. */
import { newIdentityPairs, type IdentityPairs } from '@/crypto/identity'
import { MAX_KEYS } from '@/crypto/keyRing'
import type { RoomCryptoRecord } from '@/crypto/roomCrypto'
import { deleteDatabase, openDatabase, type Database } from './database'
import { MessageStorage } from './messages'
import type { StoredDraft, StoredRoom } from './types'

const IDENTITY = 'pairs'

export class Storage {
  readonly messages: MessageStorage

  private constructor(
    readonly userId: string,
    private readonly database: Database,
  ) {
    this.messages = new MessageStorage(database)
  }

  static async open(userId: string): Promise<Storage> {
    return new Storage(userId, await openDatabase(userId))
  }

  close(): void {
    this.database.close()
  }

  /** Deletes everything. Other tabs that hold it open are asked to let go. */
  async destroy(): Promise<void> {
    this.close()
    await deleteDatabase(this.userId)
  }

  /** The long-lived keys of this person in this browser; made once, by whichever tab comes first. */
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

  /** Stores the state of a room's encryption. Keys that another tab stored meanwhile stay. */
  async putCryptoRecord(roomId: string, record: RoomCryptoRecord): Promise<void> {
    const transaction = this.database.transaction('crypto', 'readwrite')
    const held = await transaction.store.get(roomId)
    const known = new Set(record.keys.map((key) => key.jwk.k))
    const missing = held?.keys.filter((key) => !known.has(key.jwk.k)) ?? []
    const encrypted = record.encrypted || (held?.encrypted ?? false)
    await transaction.store.put({ ...record, encrypted, keys: [...missing, ...record.keys].slice(-MAX_KEYS) }, roomId)
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
    if (draft.text === '' && draft.replyTo === null) await this.database.delete('drafts', draft.roomId)
    else await this.database.put('drafts', draft)
  }

  value(key: string): Promise<unknown> {
    return this.database.get('values', key)
  }

  async putValue(key: string, value: unknown): Promise<void> {
    await this.database.put('values', value, key)
  }
}

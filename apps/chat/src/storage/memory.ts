/**
 * What IndexedDB would keep, in memory: for browsers that refuse to store anything, and for a tab whose database a
 * newer version of the app has taken over. Everything is gone when the page is closed.
 */
import { newIdentityPairs, type IdentityPairs } from '@/crypto/identity'
import type { RoomCryptoRecord } from '@/crypto/roomCrypto'
import { marked } from './database'
import type { LogEntry, MessageStore } from './messages'
import { eventsOfRow } from './rows'
import { MAX_RESULTS, textOf, wordsOf } from './search'
import { mergeRecords, type UserStorage } from './storage'
import type { StoredDraft, StoredEvent, StoredMessage, StoredRoom } from './types'

type Point = Pick<StoredMessage, 'timestamp' | 'msgId'>

const compare = (one: Point, other: Point): number =>
  one.timestamp - other.timestamp || (one.msgId < other.msgId ? -1 : Number(one.msgId > other.msgId))

class MemoryMessages implements MessageStore {
  private readonly rooms = new Map<string, Map<string, StoredMessage>>()
  /** By room, target and id. */
  private readonly events = new Map<string, Map<string, Map<string, StoredEvent>>>()

  private of(roomId: string): Map<string, StoredMessage> {
    const known = this.rooms.get(roomId) ?? new Map<string, StoredMessage>()
    this.rooms.set(roomId, known)
    return known
  }

  /** The messages of a room, oldest first. */
  private sorted(roomId: string): StoredMessage[] {
    return [...this.of(roomId).values()].sort(compare)
  }

  private group(roomId: string, target: string): Map<string, StoredEvent> {
    const ofRoom = this.events.get(roomId) ?? new Map<string, Map<string, StoredEvent>>()
    this.events.set(roomId, ofRoom)
    const known = ofRoom.get(target) ?? new Map<string, StoredEvent>()
    ofRoom.set(target, known)
    return known
  }

  private eventsIn(roomId: string): StoredEvent[] {
    return [...(this.events.get(roomId)?.values() ?? [])].flatMap((ofMessage) => [...ofMessage.values()])
  }

  private keepEvents(events: readonly StoredEvent[]): void {
    for (const event of events) this.group(event.roomId, event.target).set(event.id, event)
  }

  about(roomId: string, target: string): Promise<StoredEvent[]> {
    return Promise.resolve([...this.group(roomId, target).values()])
  }

  record(roomId: string, { events, rows, gone }: LogEntry): Promise<void> {
    this.keepEvents(events)
    for (const row of rows) this.of(roomId).set(row.msgId, row)
    for (const msgId of gone) this.of(roomId).delete(msgId)
    return Promise.resolve()
  }

  noteStored(): void {
    // No other tab stores anything here.
  }

  newestEvents(roomId: string, sinceMs: number, limit: number): Promise<StoredEvent[]> {
    const newer = this.eventsIn(roomId).filter(({ at }) => at > sinceMs)
    return Promise.resolve(newer.sort((one, other) => one.at - other.at).slice(-limit))
  }

  unfinished(roomId: string, what: 'closed' | 'pending'): Promise<StoredEvent[]> {
    return Promise.resolve(this.eventsIn(roomId).filter((event) => marked(event)[what] === 1))
  }

  get(roomId: string, msgId: string): Promise<StoredMessage | undefined> {
    return Promise.resolve(this.of(roomId).get(msgId))
  }

  put(message: StoredMessage): Promise<void> {
    this.of(message.roomId).set(message.msgId, message)
    return Promise.resolve()
  }

  async addMissing(messages: readonly StoredMessage[]): Promise<StoredMessage[]> {
    const added = messages.filter(({ roomId, msgId }) => !this.of(roomId).has(msgId))
    for (const message of added) {
      await this.put(message)
      this.keepEvents(eventsOfRow(message))
    }
    return added
  }

  remove(roomId: string, msgId: string): Promise<void> {
    this.of(roomId).delete(msgId)
    return Promise.resolve()
  }

  before(roomId: string, limit: number, point?: Point): Promise<StoredMessage[]> {
    const older = this.sorted(roomId).filter((message) => !point || compare(message, point) < 0)
    return Promise.resolve(older.slice(-limit))
  }

  from(roomId: string, timestamp: number, msgId: string): Promise<StoredMessage[]> {
    return Promise.resolve(this.sorted(roomId).filter((message) => compare(message, { timestamp, msgId }) >= 0))
  }

  prepareSearch(): Promise<void> {
    return Promise.resolve()
  }

  search(query: string, roomId: string | null): Promise<StoredMessage[]> {
    const words = wordsOf(query)
    const matches = (row: StoredMessage): boolean => {
      const text = textOf(row)?.text
      return text !== undefined && words.every((word) => text.includes(word))
    }
    if (words.length === 0) return Promise.resolve([])
    const all = (roomId === null ? [...this.rooms.keys()] : [roomId]).flatMap((id) => this.sorted(id))
    const found = all.filter(matches).sort((one, other) => compare(other, one))
    return Promise.resolve(found.slice(0, MAX_RESULTS))
  }

  undelivered(roomId: string): Promise<StoredMessage[]> {
    return Promise.resolve(this.sorted(roomId).filter((message) => message.delivery !== 'confirmed'))
  }

  countSince(roomId: string, sinceMs: number, ownId: string): Promise<number> {
    const counts = ({ timestamp, userId, deleted }: StoredMessage): boolean =>
      timestamp > sinceMs && userId !== ownId && !deleted
    return Promise.resolve(this.sorted(roomId).filter(counts).length)
  }

  clearRoom(roomId: string): Promise<void> {
    this.rooms.delete(roomId)
    this.events.delete(roomId)
    return Promise.resolve()
  }
}

export class MemoryStorage implements UserStorage {
  readonly messages = new MemoryMessages()
  private readonly roomsById = new Map<string, StoredRoom>()
  private readonly records = new Map<string, RoomCryptoRecord>()
  private readonly draftsByRoom = new Map<string, StoredDraft>()
  private readonly values = new Map<string, unknown>()

  constructor(
    readonly userId: string,
    private pairs: IdentityPairs | null = null,
  ) {}

  close(): void {}

  destroy(): Promise<void> {
    return Promise.resolve()
  }

  async identityPairs(): Promise<IdentityPairs> {
    this.pairs ??= await newIdentityPairs()
    return this.pairs
  }

  rooms(): Promise<StoredRoom[]> {
    return Promise.resolve([...this.roomsById.values()])
  }

  putRoom(room: StoredRoom): Promise<void> {
    this.roomsById.set(room.id, room)
    return Promise.resolve()
  }

  removeRoom(id: string): Promise<void> {
    this.roomsById.delete(id)
    this.draftsByRoom.delete(id)
    return this.messages.clearRoom(id)
  }

  cryptoRecord(roomId: string): Promise<RoomCryptoRecord | undefined> {
    return Promise.resolve(this.records.get(roomId))
  }

  putCryptoRecord(roomId: string, record: RoomCryptoRecord): Promise<void> {
    this.records.set(roomId, mergeRecords(this.records.get(roomId), record))
    return Promise.resolve()
  }

  cryptoRecords(): Promise<Map<string, RoomCryptoRecord>> {
    return Promise.resolve(new Map(this.records))
  }

  drafts(): Promise<StoredDraft[]> {
    return Promise.resolve([...this.draftsByRoom.values()])
  }

  putDraft(draft: StoredDraft): Promise<void> {
    this.draftsByRoom.set(draft.roomId, draft)
    return Promise.resolve()
  }

  value(key: string): Promise<unknown> {
    return Promise.resolve(this.values.get(key))
  }

  putValue(key: string, value: unknown): Promise<void> {
    this.values.set(key, value)
    return Promise.resolve()
  }
}

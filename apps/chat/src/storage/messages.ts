/** The history of every room, as far as this browser received it. */
import { marked, type Database, type EventRow } from './database'
import { eventsOfRow } from './rows'
import type { StoredEvent, StoredMessage } from './types'

/** Sorts after every text in an index. */
const LAST = '\uffff'
const MAX_RESULTS = 200
const UNDELIVERED: readonly StoredMessage['delivery'][] = ['queued', 'waiting', 'sent', 'failed']

/** What is new about one message: events, and the rows that they give. */
export interface LogEntry {
  events: readonly StoredEvent[]
  rows: readonly StoredMessage[]
  /** Ids of rows that are no more. */
  gone: readonly string[]
}

/** The history of every room; IndexedDB's and the one in memory behave alike. */
export interface MessageStore {
  /** The events about a message, in no particular order. */
  about(roomId: string, target: string): Promise<StoredEvent[]>
  /** Stores events and the projection that they give, together. */
  record(roomId: string, entry: LogEntry): Promise<void>
  /** The newest events after a time, oldest first. */
  newestEvents(roomId: string, sinceMs: number, limit: number): Promise<StoredEvent[]>
  /** Events that no key has decrypted yet (`closed`), or whose signature has not been checked (`pending`). */
  unfinished(roomId: string, what: 'closed' | 'pending'): Promise<StoredEvent[]>
  get(roomId: string, msgId: string): Promise<StoredMessage | undefined>
  put(message: StoredMessage): Promise<void>
  /** Stores the messages of a file that are missing; existing ones stay. Resolves with the new ones. */
  addMissing(messages: readonly StoredMessage[]): Promise<StoredMessage[]>
  remove(roomId: string, msgId: string): Promise<void>
  /** The newest messages before a point, oldest first; without a point, the newest of all. */
  before(roomId: string, limit: number, point?: { timestamp: number; msgId: string }): Promise<StoredMessage[]>
  /** The messages from a point on, oldest first. */
  from(roomId: string, timestamp: number, msgId: string): Promise<StoredMessage[]>
  /** The messages whose text or image description contains the query, newest first per room; null: in all rooms. */
  search(query: string, roomId: string | null): Promise<StoredMessage[]>
  /** Own messages that are not confirmed, oldest first. */
  undelivered(roomId: string): Promise<StoredMessage[]>
  /** The number of messages from others after a time. */
  countSince(roomId: string, sinceMs: number, ownId: string): Promise<number>
  clearRoom(roomId: string): Promise<void>
}

const unmarked = (rows: EventRow[]): StoredEvent[] =>
  rows.map(({ closed: _closed, pending: _pending, ...event }) => event)

const byTime = (one: StoredMessage, other: StoredMessage): number => one.timestamp - other.timestamp

export class MessageStorage implements MessageStore {
  constructor(private readonly database: Database) {}

  about(roomId: string, target: string): Promise<StoredEvent[]> {
    const range = IDBKeyRange.bound([roomId, target], [roomId, target, LAST])
    return this.database.getAll('events', range).then(unmarked)
  }

  async record(roomId: string, { events, rows, gone }: LogEntry): Promise<void> {
    const transaction = this.database.transaction(['messages', 'events'], 'readwrite')
    const [shown, log] = [transaction.objectStore('messages'), transaction.objectStore('events')]
    await Promise.all([
      ...events.map((event) => log.put(marked(event))),
      ...rows.map((row) => shown.put(row)),
      ...gone.map((msgId) => shown.delete([roomId, msgId])),
      transaction.done,
    ])
  }

  async newestEvents(roomId: string, sinceMs: number, limit: number): Promise<StoredEvent[]> {
    const range = IDBKeyRange.bound([roomId, sinceMs], [roomId, Infinity], true)
    const index = this.database.transaction('events').store.index('byTime')
    const found: EventRow[] = []
    for (let cursor = await index.openCursor(range, 'prev'); cursor && found.length < limit;) {
      found.push(cursor.value)
      cursor = await cursor.continue()
    }
    return unmarked(found.reverse())
  }

  unfinished(roomId: string, what: 'closed' | 'pending'): Promise<StoredEvent[]> {
    return this.database.getAllFromIndex('events', what, IDBKeyRange.only([roomId, 1])).then(unmarked)
  }

  get(roomId: string, msgId: string): Promise<StoredMessage | undefined> {
    return this.database.get('messages', [roomId, msgId])
  }

  async put(message: StoredMessage): Promise<void> {
    await this.database.put('messages', message)
  }

  async addMissing(messages: readonly StoredMessage[]): Promise<StoredMessage[]> {
    const transaction = this.database.transaction(['messages', 'events'], 'readwrite')
    const [rows, events] = [transaction.objectStore('messages'), transaction.objectStore('events')]
    const added: StoredMessage[] = []
    for (const message of messages) {
      const key: [string, string] = [message.roomId, message.msgId]
      if ((await rows.getKey(key)) !== undefined) continue
      await rows.put(message)
      for (const event of eventsOfRow(message)) await events.put(marked(event))
      added.push(message)
    }
    await transaction.done
    return added
  }

  async remove(roomId: string, msgId: string): Promise<void> {
    await this.database.delete('messages', [roomId, msgId])
  }

  async before(roomId: string, limit: number, point?: { timestamp: number; msgId: string }): Promise<StoredMessage[]> {
    const upper = point ? [roomId, point.timestamp, point.msgId] : [roomId, Infinity, LAST]
    const range = IDBKeyRange.bound([roomId], upper, false, true)
    const index = this.database.transaction('messages').store.index('byTime')
    const found: StoredMessage[] = []
    for (let cursor = await index.openCursor(range, 'prev'); cursor && found.length < limit;) {
      found.push(cursor.value)
      cursor = await cursor.continue()
    }
    return found.reverse()
  }

  from(roomId: string, timestamp: number, msgId: string): Promise<StoredMessage[]> {
    const range = IDBKeyRange.bound([roomId, timestamp, msgId], [roomId, Infinity, LAST])
    return this.database.getAllFromIndex('messages', 'byTime', range)
  }

  async search(query: string, roomId: string | null): Promise<StoredMessage[]> {
    const needle = query.trim().toLocaleLowerCase()
    if (needle === '') return []
    const range = roomId === null ? null : IDBKeyRange.bound([roomId], [roomId, Infinity, LAST])
    const index = this.database.transaction('messages').store.index('byTime')
    const found: StoredMessage[] = []
    for (let cursor = await index.openCursor(range, 'prev'); cursor && found.length < MAX_RESULTS;) {
      const { text, alt, deleted } = cursor.value
      if (!deleted && `${text}\n${alt}`.toLocaleLowerCase().includes(needle)) found.push(cursor.value)
      cursor = await cursor.continue()
    }
    return found
  }

  async undelivered(roomId: string): Promise<StoredMessage[]> {
    const found: StoredMessage[] = []
    for (const delivery of UNDELIVERED) {
      found.push(...(await this.database.getAllFromIndex('messages', 'byDelivery', [roomId, delivery])))
    }
    return found.sort(byTime)
  }

  async countSince(roomId: string, sinceMs: number, ownId: string): Promise<number> {
    const range = IDBKeyRange.bound([roomId, sinceMs, LAST], [roomId, Infinity, LAST])
    const rows = await this.database.getAllFromIndex('messages', 'byTime', range)
    return rows.filter((row) => row.userId !== ownId && !row.deleted).length
  }

  async clearRoom(roomId: string): Promise<void> {
    await this.database.delete('messages', IDBKeyRange.bound([roomId], [roomId, LAST]))
    await this.database.delete('events', IDBKeyRange.bound([roomId], [roomId, LAST, LAST]))
  }
}

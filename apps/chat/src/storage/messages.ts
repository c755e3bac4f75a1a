/** The history of every room, as far as this browser received it. */
import { marked, type Database, type EventRow } from './database'
import { eventsOfRow } from './rows'
import { SearchIndex, textOf } from './search'
import type { StoredEvent, StoredMessage } from './types'

/** Sorts after every text in an index. */
const LAST = '\uffff'
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
  /** Rows that another tab stored: searches find them here, too. */
  noteStored(rows: readonly StoredMessage[]): void
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
  /** Makes searches ready, which takes a moment the first time. */
  prepareSearch(): Promise<void>
  /** The newest messages whose text and image description contain all words of the query; null: in all rooms. */
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
  private readonly index: SearchIndex

  constructor(private readonly database: Database) {
    this.index = new SearchIndex(database)
  }

  about(roomId: string, target: string): Promise<StoredEvent[]> {
    const range = IDBKeyRange.bound([roomId, target], [roomId, target, LAST])
    return this.database.getAll('events', range).then(unmarked)
  }

  async record(roomId: string, { events, rows, gone }: LogEntry): Promise<void> {
    const transaction = this.database.transaction(['messages', 'events', 'texts'], 'readwrite')
    const [shown, log] = [transaction.objectStore('messages'), transaction.objectStore('events')]
    const texts = transaction.objectStore('texts')
    const found = rows.map((row) => ({ row, text: textOf(row) }))
    await Promise.all([
      ...events.map((event) => log.put(marked(event))),
      ...rows.map((row) => shown.put(row)),
      ...found.map(({ row, text }) => (text ? texts.put(text) : texts.delete([roomId, row.msgId]))),
      ...gone.flatMap((msgId) => [shown.delete([roomId, msgId]), texts.delete([roomId, msgId])]),
      transaction.done,
    ])
    for (const { row, text } of found) this.index.note(row, text)
    for (const msgId of gone) this.index.note({ roomId, msgId }, null)
  }

  noteStored(rows: readonly StoredMessage[]): void {
    for (const row of rows) this.index.note(row, textOf(row))
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

  put(message: StoredMessage): Promise<void> {
    return this.record(message.roomId, { events: [], rows: [message], gone: [] })
  }

  async addMissing(messages: readonly StoredMessage[]): Promise<StoredMessage[]> {
    const transaction = this.database.transaction(['messages', 'events', 'texts'], 'readwrite')
    const [rows, events] = [transaction.objectStore('messages'), transaction.objectStore('events')]
    const texts = transaction.objectStore('texts')
    const added: StoredMessage[] = []
    for (const message of messages) {
      const key: [string, string] = [message.roomId, message.msgId]
      if ((await rows.getKey(key)) !== undefined) continue
      await rows.put(message)
      const text = textOf(message)
      if (text) await texts.put(text)
      for (const event of eventsOfRow(message)) await events.put(marked(event))
      added.push(message)
    }
    await transaction.done
    for (const message of added) this.index.note(message, textOf(message))
    return added
  }

  remove(roomId: string, msgId: string): Promise<void> {
    return this.record(roomId, { events: [], rows: [], gone: [msgId] })
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

  prepareSearch(): Promise<void> {
    return this.index.prepare()
  }

  async search(query: string, roomId: string | null): Promise<StoredMessage[]> {
    const keys = await this.index.find(query, roomId)
    const { store } = this.database.transaction('messages')
    const found = await Promise.all(keys.map((key) => store.get([key.roomId, key.msgId])))
    return found.filter((message) => message !== undefined)
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
    await this.database.delete('texts', IDBKeyRange.bound([roomId], [roomId, LAST]))
    this.index.forgetRoom(roomId)
  }
}

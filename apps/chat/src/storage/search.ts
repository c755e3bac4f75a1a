/**
 * The index for searching. Beside each message, the store `texts` keeps what can be found of it: a few words, without
 * pictures and signatures. Before the first search they are read once, in pieces; after that a search is a pass over
 * them in memory, and only the messages that it shows are read.
 */
import type { Database } from './database'
import type { StoredMessage } from './types'

export const MAX_RESULTS = 200
/** Texts read in one step, so that the page stays responsive meanwhile. */
const PIECE = 2_000

/** What can be found of a message, in lower case. */
export interface SearchText {
  roomId: string
  msgId: string
  timestamp: number
  text: string
}

/** The searchable text of a message; null: it has none. */
export function textOf({ roomId, msgId, timestamp, text, alt, deleted }: StoredMessage): SearchText | null {
  const words = `${text}\n${alt}`.trim().toLocaleLowerCase()
  return deleted || words === '' ? null : { roomId, msgId, timestamp, text: words }
}

/** The words of a query: every one of them has to be in a message, in any order. */
export const wordsOf = (query: string): string[] =>
  query
    .toLocaleLowerCase()
    .split(/\s+/)
    .filter((word) => word !== '')

const newestFirst = (one: SearchText, other: SearchText): number =>
  other.timestamp - one.timestamp || (one.msgId < other.msgId ? 1 : -1)

const keyOf = ({ roomId, msgId }: { roomId: string; msgId: string }): string => `${roomId} ${msgId}`

export class SearchIndex {
  private texts: Map<string, SearchText> | null = null
  private sorted: SearchText[] | null = null
  private loading: Promise<void> | null = null
  /** Keys that changed while the texts were being read. */
  private readonly changed = new Set<string>()

  constructor(private readonly database: Database) {}

  /** A message has been stored, with this text; null: it cannot be found any more. */
  note(key: { roomId: string; msgId: string }, text: SearchText | null): void {
    this.changed.add(keyOf(key))
    if (!this.texts) return
    if (text) this.texts.set(keyOf(key), text)
    else this.texts.delete(keyOf(key))
    this.sorted = null
  }

  /** Everything of a room is gone. */
  forgetRoom(roomId: string): void {
    for (const [key, text] of this.texts ?? []) {
      if (text.roomId !== roomId) continue
      this.changed.add(key)
      this.texts?.delete(key)
    }
    this.sorted = null
  }

  /** Reads the texts, unless that has been done. Another tab may have stored more meanwhile. */
  async prepare(): Promise<void> {
    if (this.texts && (await this.database.count('texts')) !== this.texts.size) this.texts = null
    if (this.texts) return
    this.loading ??= this.load().finally(() => (this.loading = null))
    await this.loading
  }

  private async load(): Promise<void> {
    this.changed.clear()
    const texts = new Map<string, SearchText>()
    this.texts = texts
    let range: IDBKeyRange | null = null
    for (;;) {
      const piece: SearchText[] = await this.database.getAll('texts', range, PIECE)
      for (const text of piece) if (!this.changed.has(keyOf(text))) texts.set(keyOf(text), text)
      const last = piece.at(-1)
      if (!last || piece.length < PIECE) break
      range = IDBKeyRange.lowerBound([last.roomId, last.msgId], true)
    }
    this.sorted = null
  }

  /** The keys of the newest messages with all words of a query; null: in all rooms. */
  async find(query: string, roomId: string | null): Promise<SearchText[]> {
    const words = wordsOf(query)
    if (words.length === 0) return []
    await this.prepare()
    this.sorted ??= [...(this.texts ?? new Map<string, SearchText>()).values()].sort(newestFirst)
    const found: SearchText[] = []
    for (const each of this.sorted) {
      if (found.length === MAX_RESULTS) break
      if (roomId !== null && each.roomId !== roomId) continue
      if (words.every((word) => each.text.includes(word))) found.push(each)
    }
    return found
  }
}

/**
 * The log of every room: takes events from wherever they come, opens and verifies them, stores them, and shows their
 * projection. An event that arrives twice, from the relay and from a member, is one.
 */
import { sha256, toHex, utf8 } from '@/crypto/bytes'
import type { RoomCrypto } from '@/crypto/roomCrypto'
import { isImage, parseFileText, wireOf, type RoomMessage, type Sealed } from '@/protocol/shapes'
import type { MessageStore } from '@/storage/messages'
import type { Proof, StoredEvent, StoredMessage } from '@/storage/types'
import { project } from './projection'

const ID_CHARS = 32
const MAX_ALT = 512

/** An event as it arrives, with what is known of its way. */
export type Arrival = Pick<StoredEvent, 'event' | 'at' | 'dated' | 'via' | 'sharedBy' | 'moderator'> & {
  /** It came inside of something encrypted. */
  encrypted: boolean
}

export interface LogContext {
  storage: () => MessageStore
  /** Whether there is a session, and its storage. */
  active: () => boolean
  /** Verifies who wrote an event; may ask the relay for keys. */
  prove: (roomId: string, event: StoredEvent) => Promise<Proof>
  show: (roomId: string, rows: readonly StoredMessage[], gone: readonly string[]) => void
  /** What was handed on has been verified: the rows that this changed. */
  proven: (rows: readonly Shown[]) => void
  /** The browser cannot store. */
  report: (error: unknown) => void
  /** Runs a task after the others of its room. */
  inOrder: <T>(roomId: string, work: () => Promise<T>) => Promise<T>
}

/** What an event changed on the screen. */
export interface Shown {
  row: StoredMessage
  isNew: boolean
}

export class Log {
  /** By room: checks of signatures that are running. */
  private readonly running = new Map<string, Set<Promise<void>>>()
  /** By room and target: events that could not be stored. */
  private readonly unstored = new Map<string, StoredEvent[]>()

  constructor(private readonly context: LogContext) {}

  clear(): void {
    this.unstored.clear()
    this.running.clear()
  }

  /** Adds events, in the room's turn; resolves with the rows that changed. */
  async append(roomId: string, room: RoomCrypto | null, arrivals: readonly Arrival[]): Promise<Shown[]> {
    const shown: Shown[] = []
    for (const arrival of arrivals) {
      const entry = await read(roomId, room, arrival)
      const events = await this.about(roomId, entry.target)
      const known = events.find((other) => other.id === entry.id)
      const merged = known ? merge(known, entry) : entry
      if (known && merged === known) {
        shown.push(...this.showStored(roomId, events))
        if (known.proof === 'pending') this.startProof(known)
        continue
      }
      shown.push(...(await this.settle(roomId, events, merged)))
      if (merged.proof === 'pending') this.startProof(merged)
    }
    return shown
  }

  /** Stores an event and the new projection of its message. */
  private async settle(roomId: string, events: readonly StoredEvent[], entry: StoredEvent): Promise<Shown[]> {
    const after = [...events.filter((other) => other.id !== entry.id), entry]
    const [before, rows] = [project(events), project(after)]
    const gone = before.map((row) => row.msgId).filter((msgId) => !rows.some((row) => row.msgId === msgId))
    this.context.show(roomId, rows, gone)
    try {
      await this.context.storage().record(roomId, { events: [entry], rows, gone })
    } catch (error) {
      // It stays on the screen, and for the edits that may follow.
      this.unstored.set(`${roomId} ${entry.target}`, after)
      this.context.report(error)
    }
    return rows.map((row) => ({ row, isNew: !before.some((other) => other.msgId === row.msgId) }))
  }

  /** Shows what is stored: another tab may have stored it before this one heard of it. */
  private showStored(roomId: string, events: readonly StoredEvent[]): Shown[] {
    const rows = project(events)
    this.context.show(roomId, rows, [])
    this.context.storage().noteStored(rows)
    return rows.map((row) => ({ row, isNew: false }))
  }

  async about(roomId: string, target: string): Promise<StoredEvent[]> {
    const stored = await this.context.storage().about(roomId, target)
    const extra = this.unstored.get(`${roomId} ${target}`) ?? []
    const known = new Set(extra.map((event) => event.id))
    return [...stored.filter((event) => !known.has(event.id)), ...extra]
  }

  /** Resolves when the signatures of what has arrived in a room are checked. */
  async settled(roomId: string): Promise<void> {
    await Promise.all(this.running.get(roomId) ?? [])
  }

  private startProof(entry: StoredEvent): void {
    const running = this.running.get(entry.roomId) ?? new Set()
    this.running.set(entry.roomId, running)
    const check = this.prove(entry).finally(() => running.delete(check))
    running.add(check)
  }

  private async prove(entry: StoredEvent): Promise<void> {
    const proof = await this.context.prove(entry.roomId, entry)
    if (proof === 'pending') return
    const rows = await this.change(entry, (current) => {
      // Meanwhile it may have arrived from the relay itself, for which other signatures count.
      const isSame = current.proof === 'pending' && (current.via === 'shared') === (entry.via === 'shared')
      return isSame ? { ...current, proof } : current
    })
    this.context.proven(rows)
  }

  private change(
    { roomId, target, id }: StoredEvent,
    edit: (current: StoredEvent) => StoredEvent | Promise<StoredEvent>,
  ): Promise<Shown[]> {
    return this.context.inOrder(roomId, async () => {
      // The session may have ended while a signature was being checked.
      if (!this.context.active()) return []
      const events = await this.about(roomId, target)
      const current = events.find((other) => other.id === id)
      const changed = current && (await edit(current))
      if (changed && changed !== current) return this.settle(roomId, events, changed)
      return this.showStored(roomId, events)
    })
  }

  /** Verifies what an earlier page left unverified. */
  async proveRest(roomId: string): Promise<void> {
    for (const entry of await this.context.storage().unfinished(roomId, 'pending')) this.startProof(entry)
  }

  /** After new keys arrived: decrypts what could not be read. */
  async readAgain(roomId: string, room: RoomCrypto): Promise<void> {
    for (const entry of await this.context.storage().unfinished(roomId, 'closed')) {
      await this.change(entry, async (current) => {
        const content = await open(room, current.event)
        return content ? { ...current, content } : current
      })
      // The original signs the text, which is known only now.
      const current = (await this.about(roomId, entry.target)).find((other) => other.id === entry.id)
      if (current?.content && current.proof === 'pending') this.startProof(current)
    }
  }
}

async function read(roomId: string, room: RoomCrypto | null, arrival: Arrival): Promise<StoredEvent> {
  const { event, at, dated, via, sharedBy, moderator, encrypted } = arrival
  const sealed = event.kind !== 'delete' && event.sealed !== null
  const isOpen = room === null || room.state === 'off' || room.state === 'unknown'
  const hash = toHex(await sha256(utf8(JSON.stringify(wireOf(event)))))
  return {
    roomId,
    target: event.kind === 'message' ? event.msgId : event.targetId,
    id: hash.slice(0, ID_CHARS),
    event,
    at,
    ...(dated && { dated }),
    via,
    sharedBy,
    moderator,
    secrecy: sealed || encrypted ? 'encrypted' : isOpen ? 'plain' : 'exposed',
    content: room && sealed ? await open(room, event) : null,
    proof: via === 'own' ? 'verified' : hasProof(event) || via === 'shared' ? 'pending' : 'unsigned',
  }
}

const hasProof = (event: RoomMessage): boolean =>
  event.sig2 !== null || (event.kind === 'message' && event.signature !== null)

/** Decrypts the content of an event; null: no key of the room fits. */
async function open(room: RoomCrypto, event: RoomMessage): Promise<StoredEvent['content']> {
  if (event.kind === 'delete' || event.sealed === null) return null
  const text = await room.open(event.sealed, event.keyId)
  if (text === null) return null
  if (event.kind === 'edit') return { text, image: null, alt: '' }
  const optional = async (sealed: Sealed | null): Promise<string | null> => sealed && room.open(sealed, event.keyId)
  const image = await optional(event.sealedImage)
  const alt = await optional(event.sealedAlt)
  const file = parseFileText(await optional(event.sealedFile ?? null))
  return { text, image: isImage(image) ? image : null, alt: (alt ?? '').slice(0, MAX_ALT), ...(file && { file }) }
}

const WAYS = ['own', 'live', 'shared']

/**
 * When the relay accepted an event that arrived twice: what the relay itself says counts before what was noted when it
 * arrived, and that before what somebody claims who hands it on.
 */
function acceptance(one: StoredEvent, other: StoredEvent): Pick<StoredEvent, 'at' | 'dated'> {
  const rank = ({ via, dated }: StoredEvent): number => (via === 'shared' ? 2 : dated ? 0 : 1)
  const best = Math.min(rank(one), rank(other))
  const at = Math.min(...[one, other].filter((each) => rank(each) === best).map((each) => each.at))
  return { at, ...(best === 0 && { dated: true as const }) }
}

/** What is known of one event that arrived twice, in either order; the same object where there is nothing new. */
function merge(known: StoredEvent, again: StoredEvent): StoredEvent {
  const content = known.content ?? again.content
  const moderator = known.moderator || again.moderator
  const accepted = acceptance(known, again)
  const [one, other] = [WAYS.indexOf(known.via), WAYS.indexOf(again.via)]
  const prefersAgain = other < one || (other === one && (again.sharedBy ?? '') < (known.sharedBy ?? ''))
  if (!prefersAgain) {
    const same = content === known.content && moderator === known.moderator
    const isDated = accepted.at === known.at && accepted.dated === known.dated
    return same && isDated ? known : { ...known, ...accepted, content, moderator }
  }
  // From the relay itself, other signatures count than in what was handed on.
  const proof = known.proof === 'verified' || other === one ? known.proof : again.proof
  return { ...again, ...accepted, content, moderator, proof }
}

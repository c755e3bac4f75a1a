/**
 * History exchange between members: a newcomer sends a request to the room, at most two members offer, it accepts one
 * offer, and that member sends the messages in parts. In an encrypted room, the parts are encrypted with the room key.
 */
import type { RoomCrypto } from '@/crypto/roomCrypto'
import { address } from '@/protocol/addresses'
import type { Value } from '@/protocol/codec'
import type { RoomKeyJwk } from '@/crypto/roomKey'
import { parseRoomKeyJwk } from '@/crypto/roomKey'
import {
  asValue,
  MAX_HISTORY,
  parseMessage,
  wireOf,
  type HistoryCall,
  type HistoryMail,
  type RoomMessage,
} from '@/protocol/shapes'
import type { StoredEvent } from '@/storage/types'
import type { Runtime } from '../runtime'

/** The first two members offer after this delay; the next two wait one turn longer, and only offer if nobody has. */
const OFFER_MS = 200
const OFFER_TURN_MS = 700
const MAX_TURN = 3
const MAX_OFFERS = 2
const COLLECT_MS = 2_500
const SECOND_OFFER_MS = 300
const PART_TIMEOUT_MS = 20_000
/** How long an offer stands. */
const OFFER_LIFE_MS = 60_000
/** JSON bytes of one part, so that it fits a frame after encryption. */
const MAX_PART_BYTES = 40_000
const MAX_PARTS = 40
/** The most keys that a part may carry. */
const MAX_KEYS = 16
/** Clocks of senders differ: request a little more than what is missing. */
const OVERLAP_MS = 60_000

interface Wanted {
  roomId: string
  /** Number of messages offered, by member. */
  offers: Map<string, number>
  takenFrom: string | null
  stop: () => void
  /** Resolves the request: whether somebody answered. */
  end: (answered: boolean) => void
}

export interface Received {
  roomId: string
  events: RoomMessage[]
  /** Keys that decrypt some of the events. */
  keys: RoomKeyJwk[]
  from: string
  encrypted: boolean
}

export class HistoryExchange {
  /** Own requests, by request id. */
  private readonly wanted = new Map<string, Wanted>()
  /** Number of offers seen, by request id. */
  private readonly seenOffers = new Map<string, number>()
  /** Own offers, by request id. */
  private readonly offered = new Map<string, { roomId: string; userId: string; sinceMs: number; limit: number }>()

  constructor(
    private readonly runtime: Runtime,
    private readonly take: (received: Received) => Promise<void>,
    private readonly presentIn: (roomId: string) => readonly string[],
  ) {}

  clear(): void {
    for (const requestId of [...this.wanted.keys()]) this.finish(requestId, false)
    this.offered.clear()
    this.seenOffers.clear()
  }

  // --- requesting ---

  /** The time from which messages may be missing, ms, after an absence since `leftAtMs`. */
  async since(roomId: string, leftAtMs: number): Promise<number> {
    const newest = (await this.runtime.storage.messages.before(roomId, 1))[0]
    // Newer stored messages were written here, offline.
    return Math.max(0, Math.min(newest?.timestamp ?? 0, leftAtMs) - OVERLAP_MS)
  }

  /** Requests the messages since then; resolves with whether somebody sent them. */
  ask(roomId: string, since: number): Promise<boolean> {
    const { platform, self } = this.runtime
    const requestId = platform.newId()
    const answer = new Promise<boolean>((end) => {
      const stop = platform.clock.after(COLLECT_MS, () => this.takeBest(requestId))
      this.wanted.set(requestId, { roomId, offers: new Map(), takenFrom: null, stop, end })
    })
    this.say(address.historyCall(roomId), {
      type: 'request',
      userId: self.userId,
      requestId,
      limit: MAX_HISTORY,
      since,
      timestamp: platform.clock.now(),
    })
    return answer
  }

  /** Cancels the requests in a room. */
  cancel(roomId: string): void {
    for (const [requestId, wanted] of [...this.wanted]) if (wanted.roomId === roomId) this.finish(requestId, false)
  }

  private finish(requestId: string, answered: boolean): void {
    const wanted = this.wanted.get(requestId)
    if (!wanted) return
    wanted.stop()
    this.wanted.delete(requestId)
    wanted.end(answered)
  }

  private hearOffer(wanted: Wanted, { requestId, userId, count }: HistoryCall & { type: 'offer' }): void {
    if (wanted.takenFrom !== null || wanted.offers.size >= MAX_OFFERS) return
    wanted.offers.set(userId, count)
    wanted.stop()
    // A second offer with more messages may follow.
    wanted.stop = this.runtime.platform.clock.after(SECOND_OFFER_MS, () => this.takeBest(requestId))
  }

  /** Accepts the largest offer; without one, nobody can help. */
  private takeBest(requestId: string): void {
    const wanted = this.wanted.get(requestId)
    if (!wanted) return
    const best = [...wanted.offers].sort((one, other) => other[1] - one[1])[0]
    if (!best) return this.finish(requestId, false)
    const [helper] = best
    wanted.offers.delete(helper)
    wanted.takenFrom = helper
    const { self, platform } = this.runtime
    this.say(address.historyFor(wanted.roomId, helper), { type: 'take', userId: self.userId, requestId })
    wanted.stop = platform.clock.after(PART_TIMEOUT_MS, () => this.takeBest(requestId))
  }

  private async takePart(room: RoomCrypto, mail: HistoryMail & { type: 'part' }): Promise<void> {
    const wanted = this.wanted.get(mail.requestId)
    if (!wanted || wanted.takenFrom !== mail.userId) return
    // A member without the room key cannot know the messages of an encrypted room.
    if (!mail.sealed && room.state !== 'off') return
    const json = mail.sealed && (await room.open(mail.sealed, null))
    const { events, keys } = mail.sealed ? parsePart(json) : { events: mail.messages, keys: [] }
    await this.take({
      roomId: wanted.roomId,
      events: listed(events, parseMessage, MAX_HISTORY),
      keys: listed(keys, parseRoomKeyJwk, MAX_KEYS),
      from: mail.userId,
      encrypted: mail.sealed !== null,
    })
    if (mail.last) this.finish(mail.requestId, true)
  }

  // --- answering ---

  hearCall(roomId: string, call: HistoryCall): void {
    if (call.type === 'offer') {
      this.seenOffers.set(call.requestId, (this.seenOffers.get(call.requestId) ?? 0) + 1)
      const wanted = this.wanted.get(call.requestId)
      if (wanted?.roomId === roomId) this.hearOffer(wanted, call)
      return
    }
    if (this.wanted.has(call.requestId)) return
    const delayMs = OFFER_MS + this.turn(roomId, call) * OFFER_TURN_MS
    this.runtime.platform.clock.after(delayMs, () => void this.offer(roomId, call))
  }

  /** The turn of this member: all members compute the same order, a different one for each request. */
  private turn(roomId: string, { requestId, userId }: HistoryCall): number {
    const me = this.runtime.self.userId
    const others = this.presentIn(roomId).filter((other) => other !== userId && other !== me)
    const own = mix(requestId + me)
    const before = others.filter((other) => mix(requestId + other) < own).length
    return Math.min(MAX_TURN, Math.floor(before / MAX_OFFERS))
  }

  private async offer(roomId: string, call: HistoryCall & { type: 'request' }): Promise<void> {
    const { requestId, userId, sinceMs, limit } = call
    const { runtime } = this
    if (!runtime.begun || (this.seenOffers.get(requestId) ?? 0) >= MAX_OFFERS) return
    const count = (await this.rows(roomId, sinceMs, limit)).length
    if (count === 0 || !runtime.rooms.has(roomId)) return
    this.offered.set(requestId, { roomId, userId, sinceMs, limit })
    runtime.platform.clock.after(OFFER_LIFE_MS, () => {
      this.offered.delete(requestId)
      this.seenOffers.delete(requestId)
    })
    const offer = { type: 'offer', userId: runtime.self.userId, requestId, count }
    this.say(address.historyCall(roomId), offer)
  }

  /** The events to hand on: readable ones, with their signatures, which the receiver verifies. */
  private async rows(roomId: string, sinceMs: number, limit: number): Promise<StoredEvent[]> {
    const newest = await this.runtime.storage.messages.newestEvents(roomId, sinceMs, limit)
    return newest.filter(({ event, content, proof }) => {
      const readable = event.kind === 'delete' || event.sealed === null || content !== null
      return readable && proof !== 'denied'
    })
  }

  async hearMail(roomId: string, mail: HistoryMail): Promise<void> {
    const room = await this.runtime.rooms.get(roomId)?.room()
    if (!room) return
    if (mail.type === 'part') return this.takePart(room, mail)
    const offered = this.offered.get(mail.requestId)
    if (offered?.roomId !== roomId || offered.userId !== mail.userId) return
    this.offered.delete(mail.requestId)
    const rows = await this.rows(roomId, offered.sinceMs, offered.limit)
    await this.send(room, roomId, mail, rows)
  }

  private async send(room: RoomCrypto, roomId: string, mail: HistoryMail, rows: readonly StoredEvent[]): Promise<void> {
    const keyIds = new Set(rows.map(({ event }) => (event.kind === 'delete' ? null : event.keyId)))
    const keys = room.keysFor(keyIds)
    const parts = cut(rows.map(handedOn))
    for (const [at, part] of parts.entries()) {
      const head = {
        type: 'part',
        userId: this.runtime.self.userId,
        requestId: mail.requestId,
        last: at === parts.length - 1,
      }
      try {
        const { closed, guard } = await room.close([JSON.stringify({ events: part, keys })])
        const text = closed[0] as (typeof closed)[number]
        const body = 'clear' in text ? { messages: part } : { encrypted: true, text: text.text, iv: text.iv }
        const value = asValue({ ...head, ...body })
        await this.runtime.connection.publish(address.historyFor(roomId, mail.userId), value, { guard })
      } catch {
        // The key, the permission or the connection is lost: the requester takes the next offer.
        return
      }
    }
  }

  private say(where: string, value: { [key: string]: Value }): void {
    // Best effort: without an answer, the room starts with the messages that arrive from now on.
    this.runtime.connection.publish(where, value).catch(() => undefined)
  }
}

/** A pseudo-random number that every client computes alike (FNV-1a). */
function mix(text: string): number {
  let hash = 0x811c9dc5
  for (let at = 0; at < text.length; at++) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193) >>> 0
  return hash
}

/**
 * An event as it is handed on. The original does not say which key it used: what it encrypted is handed on as text,
 * which proves nothing, as it would without.
 */
function handedOn({ event, content }: StoredEvent): object {
  if (event.kind === 'delete' || event.sealed === null || event.keyId !== null || !content) return wireOf(event)
  if (event.kind === 'edit') return wireOf({ ...event, sealed: null, text: content.text })
  return wireOf({ ...event, ...content, sealed: null, sealedImage: null, sealedAlt: null })
}

/** The inside of an encrypted part. */
function parsePart(json: string | null): { events: unknown; keys: unknown } {
  try {
    const { events, keys } = (JSON.parse(json ?? '{}') ?? {}) as { events?: unknown; keys?: unknown }
    return { events, keys }
  } catch {
    // Not JSON: nothing to take.
    return { events: [], keys: [] }
  }
}

function listed<T>(value: unknown, parse: (item: unknown) => T | null, max: number): T[] {
  const items = Array.isArray(value) ? value.slice(0, max).map(parse) : []
  return items.filter((item) => item !== null)
}

/** Splits rows into parts that fit a frame each; drops the oldest if there are too many. */
function cut(rows: readonly object[]): object[][] {
  const parts: object[][] = []
  let size = Infinity
  for (const row of [...rows].reverse()) {
    const bytes = new TextEncoder().encode(JSON.stringify(row)).length
    if (bytes > MAX_PART_BYTES) continue
    if (size + bytes > MAX_PART_BYTES) {
      parts.push([])
      size = 0
    }
    parts.at(-1)?.push(row)
    size += bytes + 1
  }
  return parts.slice(0, MAX_PARTS)
}

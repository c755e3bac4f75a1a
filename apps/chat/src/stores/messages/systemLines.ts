/** Lines that this client writes into a room by itself: who came and left for good, what changed. Not stored. */
import * as shapes from '@/protocol/shapes'
import type { RoomEvent } from '../live/liveRoom'
import type { ChatMessage, RoomId } from '../types'

const MAX_LINES = 100

type Key =
  | 'joined'
  | 'left'
  | 'banned'
  | 'unbanned'
  | 'promoted'
  | 'demoted'
  | 'renamed'
  | 'encrypted'
  | 'keyReceived'
  | 'keyChanged'

interface Known {
  members: Map<string, string>
  name: string | null
  encryption: string
}

export interface Line {
  key: Key
  name: string
}

/** Remembers as much of each room as is needed to tell what is new. */
export class SystemLines {
  private readonly rooms = new Map<RoomId, Known>()

  constructor(private readonly nameOf: (roomId: RoomId, userId: string) => string) {}

  clear(): void {
    this.rooms.clear()
  }

  /** The line about an event; null: there is nothing to say. */
  take(event: RoomEvent): Line | null {
    const { roomId } = event
    const known = this.rooms.get(roomId) ?? { members: new Map<string, string>(), name: null, encryption: 'unknown' }
    this.rooms.set(roomId, known)
    if (event.type === 'update') return this.update(known, event)
    if (event.type === 'keyChanged') return { key: 'keyChanged', name: this.nameOf(roomId, event.userId) }
    if (event.type === 'encryption') return this.encryption(known, event.state)
    if (event.type !== 'meta' || !event.meta) return null
    const { name } = event.meta
    const renamed = event.live && known.name !== null && known.name !== name
    known.name = name
    return renamed ? { key: 'renamed', name } : null
  }

  private encryption(known: Known, state: string): Line | null {
    const before = known.encryption
    known.encryption = state
    if (before === 'waiting' && state === 'ready') return { key: 'keyReceived', name: '' }
    return before === 'off' && (state === 'waiting' || state === 'ready') ? { key: 'encrypted', name: '' } : null
  }

  private update(known: Known, { roomId, place, update }: RoomEvent & { type: 'update' }): Line | null {
    const live = update.kind === 'set'
    if (place.kind === 'member') return this.member(known, place.userId, update.value, live)
    if (!live || (place.kind !== 'ban' && place.kind !== 'admin')) return null
    const name = this.nameOf(roomId, place.userId) || (shapes.parseBan(update.value)?.name ?? '')
    if (name === '') return null
    if (place.kind === 'ban') return { key: shapes.parseBan(update.value) ? 'banned' : 'unbanned', name }
    return { key: shapes.parseAdmin(update.value) ? 'promoted' : 'demoted', name }
  }

  /** Clients say at every connection that they are members: only the first time is news. */
  private member({ members }: Known, userId: string, value: unknown, live: boolean): Line | null {
    const member = shapes.parsePresence(value)
    const name = member?.name ?? members.get(userId) ?? ''
    const changed = (member !== null) !== members.has(userId)
    if (member) members.set(userId, member.name)
    else members.delete(userId)
    return live && changed && name !== '' ? { key: member ? 'joined' : 'left', name } : null
  }
}

export function lineMessage(roomId: RoomId, { key, name }: Line, timestamp: number, number: number): ChatMessage {
  return {
    roomId,
    msgId: `line-${number}`,
    userId: null,
    sessionId: '',
    name,
    color: shapes.DEFAULT_COLOR,
    kind: 'system',
    text: key,
    image: null,
    alt: '',
    timestamp,
    replyTo: null,
    edited: false,
    deleted: false,
    unproven: false,
    own: false,
    delivery: 'confirmed',
    failure: null,
    secrecy: 'plain',
    verification: 'unsigned',
    mentionsMe: false,
    relayedBy: null,
    reactions: [],
    readBy: [],
  }
}

export const withLine = (lines: readonly ChatMessage[], line: ChatMessage): readonly ChatMessage[] =>
  [...lines, line].slice(-MAX_LINES)

/** Messages with the lines between them. */
export function merged(messages: readonly ChatMessage[], lines: readonly ChatMessage[]): readonly ChatMessage[] {
  const first = messages[0]?.timestamp ?? 0
  const shown = lines.filter((line) => line.timestamp >= first)
  if (shown.length === 0) return messages
  // Both are in order, and sorting keeps what is equal as it is.
  return [...messages, ...shown].sort((one, other) => one.timestamp - other.timestamp)
}

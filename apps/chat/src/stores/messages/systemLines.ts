/** The system lines of a room: who joined or left it for good, and what changed. They are not stored. */
import * as shapes from '@/protocol/shapes'
import type { RoomEvent } from '../live/liveRoom'
import type { ChatMessage, RoomId, SystemLine } from '../types'

const MAX_LINES = 100

interface Known {
  members: Map<string, string>
  name: string | null
  encryption: string
}

/** Keeps what is known of each room, to tell a change from a repetition. */
export class SystemLines {
  private readonly rooms = new Map<RoomId, Known>()

  constructor(private readonly nameOf: (roomId: RoomId, userId: string) => string) {}

  clear(): void {
    this.rooms.clear()
  }

  /** The line about an event; null: the event gets none. */
  take(event: RoomEvent): SystemLine | null {
    const { roomId } = event
    const known = this.rooms.get(roomId) ?? { members: new Map<string, string>(), name: null, encryption: 'unknown' }
    this.rooms.set(roomId, known)
    if (event.type === 'update') return this.update(known, event)
    if (event.type === 'keyChanged') return { kind: 'keyChanged', params: { name: this.nameOf(roomId, event.userId) } }
    if (event.type === 'encryption') return this.encryption(known, event.state)
    if (event.type !== 'meta' || !event.meta) return null
    const { name } = event.meta
    const renamed = event.live && known.name !== null && known.name !== name
    known.name = name
    return renamed ? { kind: 'renamed', params: { name } } : null
  }

  private encryption(known: Known, state: string): SystemLine | null {
    const before = known.encryption
    known.encryption = state
    if (before === 'waiting' && state === 'ready') return { kind: 'keyReceived', params: {} }
    return before === 'off' && (state === 'waiting' || state === 'ready') ? { kind: 'encrypted', params: {} } : null
  }

  private update(known: Known, { roomId, place, update }: RoomEvent & { type: 'update' }): SystemLine | null {
    const live = update.kind === 'set'
    if (place.kind === 'member') return this.member(known, place.userId, update.value, live)
    if (!live || (place.kind !== 'ban' && place.kind !== 'admin')) return null
    const name = this.nameOf(roomId, place.userId) || (shapes.parseBan(update.value)?.name ?? '')
    if (name === '') return null
    if (place.kind === 'ban') return { kind: shapes.parseBan(update.value) ? 'banned' : 'unbanned', params: { name } }
    return { kind: shapes.parseAdmin(update.value) ? 'promoted' : 'demoted', params: { name } }
  }

  /** Clients write their membership at every connection: only the first time is a change. */
  private member({ members }: Known, userId: string, value: unknown, live: boolean): SystemLine | null {
    const member = shapes.parsePresence(value)
    const name = member?.name ?? members.get(userId) ?? ''
    const changed = (member !== null) !== members.has(userId)
    if (member) members.set(userId, member.name)
    else members.delete(userId)
    return live && changed && name !== '' ? { kind: member ? 'joined' : 'left', params: { name } } : null
  }
}

export function lineMessage(roomId: RoomId, line: SystemLine, timestamp: number, number: number): ChatMessage {
  return {
    roomId,
    msgId: `line-${number}`,
    userId: null,
    sessionId: '',
    name: '',
    idMark: '',
    color: shapes.DEFAULT_COLOR,
    kind: 'system',
    line,
    text: '',
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

/** Messages and system lines in the order of their times. */
export function merged(messages: readonly ChatMessage[], lines: readonly ChatMessage[]): readonly ChatMessage[] {
  const first = messages[0]?.timestamp ?? 0
  const shown = lines.filter((line) => line.timestamp >= first)
  if (shown.length === 0) return messages
  // Both are in order already, and the sort is stable.
  return [...messages, ...shown].sort((one, other) => one.timestamp - other.timestamp)
}

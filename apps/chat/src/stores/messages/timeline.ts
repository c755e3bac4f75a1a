/** The loaded part of a room's history: sorted, without duplicates, extended at both ends. */
import type { StoredMessage } from '@/storage/types'

export interface Timeline {
  readonly messages: readonly StoredMessage[]
  readonly hasOlder: boolean
}

export const EMPTY: Timeline = { messages: [], hasOlder: false }

const isBefore = (one: StoredMessage, other: StoredMessage): boolean =>
  one.timestamp < other.timestamp || (one.timestamp === other.timestamp && one.msgId < other.msgId)

/** The position of a message, searched from the end, where most new messages belong. */
function placeOf(messages: readonly StoredMessage[], message: StoredMessage): number {
  let at = messages.length
  while (at > 0 && isBefore(message, messages[at - 1] as StoredMessage)) at--
  return at
}

/** Inserts or replaces a message. A message older than the loaded part is omitted while there is more to load. */
export function withMessage(timeline: Timeline, message: StoredMessage): Timeline {
  const { messages, hasOlder } = timeline
  const known = messages.findLastIndex((other) => other.msgId === message.msgId)
  if (known >= 0) {
    const sameTime = messages[known]?.timestamp === message.timestamp
    if (sameTime) return { hasOlder, messages: messages.with(known, message) }
    return withMessage({ hasOlder, messages: messages.toSpliced(known, 1) }, message)
  }
  const at = placeOf(messages, message)
  if (at === 0 && hasOlder && messages.length > 0) return timeline
  return { hasOlder, messages: messages.toSpliced(at, 0, message) }
}

export function withoutMessage({ messages, hasOlder }: Timeline, msgId: string): Timeline {
  return { hasOlder, messages: messages.filter((message) => message.msgId !== msgId) }
}

/** Adds older messages at the beginning. */
export function withOlder({ messages }: Timeline, older: readonly StoredMessage[], hasOlder: boolean): Timeline {
  const known = new Set(messages.map((message) => message.msgId))
  return { hasOlder, messages: [...older.filter((message) => !known.has(message.msgId)), ...messages] }
}

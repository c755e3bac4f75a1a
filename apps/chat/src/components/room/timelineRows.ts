import { dayOf } from '@/components/useDates'
import type { ChatMessage, Person, SystemLine } from '@/stores'

/** A row of the list: a message, or a separator between messages. */
export type Row =
  | { readonly kind: 'date'; readonly key: string; readonly timestamp: number }
  | { readonly kind: 'new'; readonly key: string }
  | { readonly kind: 'relayed'; readonly key: string; readonly name: string }
  | { readonly kind: 'system'; readonly key: string; readonly line: SystemLine }
  | { readonly kind: 'message'; readonly key: string; readonly message: ChatMessage; readonly head: boolean }

/** Messages of one person within this time share one heading. */
const TOGETHER_MS = 5 * 60_000

const sameAuthor = (one: ChatMessage, other: ChatMessage): boolean =>
  one.userId === other.userId && one.sessionId === other.sessionId && one.name === other.name

/** The rows of a timeline: messages, dates, where the unread part begins, and where history shared by others begins. */
export function rowsOf(timeline: readonly ChatMessage[], unreadSince: number | null): Row[] {
  const rows: Row[] = []
  let day = ''
  let before: ChatMessage | null = null
  let marked = unreadSince === null
  let relayedBy = null as Person | null
  for (const message of timeline) {
    const today = dayOf(message.timestamp)
    if (today !== day) {
      rows.push({ kind: 'date', key: `date-${today}`, timestamp: message.timestamp })
      day = today
      before = null
    }
    if (!marked && message.timestamp > (unreadSince ?? 0) && !message.own) {
      rows.push({ kind: 'new', key: 'new' })
      marked = true
      before = null
    }
    if (message.line) {
      rows.push({ kind: 'system', key: message.msgId, line: message.line })
      before = null
      continue
    }
    if (message.relayedBy?.userId !== relayedBy?.userId) {
      relayedBy = message.relayedBy
      if (relayedBy) rows.push({ kind: 'relayed', key: `relayed-${message.msgId}`, name: relayedBy.name })
      before = null
    }
    const head =
      !before ||
      !sameAuthor(before, message) ||
      message.timestamp - before.timestamp > TOGETHER_MS ||
      message.replyTo !== null
    rows.push({ kind: 'message', key: message.msgId, message, head })
    before = message
  }
  return rows
}

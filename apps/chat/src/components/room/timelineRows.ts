import { dayOf } from '@/components/useDates'
import type { ChatMessage } from '@/stores'

/** A line of the list: a message, or what stands between messages. */
export type Row =
  | { readonly kind: 'date'; readonly key: string; readonly timestamp: number }
  | { readonly kind: 'new'; readonly key: string }
  | { readonly kind: 'system'; readonly key: string; readonly message: ChatMessage }
  | { readonly kind: 'message'; readonly key: string; readonly message: ChatMessage; readonly head: boolean }

/** Messages of one person within this time stand under one name. */
const TOGETHER_MS = 5 * 60_000

const sameAuthor = (one: ChatMessage, other: ChatMessage): boolean =>
  one.userId === other.userId && one.sessionId === other.sessionId && one.name === other.name

/** Lays a timeline out in lines, with the days and the place where the unread part begins. */
export function rowsOf(timeline: readonly ChatMessage[], unreadSince: number | null): Row[] {
  const rows: Row[] = []
  let day = ''
  let before: ChatMessage | null = null
  let marked = unreadSince === null
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
    if (message.kind === 'system') {
      rows.push({ kind: 'system', key: message.msgId, message })
      before = null
      continue
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

/** The history exchange between members. */
import { isMsgId, isUserId } from '../addresses'
import { fieldsOf, flag, id, own, time } from './fields'
import { type Quote, type Sealed, parseMessage, sealedPair } from './messages'

export type HistoryCall =
  /** `sinceMs`: only newer messages are missing. */
  | { type: 'request'; userId: string; requestId: string; limit: number; sinceMs: number }
  | { type: 'offer'; userId: string; requestId: string; count: number }

export const MAX_HISTORY = 200

/** Published to the room: a request of a newcomer, or an offer of a member. */
export function parseHistoryCall(value: unknown): HistoryCall | null {
  const fields = fieldsOf(value)
  const userId = fields && id(fields, 'userId', isUserId)
  const requestId = fields && id(fields, 'requestId', isMsgId)
  const number = fields && (time(fields, 'limit') ?? time(fields, 'count'))
  if (!fields || !userId || !requestId || number === null || number === undefined) return null
  const amount = Math.min(number, MAX_HISTORY)
  const type = own(fields, 'type')
  if (type === 'request') return { type, userId, requestId, limit: amount, sinceMs: time(fields, 'since') ?? 0 }
  return type === 'offer' ? { type, userId, requestId, count: amount } : null
}

export type HistoryMail =
  | { type: 'take'; userId: string; requestId: string }
  | { type: 'part'; userId: string; requestId: string; last: boolean; messages: unknown[]; sealed: Sealed | null }

/** Published to one member: `take` accepts an offer, `part` carries messages. */
export function parseHistoryMail(value: unknown): HistoryMail | null {
  const fields = fieldsOf(value)
  const userId = fields && id(fields, 'userId', isUserId)
  const requestId = fields && id(fields, 'requestId', isMsgId)
  if (!fields || !userId || !requestId) return null
  const type = own(fields, 'type')
  if (type === 'take') return { type, userId, requestId }
  if (type !== 'part') return null
  const listed = own(fields, 'messages')
  const sealed = flag(fields, 'encrypted') ? sealedPair(fields, 'text', 'iv') : null
  const messages = Array.isArray(listed) && !sealed ? listed.slice(0, MAX_HISTORY) : []
  return { type, userId, requestId, last: flag(fields, 'last'), messages, sealed }
}

/** A message of an imported file. */
export interface HistoryRow {
  msgId: string
  userId: string | null
  fromId: string
  from: string
  avatarColor: string
  timestamp: number
  type: 'text' | 'image'
  text: string
  image: string | null
  alt: string
  replyTo: Quote | null
  edited: boolean
}

export function parseHistoryRow(value: unknown): HistoryRow | null {
  const fields = fieldsOf(value)
  const message = parseMessage(value)
  if (!fields || message?.kind !== 'message' || message.sealed) return null
  const { msgId, userId, fromId, from, avatarColor, timestamp, type, image, alt, replyTo } = message
  return {
    msgId,
    userId,
    fromId,
    from,
    avatarColor,
    timestamp,
    type,
    text: message.text,
    image,
    alt,
    replyTo,
    edited: flag(fields, 'edited'),
  }
}

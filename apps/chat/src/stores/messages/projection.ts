/**
 * From the events about a message to what is shown of it. A pure function of the set of events: whatever the order in
 * which they arrived, the result is the same. An event counts as somebody's only if the relay named them as its sender,
 * or if a device of theirs signed it.
 */
import type { DeleteMessage, EditMessage, TextMessage } from '@/protocol/shapes'
import type { StoredEvent, StoredMessage } from '@/storage/types'

/** How far a sender's clock may differ from the relay's; beyond it, what it says is not repeated. */
export const MAX_SKEW_MS = 5 * 60_000

type Of<Event> = StoredEvent & { event: Event }

const isText = (entry: StoredEvent): entry is Of<TextMessage> => entry.event.kind === 'message'
const isEdit = (entry: StoredEvent): entry is Of<EditMessage> => entry.event.kind === 'edit'
const isDelete = (entry: StoredEvent): entry is Of<DeleteMessage> => entry.event.kind === 'delete'

/** Who wrote an event; a session where it names no user. */
const authorOf = ({ event: { userId, fromId } }: StoredEvent): string => userId ?? `session ${fromId}`

/** 2: its author is known; 1: another member says so, and nothing proves it; 0: not to be shown. */
function credit({ via, proof }: StoredEvent): 0 | 1 | 2 {
  if (via !== 'shared') return 2
  if (proof === 'verified') return 2
  return proof === 'unsigned' || proof === 'unverified' ? 1 : 0
}

/** What arrived from the relay comes before what was handed on, and what arrived first before what came later. */
function precedes(one: StoredEvent, other: StoredEvent): number {
  const shared = Number(one.via === 'shared') - Number(other.via === 'shared')
  return credit(other) - credit(one) || shared || one.at - other.at || (one.id < other.id ? -1 : 1)
}

/** One message per author: somebody who copies the id of a message neither replaces nor hides it. */
function messagesOf(events: readonly StoredEvent[]): Of<TextMessage>[] {
  const candidates = events.filter(isText).filter((entry) => credit(entry) > 0)
  const sorted = candidates.sort(precedes)
  const best = sorted[0]
  // Claims without proof say nothing where somebody is known to have written it, and nothing beside each other.
  if (best && credit(best) === 1) return [best]
  const byAuthor = new Map<string, Of<TextMessage>>()
  for (const entry of sorted) {
    if (credit(entry) === 2 && !byAuthor.has(authorOf(entry))) byAuthor.set(authorOf(entry), entry)
  }
  return [...byAuthor.values()]
}

/**
 * Whether an edit or a delete counts for a message. `session`: neither names a user, so that the session id, which
 * everybody can read and copy, is all there is.
 */
function authorship(change: StoredEvent, message: Of<TextMessage>): 'yes' | 'session' | 'no' {
  if (credit(change) < 2) return 'no'
  const [author, target] = [change.event, message.event]
  if (change.event.kind === 'delete' && change.moderator) return 'yes'
  if (target.userId === null) {
    return author.userId === null && author.fromId === target.fromId && change.via !== 'shared' ? 'session' : 'no'
  }
  if (author.userId !== target.userId) return 'no'
  // Where both are signed, the signatures must be of the same account.
  const refuted = author.sig2 !== null && target.sig2 !== null && message.proof === 'verified'
  return refuted && change.proof !== 'verified' ? 'no' : 'yes'
}

/** The content of a message or an edit; null: no key has decrypted it yet. */
export function contentOf({ event, content }: Of<TextMessage> | Of<EditMessage>): StoredEvent['content'] {
  if (event.sealed !== null) return content
  return event.kind === 'edit' ? { text: event.text, image: null, alt: '' } : event
}

/** When its sender says that a message was written, as far as that is believed and another time than the relay's. */
function writtenAt({ event, at }: StoredEvent): { writtenAt?: number } {
  const skewMs = Math.abs(event.timestamp - at)
  return skewMs === 0 || skewMs > MAX_SKEW_MS ? {} : { writtenAt: event.timestamp }
}

const later = (one: Of<EditMessage>, other: Of<EditMessage>): number =>
  one.event.timestamp - other.event.timestamp ||
  ((one.event.msgId ?? one.id) < (other.event.msgId ?? other.id) ? -1 : 1)

function rowOf(entry: Of<TextMessage>): StoredMessage {
  const { event, roomId, secrecy, proof, via, sharedBy } = entry
  const proven = credit(entry) === 2
  const content = contentOf(entry)
  return {
    roomId,
    msgId: event.msgId,
    userId: event.userId,
    sessionId: event.fromId,
    // The name and the description of an image are not signed: whoever handed the event on may have changed them.
    name: via === 'shared' && proven ? '' : event.from,
    color: event.avatarColor,
    kind: event.type,
    text: content?.text ?? '',
    image: content?.image ?? null,
    alt: via === 'shared' && proven ? '' : (content?.alt ?? ''),
    timestamp: entry.at,
    ...writtenAt(entry),
    ...(content?.file && { file: content.file }),
    replyTo: event.replyTo,
    edited: false,
    deleted: false,
    unproven: false,
    delivery: 'confirmed',
    failure: null,
    secrecy: content ? secrecy : 'unreadable',
    verification: proof === 'denied' ? 'unsigned' : proof,
    relayedBy: proven ? null : sharedBy,
  }
}

function edited(row: StoredMessage, edits: readonly Of<EditMessage>[], message: Of<TextMessage>): StoredMessage {
  const last = edits
    .filter((edit) => contentOf(edit) !== null)
    .sort(later)
    .at(-1)
  const content = last && contentOf(last)
  if (!last || !content) return row
  const secrecy = last.secrecy === 'plain' ? row.secrecy : last.secrecy
  const unproven = authorship(last, message) === 'session'
  const changed = { ...row, text: content.text, edited: true, unproven, secrecy }
  // The proof of an edit is none of the message that somebody handed on.
  return row.relayedBy !== null || last.proof === 'denied' ? changed : { ...changed, verification: last.proof }
}

/** A deleted message: its content is gone, its place in the timeline stays. */
const deleted = ({ file: _file, ...row }: StoredMessage, unproven: boolean): StoredMessage => ({
  ...row,
  text: '',
  image: null,
  alt: '',
  replyTo: null,
  edited: false,
  deleted: true,
  unproven,
  secrecy: row.secrecy === 'unreadable' ? 'encrypted' : row.secrecy,
  verification: 'unsigned',
})

function project1(message: Of<TextMessage>, events: readonly StoredEvent[]): StoredMessage {
  const row = rowOf(message)
  const deletes = events.filter(isDelete).map((entry) => authorship(entry, message))
  if (deletes.includes('yes')) return deleted(row, false)
  if (deletes.includes('session')) return deleted(row, true)
  const edits = events.filter(isEdit).filter((entry) => authorship(entry, message) !== 'no')
  return edited(row, edits, message)
}

/** The id of a row: the first author of a message id keeps it, others get one that tells them apart. */
const rowId = (msgId: string, { id }: StoredEvent, place: number): string =>
  place === 0 ? msgId : `${msgId.slice(0, 60)}-${id.slice(0, 12)}`

/** The rows that the events about one message give, in no particular order. */
export function project(events: readonly StoredEvent[]): StoredMessage[] {
  return messagesOf(events).map((message, place) => {
    return { ...project1(message, events), msgId: rowId(message.target, message, place) }
  })
}

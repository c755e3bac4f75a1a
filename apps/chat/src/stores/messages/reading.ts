/** Converts received events into stored messages, and verifies their claims where possible. */
import type { RoomCrypto } from '@/crypto/roomCrypto'
import type { ChangeMessage, DeleteMessage, EditMessage, HistoryRow, TextMessage } from '@/protocol/shapes'
import { isImage } from '@/protocol/shapes'
import type { StoredMessage } from '@/storage/types'

/** How far a sender's clock may differ from the relay's; beyond it, the time of arrival counts. */
export const MAX_SKEW_MS = 5 * 60_000

/** The time of a message that arrives now, ms; `now` is the relay's time. */
const arrivalTime = (timestamp: number, now: number): number =>
  Math.abs(timestamp - now) > MAX_SKEW_MS ? now : timestamp

type Opened = Pick<StoredMessage, 'text' | 'image' | 'alt' | 'secrecy' | 'sealed'>

/** Decrypts a message; its secrecy is `unreadable` if no key of the room fits. */
export async function open(room: RoomCrypto, sealed: NonNullable<StoredMessage['sealed']>): Promise<Opened> {
  const text = await room.open(sealed.text, sealed.keyId)
  if (text === null) return { text: '', image: null, alt: '', secrecy: 'unreadable', sealed }
  const image = sealed.image && (await room.open(sealed.image, sealed.keyId))
  const alt = sealed.alt && (await room.open(sealed.alt, sealed.keyId))
  return {
    text,
    image: isImage(image) ? image : null,
    alt: (alt ?? '').slice(0, 512),
    secrecy: 'encrypted',
    sealed: null,
  }
}

async function contentOf(room: RoomCrypto, message: TextMessage): Promise<Opened> {
  const { text, image, alt, sealed, sealedImage, sealedAlt, keyId } = message
  if (sealed) return open(room, { text: sealed, image: sealedImage, alt: sealedAlt, keyId })
  const isOpen = room.state === 'off' || room.state === 'unknown'
  return { text, image, alt, secrecy: isOpen ? 'plain' : 'exposed', sealed: null }
}

function signatureOf(message: TextMessage, text: string): StoredMessage['signature'] {
  const { sealed, cipherSignature, signature, timestamp } = message
  if (sealed && cipherSignature) return { text: sealed.text, value: cipherSignature, timestamp }
  // The original app signs the plain text even if it encrypts the message.
  return signature ? { text, value: signature, timestamp } : null
}

export async function readText(
  room: RoomCrypto,
  roomId: string,
  message: TextMessage,
  now: number,
): Promise<StoredMessage> {
  const content = await contentOf(room, message)
  const timestamp = arrivalTime(message.timestamp, now)
  const signature = signatureOf(message, content.text)
  return {
    roomId,
    msgId: message.msgId,
    userId: message.userId,
    sessionId: message.fromId,
    name: message.from,
    color: message.avatarColor,
    kind: message.type,
    ...content,
    timestamp,
    replyTo: message.replyTo,
    edited: false,
    deleted: false,
    unproven: false,
    delivery: 'confirmed',
    failure: null,
    verification: signature ? 'pending' : 'unsigned',
    relayedBy: null,
    signature,
    change: null,
  }
}

/**
 * A row of the history that another member shared. Nothing proves its author or its content, so that it is never
 * `verified`, and never shown as one's own.
 */
export function readHistory(
  roomId: string,
  row: HistoryRow,
  relayedBy: string,
  encrypted: boolean,
  now: number,
): StoredMessage {
  const { msgId, userId, fromId, from, avatarColor, timestamp, type, text, image, alt, replyTo, edited, change } = row
  return {
    roomId,
    msgId,
    userId,
    sessionId: fromId,
    name: from,
    color: avatarColor,
    kind: type,
    text,
    image,
    alt,
    timestamp: Math.min(timestamp, now),
    replyTo,
    edited,
    deleted: false,
    unproven: false,
    delivery: 'confirmed',
    failure: null,
    secrecy: encrypted ? 'encrypted' : 'plain',
    verification: 'unsigned',
    relayedBy,
    sealed: null,
    signature: null,
    change,
  }
}

/**
 * Whether an edit or delete comes from the author of its target.
 *
 * `yes`: the user ids are equal; the relay lets nobody write another's. `session`: the target names no user, so that
 * the session id, which everybody can read and copy, is all there is. Where the target names a user, a change
 * without one is refused, even if its session id fits.
 */
export function authorship(change: ChangeMessage, target: StoredMessage): 'yes' | 'session' | 'no' {
  if (target.userId !== null) return change.userId === target.userId ? 'yes' : 'no'
  return change.userId === null && change.fromId === target.sessionId ? 'session' : 'no'
}

/** The message after an edit; null: the edit cannot be decrypted, or the message is deleted. */
export async function applyEdit(
  room: RoomCrypto,
  target: StoredMessage,
  edit: EditMessage,
  unproven: boolean,
): Promise<StoredMessage | null> {
  const text = edit.sealed ? await room.open(edit.sealed, null) : edit.text
  if (text === null || target.deleted) return null
  const exposed = !edit.sealed && (room.state === 'waiting' || room.state === 'ready')
  const secrecy = edit.sealed ? 'encrypted' : exposed ? 'exposed' : target.secrecy
  // The signature covered the text before the edit.
  const state = { edited: true, unproven, secrecy, sealed: null, verification: 'unsigned', signature: null } as const
  return { ...target, ...state, text, change: signedOnly(edit) }
}

/** Only a signed change can be shared as history. */
const signedOnly = <Change extends ChangeMessage>(change: Change): Change | null => (change.signature ? change : null)

/** A deleted message: its content is gone, its place in the timeline stays. */
export const applyDelete = (target: StoredMessage, change: DeleteMessage, unproven: boolean): StoredMessage => ({
  ...target,
  text: '',
  image: null,
  alt: '',
  replyTo: null,
  deleted: true,
  unproven,
  sealed: null,
  verification: 'unsigned',
  signature: null,
  change: signedOnly(change),
})

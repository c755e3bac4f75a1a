/** From what others emitted to what is stored, with every claim checked that can be. */
import type { RoomCrypto } from '@/crypto/roomCrypto'
import type { DeleteMessage, EditMessage, HistoryRow, TextMessage } from '@/protocol/shapes'
import { isImage } from '@/protocol/shapes'
import type { StoredMessage } from '@/storage/types'

/** A clock may be wrong by so much; what claims to be from later than that is from now. */
const AHEAD_MS = 120_000

export const soundTime = (timestamp: number, now: number): number => (timestamp > now + AHEAD_MS ? now : timestamp)

type Opened = Pick<StoredMessage, 'text' | 'image' | 'alt' | 'secrecy' | 'sealed'>

/** Opens what is sealed as far as the room's keys reach. */
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

function signatureOf(message: TextMessage, text: string, exactTime: boolean): StoredMessage['signature'] {
  // It covers the time as it was said, not as it is kept.
  if (!exactTime) return null
  if (message.sealed && message.cipherSignature) return { text: message.sealed.text, value: message.cipherSignature }
  // The original signs the plain text also where it encrypts.
  return message.signature ? { text, value: message.signature } : null
}

export async function readText(
  room: RoomCrypto,
  roomId: string,
  message: TextMessage,
  now: number,
): Promise<StoredMessage> {
  const content = await contentOf(room, message)
  const timestamp = soundTime(message.timestamp, now)
  const signature = signatureOf(message, content.text, timestamp === message.timestamp)
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
  }
}

/** A row that another member handed on. */
export function readHistory(
  roomId: string,
  row: HistoryRow,
  relayedBy: string,
  encrypted: boolean,
  now: number,
): StoredMessage {
  const { msgId, userId, fromId, from, avatarColor, timestamp, type, text, image, alt, replyTo, edited } = row
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
    timestamp: soundTime(timestamp, now),
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
  }
}

/**
 * Whether an edit or delete comes from the author: `yes` by the person, which the relay vouches for; `session` where an
 * old client says no more than its session; `no` otherwise.
 */
export function authorship(change: EditMessage | DeleteMessage, target: StoredMessage): 'yes' | 'session' | 'no' {
  if (change.userId !== null && target.userId !== null) return change.userId === target.userId ? 'yes' : 'no'
  return change.userId === null && change.fromId === target.sessionId ? 'session' : 'no'
}

/** The message as it is after an edit, or null when the edit cannot be read. */
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
  // The signature was over the text before.
  return { ...target, text, edited: true, unproven, secrecy, sealed: null, verification: 'unsigned', signature: null }
}

/** What is left of a deleted message: its place. */
export const applyDelete = (target: StoredMessage, unproven: boolean): StoredMessage => ({
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
})

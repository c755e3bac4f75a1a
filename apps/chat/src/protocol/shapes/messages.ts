/** The events of a room's `messages` address. */
import { isMsgId, isUserId } from '../addresses'
import { MAX_PAYLOAD_BYTES } from '../codec'
import {
  type Fields,
  MAX_NAME,
  MAX_QUOTE,
  base64,
  color,
  fieldsOf,
  flag,
  id,
  isImage,
  line,
  own,
  text,
  time,
} from './fields'
import { keyMarks } from './keys'

export interface Quote {
  msgId: string
  from: string
  text: string
}

/** An encrypted text: base64 of ciphertext and IV. */
export interface Sealed {
  text: string
  iv: string
}

interface Authored {
  fromId: string
  /** null: edits and deletes of the original app have none. */
  userId: string | null
  timestamp: number
}

export interface TextMessage extends Authored {
  kind: 'message'
  type: 'text' | 'image'
  from: string
  msgId: string
  avatarColor: string
  /** '' while sealed. */
  text: string
  image: string | null
  alt: string
  sealed: Sealed | null
  sealedImage: Sealed | null
  sealedAlt: Sealed | null
  replyTo: Quote | null
  signature: string | null
  /** Signature over the ciphertext, written by this app. */
  cipherSignature: string | null
  keyId: string | null
}

export interface EditMessage extends Authored {
  kind: 'edit'
  targetId: string
  text: string
  sealed: Sealed | null
  /** Over the text or the ciphertext. This app writes it, so that members can share the edit as history. */
  signature: string | null
}

export interface DeleteMessage extends Authored {
  kind: 'delete'
  targetId: string
  moderator: boolean
  signature: string | null
}

export type ChangeMessage = EditMessage | DeleteMessage

export type RoomMessage = TextMessage | EditMessage | DeleteMessage

const SIGNATURE_CHARS = 88

export function sealedPair(fields: Fields, textKey: string, ivKey: string): Sealed | null {
  const ciphertext = base64(fields, textKey)
  const iv = base64(fields, ivKey, 16)
  return ciphertext && iv ? { text: ciphertext, iv } : null
}

function quote(value: unknown): Quote | null {
  const fields = fieldsOf(value)
  const msgId = fields && id(fields, 'msgId', isMsgId)
  if (!fields || !msgId) return null
  return { msgId, from: line(fields, 'from', MAX_NAME), text: text(fields, 'text', MAX_QUOTE) ?? '' }
}

function textMessage(fields: Fields, authored: Authored): TextMessage | null {
  const msgId = id(fields, 'msgId', isMsgId)
  if (!msgId) return null
  const encrypted = flag(fields, 'encrypted')
  const sealed = encrypted ? sealedPair(fields, 'text', 'iv') : null
  const sealedImage = encrypted ? sealedPair(fields, 'encryptedImage', 'imageIv') : null
  if (encrypted && !sealed) return null
  const image = own(fields, 'image')
  return {
    kind: 'message',
    ...authored,
    type: sealedImage || isImage(image) ? 'image' : 'text',
    from: line(fields, 'from', MAX_NAME),
    msgId,
    avatarColor: color(fields, 'avatarColor'),
    text: sealed ? '' : (text(fields, 'text', MAX_PAYLOAD_BYTES) ?? ''),
    image: !sealed && isImage(image) ? image : null,
    alt: sealed ? '' : line(fields, 'alt'),
    sealed,
    sealedImage,
    sealedAlt: sealedImage && sealedPair(fields, 'encryptedAlt', 'altIv'),
    replyTo: quote(own(fields, 'replyTo')),
    signature: base64(fields, 'signature', SIGNATURE_CHARS),
    cipherSignature: base64(fields, 'cipherSignature', SIGNATURE_CHARS),
    keyId: keyMarks(fields).keyId,
  }
}

function editMessage(fields: Fields, authored: Authored): EditMessage | null {
  const targetId = id(fields, 'targetId', isMsgId)
  const encrypted = flag(fields, 'encrypted')
  const sealed = encrypted ? sealedPair(fields, 'text', 'iv') : null
  const clear = text(fields, 'text', MAX_PAYLOAD_BYTES)
  if (!targetId || clear === null || (encrypted && !sealed)) return null
  const signature = base64(fields, sealed ? 'cipherSignature' : 'signature', SIGNATURE_CHARS)
  return { kind: 'edit', ...authored, targetId, text: sealed ? '' : clear, sealed, signature }
}

/**
 * Parses an event of a room's `messages` address. Unknown types are read as text, as in the original app: new kinds of
 * events get addresses of their own.
 */
export function parseMessage(value: unknown): RoomMessage | null {
  const fields = fieldsOf(value)
  const fromId = fields && text(fields, 'fromId', MAX_NAME)
  const timestamp = fields && time(fields, 'timestamp')
  if (!fields || !fromId || timestamp === null || timestamp === undefined) return null
  const authored: Authored = { fromId, userId: id(fields, 'userId', isUserId), timestamp }
  const type = own(fields, 'type')
  if (type === 'edit') return editMessage(fields, authored)
  if (type !== 'delete') return textMessage(fields, authored)
  const targetId = id(fields, 'targetId', isMsgId)
  const signature = base64(fields, 'signature', SIGNATURE_CHARS)
  return targetId ? { kind: 'delete', ...authored, targetId, moderator: flag(fields, 'isModAction'), signature } : null
}

/** An edit or delete as it was emitted, for sharing it as history. */
export function changeFields(change: ChangeMessage): object {
  const { kind, fromId, userId, targetId, timestamp, signature } = change
  const head = { type: kind, fromId, userId, targetId, timestamp }
  if (change.kind === 'delete') return { ...head, signature, ...(change.moderator && { isModAction: true }) }
  const { text, sealed } = change
  if (!sealed) return { ...head, text, signature }
  return { ...head, text: sealed.text, iv: sealed.iv, encrypted: true, cipherSignature: signature }
}

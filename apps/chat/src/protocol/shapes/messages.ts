/** The events of a room's `messages` address. */
import { isDeviceId, isMsgId, isUserId } from '../addresses'
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
import { type FileInfo, fileFields, parseFile } from './files'
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
  /** The device that signed; null: written by the original app. */
  deviceId: string | null
  /** The signature of that device. */
  sig2: string | null
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
  /** A file that the relay keeps. */
  file?: FileInfo
  sealedFile?: Sealed
  replyTo: Quote | null
  /** The original's signature, over the plain text. */
  signature: string | null
  keyId: string | null
}

export interface EditMessage extends Authored {
  kind: 'edit'
  /** The id of the edit itself; null: written by the original app. */
  msgId: string | null
  targetId: string
  text: string
  sealed: Sealed | null
  keyId: string | null
}

export interface DeleteMessage extends Authored {
  kind: 'delete'
  /** The id of the delete itself; null: written by the original app. */
  msgId: string | null
  targetId: string
  moderator: boolean
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
  const file = sealed ? null : parseFile(own(fields, 'file'))
  const sealedFile = sealed && sealedPair(fields, 'encryptedFile', 'fileIv')
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
    ...(file && { file }),
    ...(sealedFile && { sealedFile }),
    replyTo: quote(own(fields, 'replyTo')),
    signature: base64(fields, 'signature', SIGNATURE_CHARS),
    keyId: keyMarks(fields).keyId,
  }
}

function editMessage(fields: Fields, authored: Authored): EditMessage | null {
  const targetId = id(fields, 'targetId', isMsgId)
  const encrypted = flag(fields, 'encrypted')
  const sealed = encrypted ? sealedPair(fields, 'text', 'iv') : null
  const clear = text(fields, 'text', MAX_PAYLOAD_BYTES)
  if (!targetId || clear === null || (encrypted && !sealed)) return null
  const msgId = id(fields, 'msgId', isMsgId)
  return {
    kind: 'edit',
    ...authored,
    msgId,
    targetId,
    text: sealed ? '' : clear,
    sealed,
    keyId: keyMarks(fields).keyId,
  }
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
  const authored: Authored = {
    fromId,
    userId: id(fields, 'userId', isUserId),
    timestamp,
    deviceId: id(fields, 'deviceId', isDeviceId),
    sig2: base64(fields, 'sig2', SIGNATURE_CHARS),
  }
  const type = own(fields, 'type')
  if (type === 'edit') return editMessage(fields, authored)
  if (type !== 'delete') return textMessage(fields, authored)
  const targetId = id(fields, 'targetId', isMsgId)
  if (!targetId) return null
  const msgId = id(fields, 'msgId', isMsgId)
  return { kind: 'delete', ...authored, msgId, targetId, moderator: flag(fields, 'isModAction') }
}

/**
 * What the relay says of who deletes: the room's creator, or an admin. The chat's policy sets this field itself, and
 * removes one that the sender wrote. null: neither.
 */
export function stampedRole(value: unknown): 'creator' | 'admin' | null {
  const fields = fieldsOf(value)
  const role = fields && own(fields, 'role')
  return role === 'creator' || role === 'admin' ? role : null
}

/** The fields of an event as they are emitted, for handing it on: parsed again, they give the same event. */
export function wireOf(event: RoomMessage): object {
  const { kind, fromId, userId, timestamp, deviceId, sig2, msgId } = event
  const proof = { ...(deviceId && { deviceId }), ...(sig2 && { sig2 }) }
  const head = { kind, fromId, ...(userId && { userId }), ...(msgId && { msgId }), timestamp, ...proof }
  if (event.kind === 'message') return { ...head, ...messageFields(event) }
  const { targetId } = event
  if (event.kind === 'delete') return { ...head, type: kind, targetId, ...(event.moderator && { isModAction: true }) }
  return { ...head, type: kind, targetId, ...(event.sealed ? closedFields(event) : { text: event.text }) }
}

const pair = (sealed: Sealed | null, textKey: string, ivKey: string): object =>
  sealed ? { [textKey]: sealed.text, [ivKey]: sealed.iv } : {}

const closedFields = ({ sealed, keyId }: Pick<EditMessage, 'sealed' | 'keyId'>): object => ({
  ...pair(sealed, 'text', 'iv'),
  encrypted: true,
  ...(keyId && { keyId }),
})

function messageFields(event: TextMessage): object {
  const { type, from, avatarColor, text: clear, image, alt, sealed, sealedImage, sealedAlt, replyTo, signature } = event
  const pictures = { ...pair(sealedImage, 'encryptedImage', 'imageIv'), ...pair(sealedAlt, 'encryptedAlt', 'altIv') }
  const { file, sealedFile } = event
  const body = sealed
    ? { ...closedFields(event), ...pictures, ...pair(sealedFile ?? null, 'encryptedFile', 'fileIv') }
    : { text: clear, ...(image !== null && { image }), ...(alt && { alt }), ...(file && { file: fileFields(file) }) }
  return { type, from, avatarColor, ...body, ...(replyTo && { replyTo }), ...(signature && { signature }) }
}

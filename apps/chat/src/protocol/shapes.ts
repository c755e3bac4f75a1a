/**
 * Every value of the chat's conventions, read field by field. What others wrote is never spread into our objects: a
 * parser takes the fields it knows, of the types it knows, and gives null when a necessary one is missing.
 */
import { isMsgId, isRoomId, isUserId } from './addresses'
import { MAX_PAYLOAD_BYTES, type Value } from './codec'

/** The longest name shown; the interface lets one type 32. */
const MAX_NAME = 64
const MAX_LINE = 512
const MAX_TIME_MS = 8.64e15
export const DEFAULT_COLOR = '#6b7280'
/** Of a quoted text, as the original cuts it. */
export const MAX_QUOTE = 100

export type Status = 'online' | 'away' | 'dnd' | 'invisible'
export type RoomType = 'text' | 'video' | 'combo' | 'dm'

type Fields = { readonly [key: string]: unknown }

/** A decoded map. `__proto__` as a key replaces a decoded object's prototype, so only own properties count. */
function fieldsOf(value: unknown): Fields | null {
  if (typeof value !== 'object' || value === null || Array.isArray(value) || value instanceof Uint8Array) return null
  return Object.fromEntries(Object.entries(value))
}

const own = (fields: Fields, key: string): unknown => (Object.hasOwn(fields, key) ? fields[key] : undefined)

function text(fields: Fields, key: string, max: number): string | null {
  const value = own(fields, key)
  return typeof value === 'string' ? value.slice(0, max) : null
}

/** One line without what turns text around or hides in it. */
function line(fields: Fields, key: string, max = MAX_LINE): string {
  const raw = text(fields, key, max) ?? ''
  return raw.replace(/[\p{Cc}\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff]/gu, '').trim()
}

function time(fields: Fields, key: string): number | null {
  const value = own(fields, key)
  return typeof value === 'number' && value >= 0 && value <= MAX_TIME_MS ? Math.trunc(value) : null
}

const flag = (fields: Fields, key: string): boolean => own(fields, key) === true

function id(fields: Fields, key: string, test: (text: string) => boolean): string | null {
  const value = own(fields, key)
  return typeof value === 'string' && test(value) ? value : null
}

export const isColor = (value: unknown): value is string => typeof value === 'string' && /^#[0-9a-f]{6}$/i.test(value)

function color(fields: Fields, key: string): string {
  const value = own(fields, key)
  return isColor(value) ? value.toLowerCase() : DEFAULT_COLOR
}

/** SVG is left out: it is a document, not a picture. */
const IMAGE = /^data:image\/(?:png|jpeg|gif|webp|avif);base64,[A-Za-z0-9+/]+={0,2}$/

export const isImage = (value: unknown): value is string =>
  typeof value === 'string' && value.length <= MAX_PAYLOAD_BYTES && IMAGE.test(value)

const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/

function base64(fields: Fields, key: string, max = MAX_PAYLOAD_BYTES): string | null {
  const value = own(fields, key)
  return typeof value === 'string' && value !== '' && value.length <= max && BASE64.test(value) ? value : null
}

const STATUSES: readonly string[] = ['online', 'away', 'dnd', 'invisible']
const ROOM_TYPES: readonly string[] = ['text', 'video', 'combo', 'dm']

function status(fields: Fields): Status {
  const value = own(fields, 'status')
  return typeof value === 'string' && STATUSES.includes(value) ? (value as Status) : 'online'
}

function roomType(fields: Fields): RoomType {
  const value = own(fields, 'type')
  return typeof value === 'string' && ROOM_TYPES.includes(value) ? (value as RoomType) : 'text'
}

/** A public key of the curve P-256, with exactly the fields that all clients write. */
export interface PublicJwk {
  kty: 'EC'
  crv: 'P-256'
  x: string
  y: string
  ext: true
  key_ops: string[]
}

const COORDINATE = /^[A-Za-z0-9_-]{43}$/

function publicJwk(value: unknown, keyOps: readonly string[]): PublicJwk | null {
  const fields = fieldsOf(value)
  if (!fields || own(fields, 'kty') !== 'EC' || own(fields, 'crv') !== 'P-256') return null
  const x = own(fields, 'x')
  const y = own(fields, 'y')
  if (typeof x !== 'string' || typeof y !== 'string' || !COORDINATE.test(x) || !COORDINATE.test(y)) return null
  return { kty: 'EC', crv: 'P-256', x, y, ext: true, key_ops: [...keyOps] }
}

export interface Profile {
  userId: string | null
  name: string
  avatarColor: string
  status: Status
}

export function parseProfile(value: unknown): Profile | null {
  const fields = fieldsOf(value)
  if (!fields) return null
  return {
    userId: id(fields, 'userId', isUserId),
    name: line(fields, 'name', MAX_NAME),
    avatarColor: color(fields, 'avatarColor'),
    status: status(fields),
  }
}

export interface SigningKey {
  publicKey: PublicJwk
}

export function parseSigningKey(value: unknown): SigningKey | null {
  const fields = fieldsOf(value)
  const publicKey = fields && publicJwk(own(fields, 'publicKey'), ['verify'])
  return publicKey ? { publicKey } : null
}

export interface FriendEntry {
  name: string
  avatarColor: string
  addedAt: number
}

export function parseFriend(value: unknown): FriendEntry | null {
  const fields = fieldsOf(value)
  if (!fields) return null
  return {
    name: line(fields, 'name', MAX_NAME),
    avatarColor: color(fields, 'avatarColor'),
    addedAt: time(fields, 'addedAt') ?? 0,
  }
}

export interface InboxEntry {
  fromId: string
  fromName: string
  roomId: string
  timestamp: number
}

export function parseInboxEntry(value: unknown): InboxEntry | null {
  const fields = fieldsOf(value)
  const fromId = fields && id(fields, 'fromId', isUserId)
  const roomId = fields && id(fields, 'roomId', isRoomId)
  if (!fields || !fromId || !roomId) return null
  return { fromId, fromName: line(fields, 'fromName', MAX_NAME), roomId, timestamp: time(fields, 'timestamp') ?? 0 }
}

export interface RequestEntry {
  accepted: boolean
  fromId: string
  fromName: string
  fromColor: string
  timestamp: number
}

export function parseRequest(value: unknown): RequestEntry | null {
  const fields = fieldsOf(value)
  const fromId = fields && id(fields, 'fromId', isUserId)
  if (!fields || !fromId) return null
  return {
    accepted: own(fields, 'type') === 'accepted',
    fromId,
    fromName: line(fields, 'fromName', MAX_NAME),
    fromColor: color(fields, 'fromColor'),
    timestamp: time(fields, 'timestamp') ?? 0,
  }
}

export interface RegistryEntry {
  name: string
  type: RoomType
  isPublic: boolean
  creatorId: string | null
  creatorName: string
  createdAt: number | null
  hasPassword: boolean
  namespace: string | null
}

export function parseRegistryEntry(value: unknown): RegistryEntry | null {
  const fields = fieldsOf(value)
  const name = fields && line(fields, 'name', MAX_NAME)
  if (!fields || !name) return null
  return {
    name,
    type: roomType(fields),
    isPublic: flag(fields, 'isPublic'),
    creatorId: id(fields, 'creatorId', isUserId),
    creatorName: line(fields, 'creatorName', MAX_NAME),
    createdAt: time(fields, 'createdAt'),
    hasPassword: flag(fields, 'hasPassword'),
    namespace: text(fields, 'namespace', MAX_LINE),
  }
}

export interface GroupMeta {
  description: string
  icon: string
  isPublic: boolean
  createdBy: string | null
  creatorName: string
  createdAt: number | null
  hasPassword: boolean
}

export function parseGroupMeta(value: unknown): GroupMeta | null {
  const fields = fieldsOf(value)
  if (!fields) return null
  return {
    description: line(fields, 'description'),
    // Two characters as one counts them, not as UTF-16 does.
    icon: [...line(fields, 'icon', 32)].slice(0, 2).join(''),
    isPublic: flag(fields, 'isPublic'),
    createdBy: id(fields, 'createdBy', isUserId),
    creatorName: line(fields, 'creatorName', MAX_NAME),
    createdAt: time(fields, 'createdAt'),
    hasPassword: flag(fields, 'hasPassword'),
  }
}

export interface RoomMeta {
  name: string
  type: RoomType
  description: string
  isPublic: boolean
  encrypted: boolean
  creatorId: string | null
  creatorName: string
  createdAt: number | null
  /** The relay shows the salt to everybody and the hash to the creator alone. */
  passwordSalt: string | null
  passwordHash: string | null
  namespace: string | null
  /** Names by user id, exactly two; null: no direct message. */
  dmUsers: Readonly<Record<string, string>> | null
}

const MAX_SALT = 64

function dmUsers(value: unknown): Readonly<Record<string, string>> | null {
  const fields = fieldsOf(value)
  const ids = fields ? Object.keys(fields) : []
  if (!fields || ids.length !== 2 || !ids.every(isUserId)) return null
  return Object.fromEntries(ids.map((userId) => [userId, line(fields, userId, MAX_NAME)]))
}

export function parseRoomMeta(value: unknown): RoomMeta | null {
  const fields = fieldsOf(value)
  if (!fields) return null
  return {
    name: line(fields, 'name', MAX_NAME),
    type: roomType(fields),
    description: line(fields, 'description'),
    isPublic: flag(fields, 'isPublic'),
    encrypted: flag(fields, 'encrypted'),
    creatorId: id(fields, 'creatorId', isUserId),
    creatorName: line(fields, 'creatorName', MAX_NAME),
    createdAt: time(fields, 'createdAt'),
    passwordSalt: base64(fields, 'passwordSalt', MAX_SALT),
    passwordHash: base64(fields, 'passwordHash', MAX_SALT),
    namespace: text(fields, 'namespace', MAX_LINE),
    dmUsers: dmUsers(own(fields, 'dmUsers')),
  }
}

export interface Presence {
  name: string
  avatarColor: string
  joinedAt: number
  status: Status
}

/** Presence and membership: who, since when, and, from clients of ours, how. */
export function parsePresence(value: unknown): Presence | null {
  const fields = fieldsOf(value)
  if (!fields) return null
  return {
    name: line(fields, 'name', MAX_NAME),
    avatarColor: color(fields, 'avatarColor'),
    joinedAt: time(fields, 'joinedAt') ?? 0,
    status: status(fields),
  }
}

/** The name of who types; null: stopped (clients write null or false). */
export function parseTyping(value: unknown): { name: string } | null {
  const fields = fieldsOf(value)
  return fields && { name: line(fields, 'name', MAX_NAME) }
}

export type ReactionValue = { kind: 'leaf' } | { kind: 'list'; sessions: readonly string[] }

const MAX_LISTED = 1000

/** A leaf of ours, or the original's list of sessions. */
export function parseReaction(value: unknown): ReactionValue | null {
  const fields = fieldsOf(value)
  if (!fields) return null
  const users = own(fields, 'users')
  if (!Array.isArray(users)) return { kind: 'leaf' }
  const sessions = users.slice(0, MAX_LISTED).filter((session): session is string => typeof session === 'string')
  return { kind: 'list', sessions: [...new Set(sessions)] }
}

export function parseAdmin(value: unknown): { promotedBy: string | null } | null {
  const fields = fieldsOf(value)
  if (!fields || own(fields, 'role') !== 'admin') return null
  return { promotedBy: id(fields, 'promotedBy', isUserId) }
}

export interface BanEntry {
  bannedBy: string | null
  name: string
  timestamp: number
}

export function parseBan(value: unknown): BanEntry | null {
  const fields = fieldsOf(value)
  if (!fields) return null
  return {
    bannedBy: id(fields, 'bannedBy', isUserId),
    name: line(fields, 'name', MAX_NAME),
    timestamp: time(fields, 'timestamp') ?? 0,
  }
}

export interface Receipt {
  msgId: string
  timestamp: number
}

export function parseReceipt(value: unknown): Receipt | null {
  const fields = fieldsOf(value)
  const msgId = fields && id(fields, 'msgId', isMsgId)
  const timestamp = fields && time(fields, 'timestamp')
  return msgId && timestamp !== null && timestamp !== undefined ? { msgId, timestamp } : null
}

/** A public key for the exchange, of one person in one room. */
export function parsePubkey(value: unknown): PublicJwk | null {
  const fields = fieldsOf(value)
  return fields && publicJwk(own(fields, 'publicKey'), [])
}

/** Whether there is a proof record. Its hash is the relay's business and shown to nobody but the creator. */
export const parseProof = (value: unknown): boolean => fieldsOf(value) !== null

export interface Keyex {
  fromId: string
  encryptedKey: string
  iv: string
  senderPublicKey: PublicJwk
  /** Of clients of ours: which key it is and how many came before it. */
  epoch: number | null
  keyId: string | null
}

const KEY_ID = /^[0-9a-f]{8}$/
const MAX_EPOCH = 1_000_000

function keyMarks(fields: Fields): { epoch: number | null; keyId: string | null } {
  const epoch = own(fields, 'epoch')
  const sound = typeof epoch === 'number' && Number.isInteger(epoch) && epoch >= 0 && epoch <= MAX_EPOCH
  return { epoch: sound ? epoch : null, keyId: id(fields, 'keyId', (text) => KEY_ID.test(text)) }
}

export function parseKeyex(value: unknown): Keyex | null {
  const fields = fieldsOf(value)
  if (!fields) return null
  const fromId = id(fields, 'fromId', isUserId)
  const encryptedKey = base64(fields, 'encryptedKey', 4096)
  const iv = base64(fields, 'iv', 16)
  const senderPublicKey = publicJwk(own(fields, 'senderPublicKey'), [])
  if (!fromId || !encryptedKey || !iv || !senderPublicKey) return null
  return { fromId, encryptedKey, iv, senderPublicKey, ...keyMarks(fields) }
}

export interface Quote {
  msgId: string
  from: string
  text: string
}

/** What came encrypted: base64 of the ciphertext and its iv. */
export interface Sealed {
  text: string
  iv: string
}

interface Authored {
  fromId: string
  /** null: the original's edits and deletes do not say. */
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
  /** Over the ciphertext, from clients of ours. */
  cipherSignature: string | null
  keyId: string | null
}

export interface EditMessage extends Authored {
  kind: 'edit'
  targetId: string
  text: string
  sealed: Sealed | null
}

export interface DeleteMessage extends Authored {
  kind: 'delete'
  targetId: string
  moderator: boolean
}

export type RoomMessage = TextMessage | EditMessage | DeleteMessage

const SIGNATURE_CHARS = 88

function sealedPair(fields: Fields, textKey: string, ivKey: string): Sealed | null {
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
  return { kind: 'edit', ...authored, targetId, text: sealed ? '' : clear, sealed }
}

/**
 * What was emitted on a room's `messages`. Unknown types are read as text, as the original does: no kind of event is
 * added there, so an unknown type is a text with a decoration.
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
  return targetId ? { kind: 'delete', ...authored, targetId, moderator: flag(fields, 'isModAction') } : null
}

export type HistoryCall =
  /** `sinceMs`: what is older is there already. */
  | { type: 'request'; userId: string; requestId: string; limit: number; sinceMs: number }
  | { type: 'offer'; userId: string; requestId: string; count: number }

export const MAX_HISTORY = 200

/** Said to all in a room: a newcomer asks, who can help offers. */
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

/** Said to one: the newcomer takes an offer, the helper sends the parts. */
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

/** A row of handed-on or imported history. */
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

/** Narrows what a parser of ours made to what the encoder takes. */
export const asValue = (value: object): Value => value as Value

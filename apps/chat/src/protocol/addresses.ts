/**
 * Builds and parses every address of the chat's conventions. Ids are validated: an id from a link, a file or a message
 * can never become a pattern or another address.
 */

const USER_ID = /^[A-Za-z0-9_-]{1,64}$/
const ROOM_ID = /^(?:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|dm-[A-Za-z0-9_-]{1,80})$/
const MSG_ID = /^[A-Za-z0-9_-]{1,80}$/
/** The relay's id of a connection. */
const SESSION_ID = /^[A-Za-z0-9_-]{1,64}$/
const DEVICE_ID = /^[0-9a-f]{16}$/
/** A link between two devices, `-` and the part of it that the device with the keys writes. */
const LINK_KEY = /^[0-9a-f]{16}(?:-(?:answer|[0-9]{1,2}))?$/
/** Keys of what the devices of a user share: a room id, or a name. */
const SYNC_KEY = /^[A-Za-z0-9_-]{1,80}$/
/** The parts of a backup are in one of several places, each for this many; place 0 is the head. */
export const MAX_BACKUP_PARTS = 32
export const BACKUP_PLACES = 1 + 32 * MAX_BACKUP_PARTS
const PATH_SEGMENT = /^[A-Za-z0-9_-]{1,64}$/
/** The segment of a group's password record: no group or room may have this name. */
const RESERVED_SEGMENT = '__auth'
const MAX_PATH_SEGMENTS = 8
const MAX_EMOJI_UNITS = 32

export const isUserId = (text: string): boolean => USER_ID.test(text)
export const isRoomId = (text: string): boolean => ROOM_ID.test(text)
export const isSessionId = (text: string): boolean => SESSION_ID.test(text)
export const isDeviceId = (text: string): boolean => DEVICE_ID.test(text)
export const isSyncKey = (text: string): boolean => SYNC_KEY.test(text)
export const isLinkKey = (text: string): boolean => LINK_KEY.test(text)
export const isMsgId = (text: string): boolean => MSG_ID.test(text)
export const isGroupPath = (path: string): boolean => {
  const segments = path.split('/')
  return (
    segments.length <= MAX_PATH_SEGMENTS &&
    segments.every((segment) => PATH_SEGMENT.test(segment) && segment !== RESERVED_SEGMENT)
  )
}

/** An emoji is a segment of an address, which must not contain `*` or `/` (`*️⃣` contains one). */
export const isEmoji = (text: string): boolean =>
  text.length > 0 && text.length <= MAX_EMOJI_UNITS && /^[^\s/*\p{Cc}]+$/u.test(text) && /\P{ASCII}/u.test(text)

/** An id, path or emoji that is not valid in an address. */
export class AddressError extends Error {
  override readonly name = 'AddressError'
}

function checked(test: (text: string) => boolean, what: string): (text: string) => string {
  return (text) => {
    if (!test(text)) throw new AddressError(`not a ${what}: ${JSON.stringify(text.slice(0, 80))}`)
    return text
  }
}

const user = checked(isUserId, 'user id')
const room = checked(isRoomId, 'room id')
const msg = checked(isMsgId, 'message id')
const session = checked(isSessionId, 'session id')
const device = checked(isDeviceId, 'device id')
const syncKey = checked(isSyncKey, 'key')
const linkKey = checked(isLinkKey, 'link')
const backupPart = checked((text) => /^[0-9]{1,4}$/.test(text) && Number(text) < BACKUP_PLACES, 'part of a backup')
const group = checked(isGroupPath, 'group path')
const emoji = checked(isEmoji, 'emoji')

const inRoom = (rid: string, rest: string): string => `/chat/room/${room(rid)}/${rest}`

/** Addresses to read and write. They throw {@link AddressError} for an invalid id. */
export const address = {
  profile: (uid: string) => `/chat/user/${user(uid)}/profile`,
  signingKey: (uid: string) => `/chat/user/${user(uid)}/signingKey`,
  account: (uid: string) => `/chat/user/${user(uid)}/account`,
  device: (uid: string, did: string) => `/chat/user/${user(uid)}/devices/${device(did)}`,
  sync: (uid: string, key: string) => `/chat/user/${user(uid)}/sync/${syncKey(key)}`,
  /** `key`: a link's id, or the id with what the other device writes. */
  link: (uid: string, key: string) => `/chat/user/${user(uid)}/link/${linkKey(key)}`,
  /** 0 is the head, which says where the parts are. */
  backup: (uid: string, part: number) => `/chat/user/${user(uid)}/backup/${backupPart(String(part))}`,
  /** Set while a page of this session is on screen, so that no push message tells what is seen anyway. */
  visible: (uid: string, sid: string) => `/chat/user/${user(uid)}/visible/${session(sid)}`,
  friend: (uid: string, friendId: string) => `/chat/user/${user(uid)}/friends/${user(friendId)}`,
  /** Whoever is blocked, known to this user only. */
  blocked: (uid: string, blockedId: string) => `/chat/user/${user(uid)}/blocked/${user(blockedId)}`,
  dmInbox: (target: string, rid: string) => `/chat/user/${user(target)}/dms/${room(rid)}`,
  request: (target: string, from: string) => `/chat/requests/${user(target)}/${user(from)}`,
  /** Written once, by who reports; read by administrators. */
  report: (id: string) => `/chat/reports/${msg(id)}`,
  registryRoom: (rid: string) => `/chat/registry/rooms/${room(rid)}`,
  groupRoom: (path: string, rid: string) => `/chat/registry/ns/${group(path)}/${room(rid)}`,
  groupMeta: (path: string) => `/chat/registry/ns-meta/${group(path)}`,
  groupAuth: (path: string) => `/chat/registry/ns-meta/${group(path)}/${RESERVED_SEGMENT}`,
  meta: (rid: string) => inRoom(rid, 'meta'),
  messages: (rid: string) => inRoom(rid, 'messages'),
  presence: (rid: string, uid: string) => inRoom(rid, `presence/${user(uid)}`),
  typing: (rid: string, uid: string) => inRoom(rid, `typing/${user(uid)}`),
  /** The original's list of sessions, which this app reads but never writes. */
  reactionList: (rid: string, msgId: string, mark: string) => inRoom(rid, `reactions/${msg(msgId)}/${emoji(mark)}`),
  reaction: (rid: string, msgId: string, mark: string, uid: string) =>
    inRoom(rid, `reactions/${msg(msgId)}/${emoji(mark)}/${user(uid)}`),
  admin: (rid: string, uid: string) => inRoom(rid, `admin/${user(uid)}`),
  ban: (rid: string, uid: string) => inRoom(rid, `bans/${user(uid)}`),
  pubkey: (rid: string, uid: string) => inRoom(rid, `crypto/pubkey/${user(uid)}`),
  proof: (rid: string, uid: string) => inRoom(rid, `crypto/proof/${user(uid)}`),
  keyex: (rid: string, peer: string) => inRoom(rid, `crypto/keyex/${user(peer)}`),
  receipt: (rid: string, uid: string) => inRoom(rid, `receipts/${user(uid)}`),
  member: (rid: string, uid: string) => inRoom(rid, `members/${user(uid)}`),
  caller: (rid: string, sid: string) => inRoom(rid, `video/presence/${session(sid)}`),
  callSignal: (rid: string, sid: string) => inRoom(rid, `video/signal/${session(sid)}`),
  historyCall: (rid: string) => inRoom(rid, 'history/call'),
  historyFor: (rid: string, uid: string) => inRoom(rid, `history/to/${user(uid)}`),
} as const

/** Patterns to subscribe to. */
export const pattern = {
  friends: (uid: string) => `/chat/user/${user(uid)}/friends/*`,
  blocked: (uid: string) => `/chat/user/${user(uid)}/blocked/*`,
  devices: (uid: string) => `/chat/user/${user(uid)}/devices/*`,
  sync: (uid: string) => `/chat/user/${user(uid)}/sync/*`,
  links: (uid: string) => `/chat/user/${user(uid)}/link/*`,
  dmInbox: (uid: string) => `/chat/user/${user(uid)}/dms/*`,
  requests: (uid: string) => `/chat/requests/${user(uid)}/*`,
  registryRooms: () => '/chat/registry/rooms/*',
  groupRooms: (path: string) => `/chat/registry/ns/${group(path)}/**`,
  groupMetas: () => '/chat/registry/ns-meta/**',
  /** meta and messages. */
  roomTop: (rid: string) => inRoom(rid, '*'),
  /** presence, typing, admin, bans, receipts, members, history/call. */
  roomPeople: (rid: string) => inRoom(rid, '*/*'),
  /** Public keys, proofs, and the keys that are sent to this user. */
  roomKeys: (rid: string) => inRoom(rid, 'crypto/*/*'),
  /** Who is in the call of a room. */
  callers: (rid: string) => inRoom(rid, 'video/presence/*'),
  /** Who is present in a room. */
  presences: (rid: string) => inRoom(rid, 'presence/*'),
  /** The reactions in all rooms: the relay shows those of the rooms that one is inside of. */
  reactions: () => '/chat/room/*/reactions/**',
  /**
   * What has to be known of the rooms that have no subscriptions of their own. Each of these is shown only to those who
   * are inside, so that the relay narrows it to their rooms; of `meta` it shows those of public rooms, too.
   */
  everyRoom: (uid: string) => [
    ...['meta', 'messages', 'members/*', 'crypto/*/*', 'bans/*', `presence/${user(uid)}`].map(
      (rest) => `/chat/room/*/${rest}`,
    ),
    // Who is there in direct messages, which have two members: in all rooms this would be a flood.
    '/chat/room/dm-*/presence/*',
  ],
  /** The history that is sent to a user, in all rooms. */
  historyFor: (uid: string) => `/chat/room/*/history/to/${user(uid)}`,
} as const

export type Place =
  | { kind: 'profile' | 'signingKey' | 'account'; userId: string }
  | { kind: 'device'; userId: string; deviceId: string }
  | { kind: 'sync' | 'link'; userId: string; key: string }
  | { kind: 'friend'; userId: string; friendId: string }
  | { kind: 'blocked'; userId: string; blockedId: string }
  | { kind: 'dmInbox'; userId: string; roomId: string }
  | { kind: 'request'; targetId: string; fromId: string }
  | { kind: 'registryRoom'; roomId: string }
  | { kind: 'groupRoom'; path: string; roomId: string }
  | { kind: 'groupMeta' | 'groupAuth'; path: string }
  | { kind: 'meta' | 'messages' | 'historyCall'; roomId: string }
  | { kind: RoomUserKind; roomId: string; userId: string }
  | { kind: 'caller' | 'callSignal'; roomId: string; sessionId: string }
  | { kind: 'reaction'; roomId: string; msgId: string; emoji: string; userId: string | null }

export type RoomUserKind =
  'presence' | 'typing' | 'admin' | 'ban' | 'receipt' | 'member' | 'pubkey' | 'proof' | 'keyex' | 'historyFor'

const BY_USER: ReadonlyMap<string, RoomUserKind> = new Map([
  ['presence', 'presence'],
  ['typing', 'typing'],
  ['admin', 'admin'],
  ['bans', 'ban'],
  ['receipts', 'receipt'],
  ['members', 'member'],
  ['crypto/pubkey', 'pubkey'],
  ['crypto/proof', 'proof'],
  ['crypto/keyex', 'keyex'],
  ['history/to', 'historyFor'],
])

function parseRoomPlace(roomId: string, rest: readonly string[]): Place | null {
  if (!isRoomId(roomId)) return null
  const [first, second, third, fourth] = rest
  if (rest.length === 1 && (first === 'meta' || first === 'messages')) return { kind: first, roomId }
  if (first === 'history' && second === 'call' && rest.length === 2) return { kind: 'historyCall', roomId }
  if (first === 'reactions' && second !== undefined && third !== undefined && rest.length <= 4) {
    const userId = fourth ?? null
    if (!isMsgId(second) || !isEmoji(third) || (userId !== null && !isUserId(userId))) return null
    return { kind: 'reaction', roomId, msgId: second, emoji: third, userId }
  }
  if (first === 'video' && third !== undefined && rest.length === 3) {
    const kind = second === 'presence' ? 'caller' : second === 'signal' ? 'callSignal' : null
    return kind && isSessionId(third) ? { kind, roomId, sessionId: third } : null
  }
  const userId = rest.at(-1) ?? ''
  const kind = BY_USER.get(rest.slice(0, -1).join('/'))
  return kind && isUserId(userId) ? { kind, roomId, userId } : null
}

function parseUserPlace(userId: string, rest: readonly string[]): Place | null {
  if (!isUserId(userId)) return null
  const [first, second] = rest
  const single = first === 'profile' || first === 'signingKey' || first === 'account'
  if (rest.length === 1 && single) return { kind: first, userId }
  if (rest.length !== 2 || second === undefined) return null
  if (first === 'devices' && isDeviceId(second)) return { kind: 'device', userId, deviceId: second }
  if (first === 'sync' && isSyncKey(second)) return { kind: 'sync', userId, key: second }
  if (first === 'link' && isLinkKey(second)) return { kind: 'link', userId, key: second }
  if (first === 'friends' && isUserId(second)) return { kind: 'friend', userId, friendId: second }
  if (first === 'blocked' && isUserId(second)) return { kind: 'blocked', userId, blockedId: second }
  if (first === 'dms' && isRoomId(second)) return { kind: 'dmInbox', userId, roomId: second }
  return null
}

function parseRegistryPlace(shelf: string, rest: readonly string[]): Place | null {
  const last = rest.at(-1) ?? ''
  const path = rest.slice(0, -1).join('/')
  if (shelf === 'rooms') return rest.length === 1 && isRoomId(last) ? { kind: 'registryRoom', roomId: last } : null
  if (shelf === 'ns') return isRoomId(last) && isGroupPath(path) ? { kind: 'groupRoom', path, roomId: last } : null
  if (shelf !== 'ns-meta') return null
  if (last === RESERVED_SEGMENT) return isGroupPath(path) ? { kind: 'groupAuth', path } : null
  const whole = rest.join('/')
  return isGroupPath(whole) ? { kind: 'groupMeta', path: whole } : null
}

/** Parses an address from the relay; null: not an address of the chat. */
export function parseAddress(text: string): Place | null {
  const [empty, app, area, id, ...rest] = text.split('/')
  if (empty !== '' || app !== 'chat' || id === undefined) return null
  if (area === 'room') return parseRoomPlace(id, rest)
  if (area === 'user') return parseUserPlace(id, rest)
  if (area === 'registry') return parseRegistryPlace(id, rest)
  const [fromId] = rest
  if (area !== 'requests' || rest.length !== 1 || fromId === undefined) return null
  return isUserId(id) && isUserId(fromId) ? { kind: 'request', targetId: id, fromId } : null
}

/**
 * The canonical form of a group path as typed: lower case, `-` for spaces, no leading, trailing or repeated slashes.
 * null: not a valid path.
 */
export function parseGroupPath(text: string): string | null {
  const path = text
    .trim()
    .toLowerCase()
    .split('/')
    .map((segment) => segment.trim().replace(/\s+/g, '-'))
    .filter((segment) => segment !== '')
    .join('/')
  return isGroupPath(path) ? path : null
}

/** The room id in an invitation, which is a link with `?join=` or the id itself; null: not an invitation. */
export function parseInvitation(text: string): string | null {
  const trimmed = text.trim()
  if (isRoomId(trimmed)) return trimmed
  if (!URL.canParse(trimmed)) return null
  const join = new URL(trimmed).searchParams.get('join') ?? ''
  return isRoomId(join) ? join : null
}

/** What a QR code for linking a device adds to the chat's URL: behind the `#`, which browsers send to nobody. */
export const linkFragment = (linkId: string, secret: string): string => `#link-${linkId}-${secret}`

/** The link and the secret in the fragment of a URL; null: it is another one. */
export function parseLinkFragment(hash: string): { id: string; secret: string } | null {
  const [, id, secret] = /^#link-([0-9a-f]{16})-([0-9a-f]{32})$/.exec(hash) ?? []
  return id !== undefined && secret !== undefined ? { id, secret } : null
}

/** The room id of a direct message, as in the original app: it contains the first 8 characters of either user id. */
export function directMessageId(one: string, other: string): string {
  const [smaller, larger] = [user(one), user(other)].sort() as [string, string]
  return `dm-${smaller.slice(0, 8)}-${larger.slice(0, 8)}`
}

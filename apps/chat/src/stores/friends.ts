import { defineStore } from 'pinia'
import { computed, shallowReactive } from 'vue'
import { address, directMessageId, isUserId, parseAddress, pattern } from '@/protocol/addresses'
import { Failure } from '@/protocol/errors'
import { asValue, MAX_REQUEST, parseFriend, parseRequest, parseRoomMeta, type RequestEntry } from '@/protocol/shapes'
import type { Update } from '@/protocol/connection'
import { useBlocksStore } from './blocks'
import { useMembersStore } from './members'
import { useMessagesStore } from './messages'
import { useNotificationsStore } from './notifications'
import { useRoomsStore } from './rooms'
import { useRuntime } from './runtime'
import type { Friend, FriendRequest, RoomId, UserId } from './types'

interface StoredFriend {
  name: string
  color: string
  addedAt: number
}

/** Requests that were there before share one notice, this long after subscribing. */
const BACKLOG_MS = 1_500

export const useFriendsStore = defineStore('friends', () => {
  const runtime = useRuntime()
  const rooms = useRoomsStore()
  const members = useMembersStore()
  const messages = useMessagesStore()
  const blocks = useBlocksStore()
  const notifications = useNotificationsStore()
  const { clock, newId } = runtime.platform
  const known = shallowReactive(new Map<UserId, StoredFriend>())
  const requests = shallowReactive(new Map<UserId, RequestEntry>())
  /** By user: the message with which a conversation was asked for; '' for a friendship. */
  const asked = shallowReactive(new Map<UserId, string>())
  /** Resolves when what was asked for before a reload is known. */
  let askedLoaded: Promise<void> = Promise.resolve()
  /** Who had asked before the subscription. */
  const older = new Set<string>()

  const friends = computed(() =>
    [...known]
      .map(([userId, { name, color, addedAt }]): Friend => {
        return { userId, name, color, addedAt, online: members.isPresentAnywhere(userId) }
      })
      .sort((one, other) => one.name.localeCompare(other.name)),
  )
  const incoming = computed(() =>
    [...requests.values()]
      .filter(({ fromId }) => !blocks.isBlocked(fromId))
      .map(({ fromId, fromName, fromColor, text, timestamp }): FriendRequest => {
        return { userId: fromId, name: fromName, color: fromColor, text, timestamp }
      })
      .sort((one, other) => other.timestamp - one.timestamp),
  )

  const me = (): UserId => runtime.self.userId

  function writeFriend(userId: UserId, name: string, color: string): Promise<void> {
    const value = asValue({ name, avatarColor: color, addedAt: clock.now() })
    return runtime.connection.set(address.friend(me(), userId), value, { durable: true })
  }

  function clearRequest(from: UserId): Promise<void> {
    return runtime.connection.set(address.request(me(), from), null, { durable: true })
  }

  // --- receiving ---

  function hearFriend({ address: from, value }: Update): void {
    const place = parseAddress(from)
    if (place?.kind !== 'friend') return
    const friend = parseFriend(value)
    if (!friend) {
      known.delete(place.friendId)
      return
    }
    known.set(place.friendId, { name: friend.name, color: friend.avatarColor, addedAt: friend.addedAt })
    for (const room of rooms.directMessages)
      if (room.peerId === place.friendId && friend.name) rooms.keep(room.id, { peerName: friend.name })
    asked.delete(place.friendId)
  }

  function hearRequest({ address: from, value, kind }: Update): void {
    const place = parseAddress(from)
    if (place?.kind !== 'request') return
    const request = parseRequest(value)
    // Ignore a request whose `fromId` differs from the id in its address.
    if (!request || request.fromId !== place.fromId) {
      requests.delete(place.fromId)
      return
    }
    if (blocks.isBlocked(request.fromId)) requests.set(request.fromId, request)
    else if (request.accepted) takeAcceptance(request).catch(() => undefined)
    else if (known.has(request.fromId)) clearRequest(request.fromId).catch(() => undefined)
    else takeRequest(request, kind === 'set')
  }

  function takeRequest(request: RequestEntry, isNew: boolean): void {
    requests.set(request.fromId, request)
    if (!isNew) return void older.add(request.fromId)
    const key = request.text ? 'notices.messageRequest' : 'notices.friendRequest'
    const action = { label: 'friends.accept' as const, run: () => accept(request.fromId) }
    notifications.notify({ kind: 'info', key, params: { name: request.fromName }, opens: 'friends', action })
  }

  /** Handles an accepted request. An acceptance older than the end of the friendship is ignored. */
  async function takeAcceptance({ fromId, fromName, fromColor, timestamp }: RequestEntry): Promise<void> {
    await askedLoaded
    const text = asked.get(fromId)
    const ended = (await endings()).get(fromId) ?? 0
    if (timestamp > ended && !known.has(fromId)) {
      await writeFriend(fromId, fromName, fromColor)
      notifications.notify({ kind: 'success', key: 'notices.friendAccepted', params: { name: fromName } })
    }
    await forgetAsked(fromId)
    await clearRequest(fromId)
    // What the other one has read and accepted begins the conversation.
    if (text && known.has(fromId)) await messages.send(await openDirectMessage(fromId), { text })
  }

  /** When a friendship was ended here, by the other's id. */
  async function endings(): Promise<Map<UserId, number>> {
    const value = await runtime.storage.value('friendsEnded')
    return new Map(Object.entries((value ?? {}) as Record<UserId, number>))
  }

  async function remove(userId: UserId): Promise<void> {
    await runtime.connection.set(address.friend(me(), userId), null)
    const ended = (await endings()).set(userId, clock.now())
    await runtime.storage.putValue('friendsEnded', Object.fromEntries(ended))
  }

  // --- sent requests, stored to show them as pending after a reload ---

  async function askedBefore(): Promise<[UserId, string][]> {
    const value = await runtime.storage.value('asked')
    // Before there were messages in requests, it was a list of ids.
    const entries = (Array.isArray(value) ? value : []).map((each: unknown) =>
      Array.isArray(each) ? each : [each, ''],
    )
    return entries
      .map(([id, text]: unknown[]): [UserId, string] => [String(id), String(text)])
      .filter(([id]) => isUserId(id))
  }

  const keepAsked = (): Promise<void> => runtime.storage.putValue('asked', [...asked])

  async function forgetAsked(userId: UserId): Promise<void> {
    asked.delete(userId)
    await keepAsked()
  }

  // --- actions ---

  async function request(userId: UserId, message = ''): Promise<void> {
    if (userId === me()) throw new Failure('invalid', 'friend request to oneself', { reason: 'friendIsSelf' })
    if (known.has(userId)) return
    const text = message.trim()
    if (text.length > MAX_REQUEST) throw new Failure('tooLarge', 'request too long', { reason: 'requestTooLong' })
    const { name: fromName, color: fromColor } = runtime.self
    const head = { fromId: me(), fromName, fromColor, timestamp: clock.now() }
    const value = asValue(text ? { ...head, type: 'dm', text } : head)
    await runtime.connection.set(address.request(userId, me()), value)
    asked.set(userId, text)
    await keepAsked()
  }

  /** Nothing of somebody is shown any more; who is a friend is none then. */
  async function block(userId: UserId, name: string): Promise<void> {
    await blocks.block(userId, name)
    if (known.has(userId)) await remove(userId)
    if (requests.has(userId)) await clearRequest(userId)
  }

  async function accept(userId: UserId): Promise<RoomId | null> {
    const entry = requests.get(userId)
    if (!entry) throw new Failure('missing', `no friend request from ${userId}`)
    const { name: fromName, color: fromColor } = runtime.self
    await writeFriend(userId, entry.fromName, entry.fromColor)
    const answer = asValue({ type: 'accepted', fromId: me(), fromName, fromColor, timestamp: clock.now() })
    // The room is there before the answer: whoever asked finds it then, and does not make another one.
    const room = entry.text ? await prepareDirectMessage(userId, entry.fromName) : null
    // Before the request is cleared: the relay accepts the answer only while the request exists.
    await runtime.connection.set(address.request(userId, me()), answer)
    await clearRequest(userId)
    if (room) await startDirectMessage(userId, entry.fromName, room)
    return room?.roomId ?? null
  }

  // --- direct messages ---

  /** Whether the room with the default id exists, and for these two users. */
  async function isUsable(roomId: RoomId, userId: UserId): Promise<'ours' | 'free' | 'foreign'> {
    const meta = parseRoomMeta(await runtime.connection.get(address.meta(roomId)))
    if (!meta) return 'free'
    const users = meta.dmUsers ?? {}
    return Object.hasOwn(users, userId) && Object.hasOwn(users, me()) ? 'ours' : 'foreign'
  }

  async function directMessage(userId: UserId): Promise<{ roomId: RoomId; exists: boolean }> {
    const open = rooms.directMessages.find((room) => room.peerId === userId)
    if (open) return { roomId: open.id, exists: true }
    const roomId = directMessageId(me(), userId)
    const found = await isUsable(roomId, userId)
    // Other users' ids may share these prefixes: then the room is theirs.
    if (found === 'foreign') return { roomId: `dm-${newId()}`, exists: false }
    return { roomId, exists: found === 'ours' }
  }

  async function openDirectMessage(userId: UserId): Promise<RoomId> {
    const friend = known.get(userId)
    if (!friend) throw new Failure('forbidden', `not a friend: ${userId}`, { reason: 'friendsOnly' })
    return startDirectMessage(userId, friend.name, await prepareDirectMessage(userId, friend.name))
  }

  interface PreparedRoom {
    roomId: RoomId
    needsKey: boolean
  }

  /** The room for a conversation; it is made if there is none. */
  async function prepareDirectMessage(userId: UserId, peerName: string): Promise<PreparedRoom> {
    const { roomId, exists } = await directMessage(userId)
    if (exists) return { roomId, needsKey: false }
    const dmUsers = { [me()]: runtime.self.name, [userId]: peerName }
    // Who has devices uses this app, and can read it.
    const encrypted = (await runtime.directory.account(userId)) !== null
    const meta = { name: peerName, type: 'dm', isPublic: false, encrypted, dmUsers }
    await runtime.connection.set(address.meta(roomId), asValue(meta))
    return { roomId, needsKey: encrypted }
  }

  /** Tells the other one where the conversation is, and enters it. */
  async function startDirectMessage(
    userId: UserId,
    peerName: string,
    { roomId, needsKey }: PreparedRoom,
  ): Promise<RoomId> {
    const { name } = runtime.self
    const call = asValue({ fromId: me(), fromName: name, roomId, timestamp: clock.now() })
    // The recipient's policy may refuse the inbox entry; the room works in any case.
    await runtime.connection.set(address.dmInbox(userId, roomId), call).catch((failure: Failure) => {
      if (failure.kind !== 'forbidden') throw failure
    })
    rooms.keep(roomId, { peerName })
    rooms.enter(roomId)
    if (needsKey) await runtime.rooms.get(roomId)?.tell({ type: 'create' })
    return roomId
  }

  runtime.friendName = (userId) => known.get(userId)?.name ?? ''
  runtime.on('begin', () => {
    older.clear()
    askedLoaded = askedBefore().then(
      (entries) => entries.forEach(([id, text]) => asked.set(id, text)),
      // The browser cannot read it: what was asked for is not shown as such.
      () => undefined,
    )
    clock.after(BACKLOG_MS, () => {
      const count = incoming.value.filter(({ userId }) => older.has(userId)).length
      if (count === 0) return
      notifications.notify({ kind: 'info', key: 'notices.pendingRequests', params: { count }, opens: 'friends' })
    })
    runtime.listenTo(pattern.friends(me()), hearFriend)
    runtime.listenTo(pattern.requests(me()), hearRequest)
  })
  runtime.on('end', () => {
    known.clear()
    requests.clear()
    asked.clear()
  })

  return {
    friends,
    incoming,
    outgoing: computed(() => [...asked.keys()]),
    isFriend: (userId: UserId) => known.has(userId),
    request,
    block,
    accept,
    decline: clearRequest,
    remove,
    openDirectMessage,
  }
})

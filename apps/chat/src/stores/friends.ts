import { defineStore } from 'pinia'
import { computed, shallowReactive } from 'vue'
import { address, directMessageId, isUserId, parseAddress, pattern } from '@/protocol/addresses'
import { Failure } from '@/protocol/errors'
import { asValue, parseFriend, parseRequest, parseRoomMeta, type RequestEntry } from '@/protocol/shapes'
import type { Update } from '@/protocol/connection'
import { useMembersStore } from './members'
import { useNotificationsStore } from './notifications'
import { useRoomsStore } from './rooms'
import { useRuntime } from './runtime'
import type { Friend, FriendRequest, RoomId, UserId } from './types'

interface StoredFriend {
  name: string
  color: string
  addedAt: number
}

/** Requests that arrive within this time after subscribing are older: they share one notice. */
const BACKLOG_MS = 1_500

export const useFriendsStore = defineStore('friends', () => {
  const runtime = useRuntime()
  const rooms = useRoomsStore()
  const members = useMembersStore()
  const notifications = useNotificationsStore()
  const { clock, newId } = runtime.platform
  const known = shallowReactive(new Map<UserId, StoredFriend>())
  const requests = shallowReactive(new Map<UserId, RequestEntry>())
  const asked = shallowReactive(new Set<UserId>())
  let quietUntil = 0

  const friends = computed(() =>
    [...known]
      .map(([userId, { name, color, addedAt }]): Friend => {
        return { userId, name, color, addedAt, online: members.isPresentAnywhere(userId) }
      })
      .sort((one, other) => one.name.localeCompare(other.name)),
  )
  const incoming = computed(() =>
    [...requests.values()]
      .map(({ fromId, fromName, fromColor, timestamp }): FriendRequest => {
        return { userId: fromId, name: fromName, color: fromColor, timestamp }
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
    if (request.accepted) takeAcceptance(request).catch(() => undefined)
    else if (known.has(request.fromId)) clearRequest(request.fromId).catch(() => undefined)
    else takeRequest(request, kind === 'set' && clock.now() >= quietUntil)
  }

  function takeRequest(request: RequestEntry, isNew: boolean): void {
    requests.set(request.fromId, request)
    if (isNew) notifications.notify({ kind: 'info', key: 'notices.friendRequest', params: { name: request.fromName } })
  }

  /** Handles an accepted request. An acceptance older than the end of the friendship is ignored. */
  async function takeAcceptance({ fromId, fromName, fromColor, timestamp }: RequestEntry): Promise<void> {
    const ended = (await endings()).get(fromId) ?? 0
    if (timestamp > ended && !known.has(fromId)) {
      await writeFriend(fromId, fromName, fromColor)
      notifications.notify({ kind: 'success', key: 'notices.friendAccepted', params: { name: fromName } })
    }
    await forgetAsked(fromId)
    await clearRequest(fromId)
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

  async function askedIds(): Promise<UserId[]> {
    const value = await runtime.storage.value('asked')
    return Array.isArray(value) ? value.filter((id): id is UserId => typeof id === 'string' && isUserId(id)) : []
  }

  async function forgetAsked(userId: UserId): Promise<void> {
    asked.delete(userId)
    await runtime.storage.putValue('asked', [...asked])
  }

  // --- actions ---

  async function request(userId: UserId): Promise<void> {
    if (userId === me()) throw new Failure('invalid', 'friend request to oneself', { reason: 'friendIsSelf' })
    if (known.has(userId)) return
    const { name: fromName, color: fromColor } = runtime.self
    const value = asValue({ fromId: me(), fromName, fromColor, timestamp: clock.now() })
    await runtime.connection.set(address.request(userId, me()), value)
    asked.add(userId)
    await runtime.storage.putValue('asked', [...asked])
  }

  async function accept(userId: UserId): Promise<void> {
    const entry = requests.get(userId)
    if (!entry) throw new Failure('missing', `no friend request from ${userId}`)
    const { name: fromName, color: fromColor } = runtime.self
    await writeFriend(userId, entry.fromName, entry.fromColor)
    const answer = asValue({ type: 'accepted', fromId: me(), fromName, fromColor, timestamp: clock.now() })
    // Before the request is cleared: the relay accepts the answer only while the request exists.
    await runtime.connection.set(address.request(userId, me()), answer)
    await clearRequest(userId)
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
    const { roomId, exists } = await directMessage(userId)
    const { name } = runtime.self
    let needsKey = false
    if (!exists) {
      const dmUsers = { [me()]: name, [userId]: friend.name }
      // Who has devices uses this app, and can read it.
      const encrypted = (await runtime.directory.account(userId)) !== null
      const meta = { name: friend.name, type: 'dm', isPublic: false, encrypted, dmUsers }
      await runtime.connection.set(address.meta(roomId), asValue(meta))
      needsKey = encrypted
    }
    const call = asValue({ fromId: me(), fromName: name, roomId, timestamp: clock.now() })
    // The recipient's policy may refuse the inbox entry; the room works in any case.
    await runtime.connection.set(address.dmInbox(userId, roomId), call).catch((failure: Failure) => {
      if (failure.kind !== 'forbidden') throw failure
    })
    rooms.keep(roomId, { peerName: friend.name })
    rooms.enter(roomId)
    if (needsKey) await runtime.rooms.get(roomId)?.tell({ type: 'create' })
    return roomId
  }

  runtime.on('begin', () => {
    quietUntil = clock.now() + BACKLOG_MS
    void askedIds().then((ids) => ids.forEach((id) => asked.add(id)))
    clock.after(BACKLOG_MS, () => {
      if (requests.size === 0) return
      notifications.notify({ kind: 'info', key: 'notices.pendingRequests', params: { count: requests.size } })
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
    outgoing: computed(() => [...asked]),
    isFriend: (userId: UserId) => known.has(userId),
    request,
    accept,
    decline: clearRequest,
    remove,
    openDirectMessage,
  }
})

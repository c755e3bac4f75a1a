import { defineStore } from 'pinia'
import { computed, ref, shallowReactive } from 'vue'
import { hashPassword, newSalt } from '@/crypto/password'
import type { EncryptionState } from '@/crypto/roomCrypto'
import { address, isGroupPath, isRoomId, parseAddress, parseInvitation, pattern } from '@/protocol/addresses'
import { Failure } from '@/protocol/errors'
import {
  asValue,
  parseInboxEntry,
  parseRegistryEntry,
  parseRoomMeta,
  recordOf,
  type RegistryEntry,
  type RoomMeta,
} from '@/protocol/shapes'
import type { StoredRoom } from '@/storage/types'
import type { RoomEvent } from './live/liveRoom'
import { useNotificationsStore } from './notifications'
import { useRuntime } from './runtime'
import type { NewRoom, Room, RoomAccess, RoomId } from './types'

const MAX_NAME = 32
const MAX_DESCRIPTION = 500

/** Everything known about a room, from all sources. */
interface RoomState {
  stored: StoredRoom
  meta: RoomMeta | null
  /** In the public registry. */
  listed: RegistryEntry | null
  /** In the registry of a group, by its path. */
  grouped: { path: string; entry: RegistryEntry } | null
  access: RoomAccess
  encryption: EncryptionState
  unread: number
  mentions: number
}

const byName = (one: Room, other: Room): number => one.name.localeCompare(other.name) || (one.id < other.id ? -1 : 1)

export const useRoomsStore = defineStore('rooms', () => {
  const runtime = useRuntime()
  const notifications = useNotificationsStore()
  const { clock, newId, origin, attended, local } = runtime.platform
  const states = shallowReactive(new Map<RoomId, RoomState>())
  const activeId = ref<RoomId | null>(null)
  const ready = ref(false)
  /** The read position at the time a room with unread messages was opened, ms. */
  const unreadSince = shallowReactive(new Map<RoomId, number>())

  // --- state ---

  function blank(id: RoomId): RoomState {
    const stored: StoredRoom = {
      id,
      joined: false,
      muted: false,
      meta: null,
      joinedAt: 0,
      lastReadMs: 0,
      lastActivityMs: 0,
      peerName: '',
    }
    const rest = {
      listed: null,
      grouped: null,
      access: 'unknown',
      encryption: 'unknown',
      unread: 0,
      mentions: 0,
    } as const
    return { stored, meta: null, ...rest }
  }

  const state = (id: RoomId): RoomState => states.get(id) ?? blank(id)

  function change(id: RoomId, part: Partial<RoomState>): void {
    states.set(id, { ...state(id), ...part })
  }

  /** Changes what is stored of a room. */
  function keep(id: RoomId, part: Partial<StoredRoom>): void {
    const stored = { ...state(id).stored, ...part }
    change(id, { stored })
    if (runtime.begun) void runtime.storage.putRoom(stored)
  }

  function peerOf(meta: RoomMeta | null): string | null {
    const ids = Object.keys(meta?.dmUsers ?? {})
    return ids.find((id) => id !== runtime.self.userId) ?? null
  }

  function view({ stored, meta: live, listed, grouped, access, encryption, unread, mentions }: RoomState): Room {
    const meta = live ?? stored.meta
    const entry = listed ?? grouped?.entry ?? null
    const isDm = (meta !== null && meta.dmUsers !== null) || stored.id.startsWith('dm-')
    const peerId = peerOf(meta)
    const peerName = (peerId !== null && meta?.dmUsers?.[peerId]) || stored.peerName
    return {
      id: stored.id,
      type: isDm ? 'dm' : (meta?.type ?? entry?.type ?? 'text'),
      name: (isDm ? peerName : '') || meta?.name || entry?.name || '',
      description: meta?.description ?? '',
      isPublic: meta?.isPublic ?? entry?.isPublic ?? false,
      hasPassword: meta ? meta.passwordSalt !== null : (entry?.hasPassword ?? false),
      creatorId: meta?.creatorId ?? entry?.creatorId ?? null,
      creatorName: meta?.creatorName || entry?.creatorName || '',
      createdAt: meta?.createdAt ?? entry?.createdAt ?? null,
      namespace: grouped?.path ?? meta?.namespace ?? listed?.namespace ?? null,
      peerId,
      joined: stored.joined,
      access,
      encryption,
      unread,
      mentions,
      muted: stored.muted,
      lastActivityMs: stored.lastActivityMs,
    }
  }

  const byId = computed(() => recordOf([...states].map(([id, each]) => [id, view(each)])))
  const all = computed(() => Object.values(byId.value))
  const joined = computed(() => all.value.filter((room) => room.joined && room.type !== 'dm').sort(byName))
  const directMessages = computed(() =>
    all.value
      .filter((room) => room.joined && room.type === 'dm')
      .sort((one, other) => other.lastActivityMs - one.lastActivityMs || byName(one, other)),
  )
  const publicRooms = computed(() => all.value.filter((room) => states.get(room.id)?.listed).sort(byName))
  const audible = computed(() => all.value.filter((room) => room.joined && !room.muted))
  const totalUnread = computed(() => audible.value.reduce((sum, room) => sum + room.unread, 0))
  const totalMentions = computed(() => audible.value.reduce((sum, room) => sum + room.mentions, 0))
  const active = computed(() => (activeId.value === null ? null : (byId.value[activeId.value] ?? null)))

  // --- updates from the relay ---

  function begin(): void {
    const { userId } = runtime.self
    runtime.listenTo(pattern.registryRooms(), ({ address: from, value }) => {
      const place = parseAddress(from)
      if (place?.kind !== 'registryRoom') return
      const entry = parseRegistryEntry(value)
      change(place.roomId, { listed: entry?.isPublic ? entry : null })
      forgetStranger(place.roomId)
    })
    runtime.listenTo(pattern.dmInbox(userId), ({ address: from, value, kind }) => {
      const entry = parseInboxEntry(value)
      const place = parseAddress(from)
      if (!entry || place?.kind !== 'dmInbox' || place.roomId !== entry.roomId || entry.fromId === userId) return
      const { stored } = state(entry.roomId)
      // A conversation that was left reopens only for a newer inbox entry.
      if (stored.joined || entry.timestamp <= stored.lastReadMs) return
      keep(entry.roomId, { peerName: entry.fromName, lastActivityMs: entry.timestamp })
      enter(entry.roomId)
      const params = { name: entry.fromName }
      if (kind === 'set')
        notifications.notify({ kind: 'info', key: 'notices.directMessage', params, roomId: entry.roomId })
    })
  }

  /** Forgets a room that is neither listed nor joined. */
  function forgetStranger(id: RoomId): void {
    const { listed, grouped, stored } = state(id)
    if (!listed && !grouped && !stored.joined) states.delete(id)
  }

  function takeGrouped(id: RoomId, path: string, entry: RegistryEntry | null): void {
    if (!entry && state(id).grouped?.path !== path) return
    change(id, { grouped: entry && { path, entry } })
    forgetStranger(id)
  }

  function takeRoomEvent(event: RoomEvent): void {
    const { roomId } = event
    if (!states.has(roomId)) return
    if (event.type === 'access') change(roomId, { access: event.access })
    else if (event.type === 'encryption') change(roomId, { encryption: event.state })
    else if (event.type === 'meta') takeMeta(roomId, event.meta, event.live)
    else if (event.type === 'kicked') void removedBySomebody(roomId)
  }

  function takeMeta(roomId: RoomId, meta: RoomMeta | null, live: boolean): void {
    const before = state(roomId)
    if (meta) {
      // The password hash, which only the creator sees, is never stored.
      keep(roomId, { meta: { ...meta, passwordHash: null } })
      change(roomId, { meta })
    } else if (live && before.meta) {
      change(roomId, { meta: null, access: 'missing' })
      notifications.notify({ kind: 'warning', key: 'notices.roomDeleted', params: { room: view(before).name } })
    }
  }

  async function removedBySomebody(roomId: RoomId): Promise<void> {
    const { name, access: before } = view(state(roomId))
    const access = before === 'banned' ? 'banned' : 'unknown'
    runtime.forget(roomId)?.close()
    keep(roomId, { joined: false })
    change(roomId, { access, encryption: 'unknown', unread: 0, mentions: 0 })
    if (activeId.value === roomId) activeId.value = null
    const key = access === 'banned' ? 'notices.banned' : 'notices.kicked'
    notifications.notify({ kind: 'warning', key, params: { room: name } })
  }

  // --- entering and leaving ---

  function enter(id: RoomId): void {
    const { stored } = state(id)
    keep(id, { joined: true, joinedAt: stored.joinedAt || clock.now() })
    runtime.enter(state(id).stored)
  }

  /** Reads the current meta from the relay. */
  async function freshMeta(id: RoomId): Promise<RoomMeta | null> {
    if (!isRoomId(id)) throw new Failure('invalid', `invalid room ID: ${id}`, { reason: 'roomId' })
    const meta = parseRoomMeta(await runtime.connection.get(address.meta(id)))
    if (meta) change(id, { meta })
    return meta
  }

  async function lookUp(id: RoomId): Promise<Room | null> {
    const meta = await freshMeta(id)
    return meta || state(id).listed ? view(state(id)) : null
  }

  async function join(id: RoomId, password?: string): Promise<void> {
    const meta = await freshMeta(id)
    if (!meta && !state(id).listed && !state(id).grouped) throw new Failure('missing', `no such room: ${id}`)
    const mine = meta?.creatorId === runtime.self.userId
    if (meta?.passwordSalt && !mine) await prove(id, password ?? '', meta.passwordSalt)
    const live = runtime.rooms.get(id)
    enter(id)
    live?.announce()
  }

  async function prove(id: RoomId, password: string, salt: string): Promise<void> {
    if (password === '') throw new Failure('wrongPassword', 'the room requires a password')
    const hash = await hashPassword(password, salt)
    const proof = asValue({ hash, timestamp: clock.now() })
    try {
      await runtime.connection.set(address.proof(id, runtime.self.userId), proof, { once: true })
    } catch (error) {
      if (error instanceof Failure && error.kind === 'forbidden')
        throw new Failure('wrongPassword', error.message, { detail: error.detail })
      throw error
    }
  }

  async function leave(id: RoomId): Promise<void> {
    const live = runtime.forget(id)
    keep(id, { joined: false, lastReadMs: clock.now() })
    change(id, { access: 'unknown', encryption: 'unknown', unread: 0, mentions: 0 })
    if (activeId.value === id) activeId.value = null
    await live?.leave()
    forgetStranger(id)
  }

  // --- creating and changing ---

  function checkedName(name: string): string {
    const trimmed = name.trim()
    if (trimmed === '' || trimmed.length > MAX_NAME)
      throw new Failure('invalid', 'a room name has 1 to 32 characters', { reason: 'roomName' })
    return trimmed
  }

  function checkedPath(path: string): string {
    if (!isGroupPath(path)) throw new Failure('invalid', `invalid group path: ${path}`, { reason: 'groupPath' })
    return path
  }

  async function passwordFields(password: string): Promise<{ passwordHash: string; passwordSalt: string }> {
    const passwordSalt = newSalt()
    return { passwordHash: await hashPassword(password, passwordSalt), passwordSalt }
  }

  async function create(room: NewRoom): Promise<RoomId> {
    const name = checkedName(room.name)
    const namespace = room.namespace ? checkedPath(room.namespace) : null
    const id = newId()
    const { userId, name: creatorName } = runtime.self
    const secret = room.password ? await passwordFields(room.password) : null
    const createdAt = clock.now()
    const head = {
      name,
      type: room.type ?? 'text',
      description: '',
      isPublic: room.isPublic,
      encrypted: room.encrypted,
    }
    const meta = { ...head, ...secret, ...(namespace && { namespace }), creatorId: userId, creatorName, createdAt }
    // The meta first: it tells the relay who the creator is, which the registry entries require.
    await runtime.connection.set(address.meta(id), asValue(meta))
    change(id, { meta: parseRoomMeta(meta) })
    await list(id, namespace)
    enter(id)
    if (room.encrypted) await runtime.rooms.get(id)?.tell({ type: 'create' })
    return id
  }

  /** Writes a public room into the registries, where everybody finds it. A private one is in none of them. */
  async function list(id: RoomId, namespace: string | null): Promise<void> {
    const meta = state(id).meta
    if (!meta?.isPublic) return
    const { name, type, isPublic, creatorId, creatorName, createdAt, passwordSalt } = meta
    const entry = { name, type, isPublic, creatorId: creatorId ?? '', creatorName, createdAt: createdAt ?? 0 }
    const full = { ...entry, hasPassword: passwordSalt !== null, ...(namespace && { namespace }), id }
    await runtime.connection.set(address.registryRoom(id), asValue(full))
    if (namespace) await runtime.connection.set(address.groupRoom(namespace, id), asValue(full))
  }

  /** The meta as it is written; the relay keeps hidden fields that are omitted. */
  function metaValue(meta: RoomMeta): object {
    const { name, type, description, isPublic, encrypted, creatorId, creatorName, createdAt } = meta
    const { passwordHash, passwordSalt, namespace, dmUsers } = meta
    return {
      name,
      type,
      description,
      isPublic,
      encrypted,
      ...(creatorId && { creatorId }),
      ...(creatorName && { creatorName }),
      ...(createdAt !== null && { createdAt }),
      ...(passwordHash && { passwordHash }),
      ...(passwordSalt && { passwordSalt }),
      ...(namespace && { namespace }),
      ...(dmUsers && { dmUsers }),
    }
  }

  /** Reads, changes and writes the meta and the registry entries; resolves with the previous meta. */
  async function rewrite(id: RoomId, part: Partial<RoomMeta>): Promise<RoomMeta> {
    const meta = await freshMeta(id)
    if (!meta) throw new Failure('missing', `no such room: ${id}`)
    const changed = { ...meta, ...part }
    await runtime.connection.set(address.meta(id), asValue(metaValue(changed)))
    change(id, { meta: changed })
    await list(id, changed.namespace)
    return meta
  }

  async function rename(id: RoomId, name: string): Promise<void> {
    await rewrite(id, { name: checkedName(name) })
  }

  async function setDescription(id: RoomId, description: string): Promise<void> {
    await rewrite(id, { description: description.trim().slice(0, MAX_DESCRIPTION) })
  }

  async function setVisibility(id: RoomId, isPublic: boolean): Promise<void> {
    const { namespace } = await rewrite(id, { isPublic })
    if (isPublic) return
    await runtime.connection.set(address.registryRoom(id), null)
    if (namespace && isGroupPath(namespace)) await runtime.connection.set(address.groupRoom(namespace, id), null)
  }

  async function setPassword(id: RoomId, password: string | null): Promise<void> {
    const secret = password === null ? { passwordHash: null, passwordSalt: null } : await passwordFields(password)
    await rewrite(id, secret)
    const live = runtime.rooms.get(id)
    const meta = state(id).meta
    if (password === null || !live || !meta) return
    // Whoever proved only the old password must not get the new key. The encryption has to know the new salt before
    // the key is sent, and the echo of the meta may arrive after the ACK.
    const { encrypted, creatorId, passwordSalt } = meta
    await live.tell({ type: 'meta', meta: { encrypted, creatorId, passwordSalt } })
    await live.tell({ type: 'rotate', without: [] })
  }

  async function setNamespace(id: RoomId, path: string | null): Promise<void> {
    const namespace = path === null ? null : checkedPath(path)
    const { namespace: before } = await rewrite(id, { namespace })
    if (before && before !== namespace && isGroupPath(before)) {
      await runtime.connection.set(address.groupRoom(before, id), null)
    }
  }

  async function enableEncryption(id: RoomId): Promise<void> {
    await rewrite(id, { encrypted: true })
    await runtime.rooms.get(id)?.tell({ type: 'create' })
  }

  async function remove(id: RoomId): Promise<void> {
    const { meta, listed, grouped } = state(id)
    const namespace = grouped?.path ?? meta?.namespace
    if (listed) await runtime.connection.set(address.registryRoom(id), null)
    if (namespace && isGroupPath(namespace)) await runtime.connection.set(address.groupRoom(namespace, id), null)
    // Leave first, so that the removed meta is not reported as a deleted room.
    const live = runtime.forget(id)
    live?.close()
    await runtime.connection.set(address.meta(id), null)
    if (activeId.value === id) activeId.value = null
    states.delete(id)
    await runtime.storage.removeRoom(id)
  }

  // --- reading ---

  function markRead(id: RoomId): void {
    if (!states.has(id)) return
    if (state(id).unread > 0 || state(id).mentions > 0) change(id, { unread: 0, mentions: 0 })
    keep(id, { lastReadMs: Math.max(state(id).stored.lastReadMs, state(id).stored.lastActivityMs) })
    runtime.emit('read', { roomId: id })
  }

  function activate(id: RoomId | null): void {
    activeId.value = id
    if (id === null || !states.has(id)) return
    if (state(id).unread > 0) unreadSince.set(id, state(id).stored.lastReadMs)
    else unreadSince.delete(id)
    markRead(id)
  }

  const isWatched = (id: RoomId): boolean => id === activeId.value && attended()

  /** Counts a new message as unread unless the room is on screen. */
  function noteMessage(id: RoomId, timestamp: number, own: boolean, mention: boolean): void {
    const { unread, mentions, stored } = state(id)
    keep(id, { lastActivityMs: Math.max(stored.lastActivityMs, timestamp) })
    if (own || isWatched(id)) markRead(id)
    else if (timestamp > stored.lastReadMs) {
      change(id, { unread: unread + 1, mentions: mentions + (mention ? 1 : 0) })
    }
  }

  function noteActivity(id: RoomId, timestamp: number): void {
    keep(id, { lastActivityMs: Math.max(state(id).stored.lastActivityMs, timestamp) })
  }

  // --- life ---

  async function load(): Promise<void> {
    const { storage } = runtime
    const stored = await storage.rooms()
    const legacy = legacyJoined().filter((id) => !stored.some((room) => room.id === id))
    const known = [...stored, ...legacy.map((id) => ({ ...blank(id).stored, joined: true, joinedAt: clock.now() }))]
    const { userId } = runtime.self
    const counts = await Promise.all(
      known.map((room) => (room.joined ? storage.messages.countSince(room.id, room.lastReadMs, userId) : 0)),
    )
    if (!runtime.begun || runtime.storage !== storage) return
    // All in one turn: whoever waits for `ready` sees every room with its unread count.
    for (const [index, room] of known.entries()) {
      const { listed, grouped, unread } = state(room.id)
      states.set(room.id, { ...blank(room.id), listed, grouped, stored: room, unread: unread + (counts[index] ?? 0) })
    }
    ready.value = true
    for (const room of known) if (room.joined) runtime.enter(room)
  }

  /** The joined rooms that the original app stored in this browser. */
  function legacyJoined(): RoomId[] {
    try {
      const ids: unknown = JSON.parse(local.getItem('clasp-chat-joined') ?? '[]')
      return Array.isArray(ids) ? ids.filter((id): id is string => typeof id === 'string' && isRoomId(id)) : []
    } catch {
      // Not valid JSON: nothing to take over.
      return []
    }
  }

  runtime.on('begin', () => {
    begin()
    void load()
  })
  runtime.on('end', () => {
    states.clear()
    unreadSince.clear()
    activeId.value = null
    ready.value = false
  })
  runtime.on('room', takeRoomEvent)
  runtime.on('wake', () => {
    if (activeId.value !== null && isWatched(activeId.value)) markRead(activeId.value)
  })

  return {
    ready: computed(() => ready.value),
    byId,
    joined,
    directMessages,
    publicRooms,
    activeId: computed(() => activeId.value),
    active,
    totalUnread,
    totalMentions,
    create,
    lookUp,
    join,
    leave,
    rename,
    setDescription,
    setVisibility,
    setPassword,
    setNamespace,
    enableEncryption,
    remove,
    setMuted: (id: RoomId, muted: boolean) => keep(id, { muted }),
    activate,
    markRead,
    inviteLink: (id: RoomId) => `${origin}/chat?join=${id}`,
    parseInvite: parseInvitation,
    // For the other stores.
    enter,
    keep,
    noteMessage,
    noteActivity,
    unreadSince: (id: RoomId): number | null => unreadSince.get(id) ?? null,
    lastRead: (id: RoomId) => state(id).stored.lastReadMs,
    isWatched,
    takeGrouped,
  }
})

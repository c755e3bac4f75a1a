/** Entering and leaving rooms, by oneself or by others. */
import { ref } from 'vue'
import { hashPassword } from '@/crypto/password'
import { address, isRoomId, parseAddress, pattern } from '@/protocol/addresses'
import type { Update } from '@/protocol/connection'
import { Failure } from '@/protocol/errors'
import { asValue, parseInboxEntry, parseRoomMeta, type RoomMeta, type SyncedRoom } from '@/protocol/shapes'
import { useBlocksStore } from '../blocks'
import type { RoomEvent } from '../live/liveRoom'
import type { useNotificationsStore } from '../notifications'
import type { Runtime } from '../runtime'
import type { Room, RoomId } from '../types'
import type { ReadState } from './readState'
import type { RoomTable } from './table'

export type Membership = ReturnType<typeof makeMembership>

export function makeMembership(
  runtime: Runtime,
  table: RoomTable,
  readState: ReadState,
  notifications: ReturnType<typeof useNotificationsStore>,
) {
  const { states, blank, state, change, keep, forgetStranger, view } = table
  const { clock, local } = runtime.platform
  const ready = ref(false)
  /** Entries of the inbox that arrived before the stored rooms were loaded. */
  let early: Update[] = []

  // --- updates from the relay ---

  function hearInbox(update: Update): void {
    const { address: from, value, kind } = update
    // Whether the conversation was left is not known yet.
    if (!ready.value) return void early.push(update)
    const entry = parseInboxEntry(value)
    const place = parseAddress(from)
    const { userId } = runtime.self
    if (!entry || place?.kind !== 'dmInbox' || place.roomId !== entry.roomId || entry.fromId === userId) return
    if (useBlocksStore().isBlocked(entry.fromId)) return
    const { stored } = state(entry.roomId)
    // A conversation that was left reopens only for a newer inbox entry.
    if (stored.joined || entry.timestamp <= stored.lastReadMs) return
    // Whoever writes may call themselves as they like; a friend is called as before.
    const name = runtime.friendName(entry.fromId) || entry.fromName
    keep(entry.roomId, { peerName: name, lastActivityMs: entry.timestamp })
    enter(entry.roomId)
    const params = { name }
    if (kind === 'set')
      notifications.notify({ kind: 'info', key: 'notices.directMessage', params, roomId: entry.roomId })
  }

  function listen(): void {
    runtime.listenTo(pattern.dmInbox(runtime.self.userId), hearInbox)
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
    readState.close(roomId)
    const key = access === 'banned' ? 'notices.banned' : 'notices.kicked'
    notifications.notify({ kind: 'warning', key, params: { room: name } })
  }

  // --- entering and leaving ---

  function enter(id: RoomId): void {
    const { stored } = state(id)
    keep(id, { joined: true, joinedAt: stored.joinedAt || clock.now() })
    runtime.enter(state(id).stored, true)
  }

  /** Reads the current meta from the relay. */
  async function freshMeta(id: RoomId): Promise<RoomMeta | null> {
    if (!isRoomId(id)) throw new Failure('invalid', `invalid room ID: ${id}`, { reason: 'roomId' })
    const meta = parseRoomMeta(await runtime.connection.get(address.meta(id), { urgent: true }))
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
    live?.announce(true)
  }

  async function prove(id: RoomId, password: string, salt: string): Promise<void> {
    if (password === '') throw new Failure('wrongPassword', 'the room requires a password')
    const hash = await hashPassword(password, salt)
    const proof = asValue({ hash, timestamp: clock.now() })
    try {
      await runtime.connection.set(address.proof(id, runtime.self.userId), proof, { urgent: true })
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
    readState.close(id)
    await live?.leave()
    forgetStranger(id)
  }

  /** Another device of this user joined, left, muted or read a room. */
  function takeSynced(id: RoomId, { joined, muted, joinedAt, lastReadMs, peerName }: SyncedRoom): void {
    const { stored } = state(id)
    if (!joined && !stored.joined) return
    const read = Math.max(lastReadMs, stored.lastReadMs)
    keep(id, {
      joined,
      muted,
      joinedAt: stored.joinedAt || joinedAt,
      lastReadMs: read,
      peerName: stored.peerName || peerName,
    })
    if (joined && !stored.joined) runtime.enter(state(id).stored, false)
    else if (!joined) goneElsewhere(id)
    else if (read > stored.lastReadMs) void readState.recount(id)
  }

  function goneElsewhere(id: RoomId): void {
    runtime.forget(id)?.close()
    change(id, { access: 'unknown', encryption: 'unknown', unread: 0, mentions: 0 })
    readState.close(id)
    forgetStranger(id)
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
    for (const room of known) if (room.joined) runtime.enter(room, false)
    const waiting = early
    early = []
    waiting.forEach(hearInbox)
    runtime.emit('roomsLoaded', null)
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

  runtime.on('room', takeRoomEvent)
  runtime.on('end', () => (early = []))

  return { ready, listen, load, enter, freshMeta, lookUp, join, leave, takeSynced }
}

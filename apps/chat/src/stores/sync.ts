/**
 * What the devices of one user share, at addresses that only they read: profile, rooms with read positions, pinned
 * groups. The last write wins, in the order of the relay. What was changed here and has not been written yet is kept.
 */
import { defineStore } from 'pinia'
import { address, isGroupPath, isRoomId, parseAddress, pattern } from '@/protocol/addresses'
import type { Update } from '@/protocol/connection'
import { asValue, parseSyncedProfile, parseSyncedRoom, type SyncedRoom } from '@/protocol/shapes'
import type { StoredRoom } from '@/storage/types'
import { useGroupsStore } from './groups'
import { useRoomsStore } from './rooms'
import { useRuntime } from './runtime'
import { useSessionStore } from './session'
import type { RoomId } from './types'

const PROFILE = 'profile'
const GROUPS = 'groups'
/** Read positions change with every message: they are written together. */
const DELAY_MS = 2_000
/** After coming online: the subscriptions are sent first, so that the answer to a GET is behind their snapshots. */
const AFTER_SUBSCRIBING_MS = 50

const leafOf = ({ joined, muted, joinedAt, lastReadMs, peerName }: StoredRoom): SyncedRoom => {
  return { joined, muted, joinedAt, lastReadMs, peerName }
}

const isSame = (one: SyncedRoom | undefined, other: SyncedRoom): boolean =>
  JSON.stringify(one) === JSON.stringify(other)

export const useSyncStore = defineStore('sync', () => {
  const runtime = useRuntime()
  const rooms = useRoomsStore()
  const groups = useGroupsStore()
  const session = useSessionStore()
  const { clock } = runtime.platform
  /** By room: what the relay has. */
  const known = new Map<RoomId, SyncedRoom>()
  /** Rooms whose change here is not written yet. */
  const changed = new Map<RoomId, () => void>()
  /** Rooms, and how many writes of each the relay has not answered: what it sends meanwhile may be older. */
  const writing = new Map<RoomId, number>()
  /** Updates that arrived before the stored rooms were loaded. */
  let early: Update[] = []
  let profile: unknown = null
  let pins: unknown = null
  /** What was set before is known: what is missing there may be written. */
  let complete = false

  function write(key: string, value: object): Promise<void> {
    const where = address.sync(runtime.self.userId, key)
    // Where the policy refuses it, devices share nothing.
    return runtime.connection.set(where, asValue(value), { durable: true }).catch(() => undefined)
  }

  // --- from the other devices ---

  function hear(update: Update): void {
    const place = parseAddress(update.address)
    if (place?.kind !== 'sync') return
    if (place.key === PROFILE) takeProfile(update.value)
    else if (place.key === GROUPS) takePins(update.value)
    else if (!isRoomId(place.key)) return
    else if (rooms.ready) takeRoom(place.key, update.value)
    else early.push(update)
  }

  function takeProfile(value: unknown): void {
    profile = value
    const shared = parseSyncedProfile(value)
    if (shared) session.takeProfile(shared.name, shared.avatarColor)
  }

  function takePins(value: unknown): void {
    pins = value
    const paths = typeof value === 'object' && value !== null && 'pinned' in value ? value.pinned : null
    if (!Array.isArray(paths)) return
    groups.takePinned(paths.filter((path): path is string => typeof path === 'string' && isGroupPath(path)))
  }

  function takeRoom(roomId: RoomId, value: unknown): void {
    const leaf = parseSyncedRoom(value)
    if (!leaf) {
      known.delete(roomId)
      return
    }
    known.set(roomId, leaf)
    if (!changed.has(roomId) && !writing.has(roomId)) rooms.takeSynced(roomId, leaf)
  }

  // --- to the other devices ---

  function plan(stored: StoredRoom): void {
    if (isSame(known.get(stored.id), leafOf(stored)) || (!stored.joined && !known.has(stored.id))) return
    const before = known.get(stored.id)
    // Whoever mutes a room and closes the page is not to be told of it: the relay reads this, too.
    const urgent = before?.joined !== stored.joined || before.muted !== stored.muted
    changed.get(stored.id)?.()
    changed.set(
      stored.id,
      clock.after(urgent ? 0 : DELAY_MS, () => flush(stored)),
    )
  }

  function flush(stored: StoredRoom): void {
    changed.delete(stored.id)
    if (!runtime.begun) return
    known.set(stored.id, leafOf(stored))
    writing.set(stored.id, (writing.get(stored.id) ?? 0) + 1)
    void write(stored.id, leafOf(stored)).then(() => {
      const left = (writing.get(stored.id) ?? 1) - 1
      if (left > 0) writing.set(stored.id, left)
      else writing.delete(stored.id)
    })
  }

  function writeProfile(): void {
    const { name, color } = runtime.self
    void write(PROFILE, { name, avatarColor: color })
  }

  function writePins(): void {
    void write(GROUPS, { pinned: groups.pinned.map((group) => group.path) })
  }

  /** The first device, or one from before devices shared anything, writes what it has. */
  function fill(): void {
    complete = true
    if (profile === null) writeProfile()
    if (pins === null && groups.pinned.length > 0) writePins()
    for (const stored of rooms.stored()) if (stored.joined && !known.has(stored.id)) plan(stored)
  }

  runtime.on('begin', () => {
    runtime.listenTo(pattern.sync(runtime.self.userId), hear)
  })
  runtime.on('online', () => {
    clock.after(AFTER_SUBSCRIBING_MS, () => {
      runtime.connection.get(address.sync(runtime.self.userId, PROFILE)).then(fill, () => undefined)
    })
  })
  runtime.on('roomsLoaded', () => {
    const waiting = early
    early = []
    waiting.forEach(hear)
  })
  runtime.on('roomKept', plan)
  runtime.on('profileSet', () => complete && writeProfile())
  runtime.on('pinned', () => complete && writePins())
  runtime.on('end', () => {
    for (const stop of changed.values()) stop()
    changed.clear()
    known.clear()
    writing.clear()
    early = []
    profile = pins = null
    complete = false
  })

  return {}
})

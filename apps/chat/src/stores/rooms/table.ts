/** What is known of every room, from all sources, and how it is shown. The other files here read and change it. */
import { shallowReactive } from 'vue'
import type { EncryptionState } from '@/crypto/roomCrypto'
import type { RegistryEntry, RoomMeta } from '@/protocol/shapes'
import type { StoredRoom } from '@/storage/types'
import type { Runtime } from '../runtime'
import type { Room, RoomAccess, RoomId } from '../types'

/** Everything known about a room, from all sources. */
export interface RoomState {
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

export type RoomTable = ReturnType<typeof makeTable>

export function makeTable(runtime: Runtime) {
  const states = shallowReactive(new Map<RoomId, RoomState>())

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
    if (!runtime.begun) return
    void runtime.storage.putRoom(stored)
    runtime.emit('roomKept', stored)
  }

  /** Forgets a room that is neither listed nor joined. */
  function forgetStranger(id: RoomId): void {
    const { listed, grouped, stored } = state(id)
    if (!listed && !grouped && !stored.joined) states.delete(id)
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
    // What the meta says is the word of whoever made the room.
    const peerName = stored.peerName || (peerId !== null && meta?.dmUsers?.[peerId]) || ''
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

  return { states, blank, state, change, keep, forgetStranger, view }
}

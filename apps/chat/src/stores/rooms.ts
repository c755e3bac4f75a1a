import { defineStore } from 'pinia'
import { computed } from 'vue'
import { parseInvitation } from '@/protocol/addresses'
import { recordOf } from '@/protocol/shapes'
import { useNotificationsStore } from './notifications'
import { makeMembership } from './rooms/membership'
import { makeModeration } from './rooms/moderation'
import { makeReadState } from './rooms/readState'
import { makeRegistry } from './rooms/registry'
import { makeTable } from './rooms/table'
import { useRuntime } from './runtime'
import type { Room, RoomId } from './types'

const byName = (one: Room, other: Room): number => one.name.localeCompare(other.name) || (one.id < other.id ? -1 : 1)

export const useRoomsStore = defineStore('rooms', () => {
  const runtime = useRuntime()
  const { origin } = runtime.platform
  const table = makeTable(runtime)
  const { states, state, keep, view } = table
  const registry = makeRegistry(runtime, table)
  const readState = makeReadState(runtime, table)
  const membership = makeMembership(runtime, table, readState, useNotificationsStore())
  const moderation = makeModeration(runtime, table, registry, membership, readState)
  const { activeId, unreadSince } = readState
  const { ready } = membership

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

  runtime.on('begin', () => {
    registry.listen()
    membership.listen()
    void membership.load()
  })
  runtime.on('end', () => {
    states.clear()
    readState.clear()
    ready.value = false
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
    ...moderation,
    lookUp: membership.lookUp,
    join: membership.join,
    leave: membership.leave,
    setMuted: (id: RoomId, muted: boolean) => keep(id, { muted }),
    activate: readState.activate,
    markRead: readState.markRead,
    inviteLink: (id: RoomId) => `${origin}/chat?join=${id}`,
    parseInvite: parseInvitation,
    // For the other stores.
    enter: membership.enter,
    keep,
    noteMessage: readState.noteMessage,
    noteActivity: readState.noteActivity,
    unreadSince: (id: RoomId): number | null => unreadSince.get(id) ?? null,
    lastRead: (id: RoomId) => state(id).stored.lastReadMs,
    isWatched: readState.isWatched,
    takeGrouped: registry.takeGrouped,
    takeSynced: membership.takeSynced,
    stored: () => [...states.values()].map((each) => each.stored),
  }
})

/** What has been read: unread counts, and the room on screen. */
import { ref, shallowReactive } from 'vue'
import type { Runtime } from '../runtime'
import type { RoomId } from '../types'
import type { RoomTable } from './table'

export type ReadState = ReturnType<typeof makeReadState>

export function makeReadState(runtime: Runtime, { states, state, change, keep }: RoomTable) {
  const { attended } = runtime.platform
  const activeId = ref<RoomId | null>(null)
  /** The read position at the time a room with unread messages was opened, ms. */
  const unreadSince = shallowReactive(new Map<RoomId, number>())

  function markRead(id: RoomId): void {
    if (!states.has(id)) return
    if (state(id).unread > 0 || state(id).mentions > 0) change(id, { unread: 0, mentions: 0 })
    // Times of the relay have fractions, which other devices do not read.
    keep(id, { lastReadMs: Math.ceil(Math.max(state(id).stored.lastReadMs, state(id).stored.lastActivityMs)) })
    runtime.emit('read', { roomId: id })
  }

  function activate(id: RoomId | null): void {
    activeId.value = id
    runtime.show(id)
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

  /** Counts what is unread again, after the room was read elsewhere. */
  async function recount(id: RoomId): Promise<void> {
    const { lastReadMs } = state(id).stored
    const unread = await runtime.storage.messages.countSince(id, lastReadMs, runtime.self.userId)
    if (!states.has(id) || state(id).stored.lastReadMs !== lastReadMs) return
    change(id, { unread, mentions: Math.min(unread, state(id).mentions) })
  }

  /** A room is not on screen any more. */
  function close(id: RoomId): void {
    if (activeId.value === id) activate(null)
  }

  function clear(): void {
    unreadSince.clear()
    activeId.value = null
    runtime.show(null)
  }

  runtime.on('wake', () => {
    if (activeId.value !== null && isWatched(activeId.value)) markRead(activeId.value)
  })

  return { activeId, unreadSince, markRead, activate, isWatched, noteMessage, noteActivity, recount, close, clear }
}

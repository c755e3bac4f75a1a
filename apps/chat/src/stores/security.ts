import { defineStore } from 'pinia'
import { computed, shallowReactive, shallowRef } from 'vue'
import { useMembersStore } from './members'
import { useRuntime } from './runtime'
import type { KeyChange, RoomId, UserId } from './types'

export const useSecurityStore = defineStore('security', () => {
  const runtime = useRuntime()
  const members = useMembersStore()
  const changes = shallowReactive(new Map<string, KeyChange>())
  const ownFingerprint = shallowRef<string | null>(null)
  /** Incremented when a fingerprint may have changed: rooms keep them outside of Vue's reactivity. */
  const version = shallowRef(0)

  const keyOf = (roomId: RoomId, userId: UserId): string => `${roomId} ${userId}`

  async function acceptKey(roomId: RoomId, userId: UserId): Promise<void> {
    const change = changes.get(keyOf(roomId, userId))
    if (!change) return
    await runtime.rooms.get(roomId)?.tell({ type: 'accept', userId, fingerprint: change.newFingerprint })
    changes.delete(keyOf(roomId, userId))
    version.value += 1
  }

  function fingerprint(roomId: RoomId, userId: UserId): string | null {
    void version.value
    if (userId === runtime.self.userId) return ownFingerprint.value
    return runtime.rooms.get(roomId)?.fingerprints(userId).at(-1) ?? null
  }

  runtime.on('begin', () => (ownFingerprint.value = runtime.identity.fingerprint))
  runtime.on('end', () => {
    changes.clear()
    ownFingerprint.value = null
  })
  runtime.on('room', (event) => {
    if (event.type === 'update' && event.place.kind === 'pubkey') version.value += 1
    if (event.type !== 'keyChanged') return
    const { roomId, userId, oldFingerprint, newFingerprint } = event
    const name = members.nameOf(roomId, userId)
    changes.set(keyOf(roomId, userId), { roomId, userId, name, oldFingerprint, newFingerprint })
  })

  return {
    ownFingerprint: computed(() => ownFingerprint.value),
    keyChanges: (roomId: RoomId): readonly KeyChange[] =>
      [...changes.values()].filter((change) => change.roomId === roomId),
    acceptKey,
    dismissKeyChange: (roomId: RoomId, userId: UserId): void => {
      changes.delete(keyOf(roomId, userId))
    },
    fingerprint,
  }
})

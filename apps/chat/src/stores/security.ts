import { defineStore } from 'pinia'
import { computed, shallowReactive, shallowRef } from 'vue'
import type { AccountRecord } from '@/protocol/shapes'
import { useMembersStore } from './members'
import { useRuntime } from './runtime'
import type { KeyChange, RoomId, UserId } from './types'

interface AccountChange {
  account: AccountRecord
  oldFingerprint: string
  newFingerprint: string
}

export const useSecurityStore = defineStore('security', () => {
  const runtime = useRuntime()
  const members = useMembersStore()
  const changes = shallowReactive(new Map<string, KeyChange>())
  /** By user: another key of their account than the one that is believed. */
  const accounts = shallowReactive(new Map<UserId, AccountChange>())
  const ownFingerprint = shallowRef<string | null>(null)
  /** Incremented when a fingerprint may have changed: rooms keep them outside of Vue's reactivity. */
  const version = shallowRef(0)

  const keyOf = (roomId: RoomId, userId: UserId): string => `${roomId} ${userId}`

  async function acceptKey(roomId: RoomId, userId: UserId): Promise<void> {
    const account = accounts.get(userId)
    if (account) {
      // First, so that the new devices of the user are theirs when their exchange keys are accepted.
      await runtime.directory.repin(userId, account.account)
      accounts.delete(userId)
    }
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
    accounts.clear()
    ownFingerprint.value = null
  })
  runtime.on('room', (event) => {
    if (event.type === 'update' && event.place.kind === 'pubkey') version.value += 1
    if (event.type !== 'keyChanged') return
    const { roomId, userId, oldFingerprint, newFingerprint } = event
    const name = members.nameOf(roomId, userId)
    changes.set(keyOf(roomId, userId), { roomId, userId, name, oldFingerprint, newFingerprint, account: false })
  })
  runtime.on('accountChanged', ({ userId, ...change }) => accounts.set(userId, change))

  /** The changed account keys of the people in a room; each covers what else changed of its user. */
  function accountChanges(roomId: RoomId): KeyChange[] {
    const isHere = (userId: UserId): boolean =>
      userId === runtime.self.userId ||
      members.presentIds(roomId).includes(userId) ||
      members.away(roomId).some((member) => member.userId === userId)
    return [...accounts]
      .filter(([userId]) => isHere(userId))
      .map(([userId, { oldFingerprint, newFingerprint }]) => {
        const name = members.nameOf(roomId, userId)
        return { roomId, userId, name, oldFingerprint, newFingerprint, account: true }
      })
  }

  return {
    ownFingerprint: computed(() => ownFingerprint.value),
    keyChanges: (roomId: RoomId): readonly KeyChange[] => {
      const whole = accountChanges(roomId)
      const single = [...changes.values()].filter((change) => change.roomId === roomId)
      return [...whole, ...single.filter(({ userId }) => !whole.some((change) => change.userId === userId))]
    },
    acceptKey,
    dismissKeyChange: (roomId: RoomId, userId: UserId): void => {
      accounts.delete(userId)
      changes.delete(keyOf(roomId, userId))
    },
    fingerprint,
  }
})

/** The people whom this user has blocked: nothing of them is shown, counted or announced, anywhere. */
import { defineStore } from 'pinia'
import { computed, shallowReactive } from 'vue'
import { address, isUserId, parseAddress, pattern } from '@/protocol/addresses'
import { Failure } from '@/protocol/errors'
import { asValue, parseBlock } from '@/protocol/shapes'
import { useRuntime } from './runtime'
import type { UserId } from './types'

const STORED = 'blocked'

export const useBlocksStore = defineStore('blocks', () => {
  const runtime = useRuntime()
  const names = shallowReactive(new Map<UserId, string>())

  /** Known here before the relay has said it, so that nothing of them shows up after a reload. */
  async function load(): Promise<void> {
    const { storage } = runtime
    // What the browser cannot read, the relay says.
    const stored = await storage.value(STORED).catch(() => null)
    if (!runtime.begun || runtime.storage !== storage) return
    for (const [userId, name] of Object.entries((stored ?? {}) as Record<string, unknown>))
      if (isUserId(userId) && !names.has(userId)) names.set(userId, String(name))
  }

  function change(userId: UserId, name: string | null): void {
    if (name === null) names.delete(userId)
    else names.set(userId, name)
    // The relay keeps it, too.
    runtime.storage.putValue(STORED, Object.fromEntries(names)).catch(() => undefined)
  }

  async function block(userId: UserId, name: string): Promise<void> {
    if (userId === runtime.self.userId) throw new Failure('invalid', 'blocking oneself', { reason: 'friendIsSelf' })
    const value = asValue({ name, blockedAt: runtime.platform.clock.now() })
    change(userId, name)
    await runtime.connection.set(address.blocked(runtime.self.userId, userId), value, { durable: true })
  }

  async function unblock(userId: UserId): Promise<void> {
    change(userId, null)
    await runtime.connection.set(address.blocked(runtime.self.userId, userId), null, { durable: true })
  }

  runtime.on('begin', ({ userId: me }) => {
    void load()
    runtime.listenTo(pattern.blocked(me), ({ address: from, value }) => {
      const place = parseAddress(from)
      if (place?.kind === 'blocked') change(place.blockedId, parseBlock(value)?.name ?? null)
    })
  })
  runtime.on('end', () => names.clear())

  return {
    blocked: computed(() =>
      [...names].map(([userId, name]) => ({ userId, name })).sort((one, other) => one.name.localeCompare(other.name)),
    ),
    isBlocked: (userId: UserId | null) => userId !== null && names.has(userId),
    block,
    unblock,
  }
})

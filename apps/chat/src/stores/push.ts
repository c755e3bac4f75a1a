import { defineStore } from 'pinia'
import { computed, ref, watch } from 'vue'
import { fromBase64Url } from '@/crypto/bytes'
import { i18n } from '@/i18n'
import { address } from '@/protocol/addresses'
import { Failure } from '@/protocol/errors'
import { useNotificationsStore } from './notifications'
import { useRoomsStore } from './rooms'
import { useRuntime } from './runtime'
import type { PushStore } from './types'

/** Whose push messages this browser gets; signing out removes it, like everything that begins so. */
const KEY = 'clasp-chat-push'
const MENTIONS_KEY = 'clasp-relay-push-mentions'
const VISIBLE_TTL_S = 60
const VISIBLE_EVERY_MS = 30_000
const MAX_ROOMS = 300
const KINDS = ['dm', 'mention', 'call'] as const

/** Push messages for the time in which no page is on screen, and the sign to the relay that one is. */
export const usePushStore = defineStore('push', () => {
  const runtime = useRuntime()
  const rooms = useRoomsStore()
  const notifications = useNotificationsStore()
  const { local, push, clock, visible } = runtime.platform

  const relayKey = ref<string | null>(null)
  const permission = ref<NotificationPermission>(push?.permission() ?? 'denied')
  const subscribed = ref(false)
  const busy = ref(false)
  const tellsMentions = ref(local.getItem(MENTIONS_KEY) === 'true')
  const state = computed<PushStore['state']>(() => {
    if (!push || relayKey.value === null) return 'unavailable'
    if (permission.value === 'denied') return 'blocked'
    return subscribed.value ? 'on' : 'off'
  })
  /** Where and when the sign was set last. */
  let shown: { at: string; ms: number } | null = null

  // --- the subscription ---

  async function turn(on: boolean): Promise<void> {
    if (!push || relayKey.value === null || busy.value) return
    busy.value = true
    try {
      if (!on) return await stop()
      if (push.permission() === 'default') await push.ask()
      permission.value = push.permission()
      if (permission.value === 'granted') await subscribe(relayKey.value)
    } finally {
      busy.value = false
    }
  }

  async function subscribe(key: string): Promise<void> {
    if (!push || runtime.token === null) return
    const bytes = fromBase64Url(key)
    let subscription: PushSubscriptionJSON
    try {
      subscription = await push.subscribe(bytes)
    } catch {
      // Another key: the relay has lost its own, or this was another relay.
      await push.unsubscribe()
      subscription = await push.subscribe(bytes)
    }
    if (!subscription.endpoint || !subscription.keys) throw new Failure('server', 'a subscription without keys')
    const { endpoint, keys } = subscription
    await runtime.auth.subscribePush(runtime.token, { endpoint, keys })
    local.setItem(KEY, runtime.self.userId)
    subscribed.value = true
    await leaveWords()
  }

  async function stop(): Promise<void> {
    const current = await push?.current()
    subscribed.value = false
    local.removeItem(KEY)
    await push?.unsubscribe()
    await push?.leaveWords(null)
    if (current?.endpoint && runtime.token) await runtime.auth.unsubscribePush(runtime.token, current.endpoint)
  }

  /** At the beginning of a session: what this browser was told to do is done again, since subscriptions may end. */
  async function resume(): Promise<void> {
    if (!push) return
    try {
      relayKey.value = await runtime.auth.pushKey()
      permission.value = push.permission()
      const wanted = local.getItem(KEY) === runtime.self.userId && permission.value === 'granted'
      if (wanted && relayKey.value !== null) await subscribe(relayKey.value)
      else if (local.getItem(KEY) === null && (await push.current())) await push.unsubscribe()
    } catch {
      // No answer now: the subscription of before goes on, or the person turns it on again.
      subscribed.value = local.getItem(KEY) === runtime.self.userId
    }
  }

  // --- what the service worker can say ---

  const words = computed(() => {
    const known = Object.values(rooms.byId).filter((room) => room.joined || room.peerId !== null)
    const named = known.sort((one, other) => other.lastActivityMs - one.lastActivityMs).slice(0, MAX_ROOMS)
    return {
      titles: Object.fromEntries(KINDS.map((kind) => [kind, i18n.global.t(`push.${kind}`)])),
      rooms: Object.fromEntries(named.map(({ id, name }) => [id, name])),
      muted: named.filter((room) => room.muted).map((room) => room.id),
    }
  })

  async function leaveWords(): Promise<void> {
    if (!push || !subscribed.value) return
    try {
      await push.leaveWords(words.value)
    } catch {
      // No room on the disk: the service worker has words of its own.
    }
  }

  // --- the sign that a page is on screen ---

  function show(): void {
    const { sessionId } = runtime.connection.status
    if (!runtime.begun || sessionId === null) return
    const at = address.visible(runtime.self.userId, sessionId)
    const now = clock.now()
    if (!visible()) {
      if (shown?.at === at) void runtime.connection.set(at, null, { urgent: true }).catch(() => undefined)
      shown = null
      void leaveWords()
    } else if (shown?.at !== at || now - shown.ms >= VISIBLE_EVERY_MS) {
      shown = { at, ms: now }
      // Refused or lost: the next beat says it again.
      void runtime.connection.set(at, { since: now }, { ttlS: VISIBLE_TTL_S }).catch(() => (shown = null))
    }
  }

  function hide(): void {
    if (shown) void runtime.connection.set(shown.at, null, { urgent: true }).catch(() => undefined)
    shown = null
  }

  runtime.on('begin', () => void resume())
  runtime.on('online', show)
  runtime.on('beat', show)
  runtime.on('wake', show)
  runtime.on('end', () => {
    shown = null
    subscribed.value = false
    // Signed out, where the key is gone: this browser is told of nothing any more.
    if (local.getItem(KEY) === null) void Promise.allSettled([push?.unsubscribe(), push?.leaveWords(null)])
  })
  runtime.platform.onClose(hide)
  push?.onClick((room) => (notifications.openRoom = room))
  watch(
    () => JSON.stringify(words.value),
    () => void leaveWords(),
  )

  return {
    state,
    busy: computed(() => busy.value),
    tellsMentions: computed(() => tellsMentions.value),
    turn,
    setTellsMentions: (on: boolean) => {
      tellsMentions.value = on
      local.setItem(MENTIONS_KEY, String(on))
    },
  }
})

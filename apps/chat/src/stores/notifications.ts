import { defineStore } from 'pinia'
import { computed, ref, shallowRef } from 'vue'
import { failureText } from '@/i18n/failures'
import { useRuntime } from './runtime'
import type { Notice, NotificationsStore } from './types'

const LIFETIME_MS = 5_000
/** Errors stay longer. */
const ERROR_LIFETIME_MS = 10_000
/** What asks for something waits longer for it. */
const ACTION_LIFETIME_MS = 20_000
const MAX_NOTICES = 5
const MAX_BODY = 200

export const useNotificationsStore = defineStore('notifications', () => {
  const runtime = useRuntime()
  const notices = shallowRef<readonly Notice[]>([])
  const supported = typeof Notification !== 'undefined'
  const permission = ref<NotificationsStore['permission']>(supported ? Notification.permission : 'unsupported')
  /** The room of a clicked desktop notification; the app opens it and resets this. */
  const openRoom = ref<string | null>(null)
  let nextId = 1

  function dismiss(id: number): void {
    notices.value = notices.value.filter((notice) => notice.id !== id)
  }

  const notify: NotificationsStore['notify'] = ({
    kind,
    key,
    params = {},
    quote = '',
    roomId = null,
    opens = null,
    action = null,
  }) => {
    const id = nextId++
    notices.value = [...notices.value, { id, kind, key, params, quote, roomId, opens, action }].slice(-MAX_NOTICES)
    const lifeMs = action ? ACTION_LIFETIME_MS : kind === 'error' ? ERROR_LIFETIME_MS : LIFETIME_MS
    runtime.platform.clock.after(lifeMs, () => dismiss(id))
  }

  function fail(error: unknown): void {
    notify({ kind: 'error', ...failureText(error) })
  }

  async function askPermission(): Promise<void> {
    if (supported) permission.value = await Notification.requestPermission()
  }

  /** Shows a desktop notification while the page is not attended. A click opens the room. */
  function desktop(note: { title: string; body: string; roomId: string; mention: boolean }): void {
    if (!supported || permission.value !== 'granted' || runtime.platform.attended()) return
    const { title, body, roomId, mention } = note
    const shown = new Notification(title, { body: body.slice(0, MAX_BODY), tag: roomId, silent: !mention })
    shown.onclick = () => {
      window.focus()
      openRoom.value = roomId
      shown.close()
    }
  }

  runtime.on('refusal', ({ failure }) => fail(failure))
  runtime.on('storage', (state) =>
    notify({ kind: 'error', key: state === 'taken' ? 'notices.storageTaken' : 'notices.storageRefused' }),
  )
  runtime.on('signedOut', () => notify({ kind: 'warning', key: 'notices.sessionEnded' }))
  runtime.on('end', () => (notices.value = []))

  return {
    notices: computed(() => notices.value),
    permission: computed(() => permission.value),
    notify,
    fail,
    dismiss,
    askPermission,
    openRoom,
    desktop,
  }
})

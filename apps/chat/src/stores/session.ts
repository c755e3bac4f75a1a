import { defineStore } from 'pinia'
import { computed, ref } from 'vue'
import { isUserId } from '@/protocol/addresses'
import type { Grant } from '@/protocol/auth'
import { Failure } from '@/protocol/errors'
import { isColor } from '@/protocol/shapes'
import { exportData, readExport, storeImport } from '@/storage/transfer'
import { useRuntime } from './runtime'
import { startStores } from './start'
import type { Status } from './types'

/** Keys in localStorage, the same as in the original app, so that its users continue here. */
const KEY = {
  token: 'clasp-chat-token',
  userId: 'clasp-chat-userId',
  username: 'clasp-chat-auth-username',
  displayName: 'clasp-chat-displayName',
  color: 'clasp-chat-avatarColor',
  status: 'clasp-chat-status',
} as const
const PREFIX = 'clasp-chat'
const COLORS = [
  '#e5484d',
  '#d6409f',
  '#8e4ec6',
  '#3e63dd',
  '#0090ff',
  '#12a594',
  '#30a46c',
  '#f76b15',
  '#ad7f58',
  '#646464',
]
const STATUSES: readonly string[] = ['online', 'away', 'dnd', 'invisible']
/** Time before expiry at which a token is renewed, so that a page that was asleep overnight stays signed in. */
const RENEW_AHEAD_MS = 6 * 3_600_000
const MIN_RENEW_MS = 60_000
/** The longest delay of a timer. */
const MAX_TIMER_MS = 2 ** 31 - 1
const MAX_NAME = 32

export const useSessionStore = defineStore('session', () => {
  const runtime = useRuntime()
  const { local, newId, random, clock } = runtime.platform

  const ready = ref(false)
  const signedIn = ref(false)
  const guest = ref(true)
  const userId = ref('')
  const username = ref<string | null>(null)
  const displayName = ref('')
  const color = ref('')
  const status = ref<Status>('online')
  let restoring: Promise<void> | null = null
  let stopRenewing: () => void = () => undefined

  function publishSelf(): void {
    runtime.self = { userId: userId.value, name: displayName.value, color: color.value, status: status.value }
  }

  function readStored(): void {
    const storedId = local.getItem(KEY.userId) ?? ''
    userId.value = isUserId(storedId) ? storedId : newId()
    local.setItem(KEY.userId, userId.value)
    username.value = local.getItem(KEY.username)
    guest.value = username.value === null
    displayName.value = (local.getItem(KEY.displayName) ?? '').slice(0, MAX_NAME)
    const storedColor = local.getItem(KEY.color)
    color.value = isColor(storedColor) ? storedColor : (COLORS[Math.floor(random() * COLORS.length)] as string)
    local.setItem(KEY.color, color.value)
    const storedStatus = local.getItem(KEY.status) ?? ''
    status.value = STATUSES.includes(storedStatus) ? (storedStatus as Status) : 'online'
    publishSelf()
  }

  async function start(): Promise<void> {
    publishSelf()
    signedIn.value = true
    startStores()
    if (!runtime.begun) await runtime.begin(userId.value)
    void planRenewal()
  }

  function restore(): Promise<void> {
    restoring ??= (async () => {
      readStored()
      runtime.token = local.getItem(KEY.token)
      if (runtime.token !== null) await start()
      ready.value = true
    })()
    return restoring
  }

  /** Starts the session of a new token; a session of another user is ended first. */
  async function accept(grant: Grant, asGuest: boolean, bring = false): Promise<void> {
    const another = grant.userId !== userId.value
    // Conversations are between two users, one of whom the guest was.
    const brought =
      bring && another && runtime.begun
        ? await exportData(runtime.storage, clock.now(), (room) => room.meta?.type !== 'dm')
        : null
    // Nobody can sign in as this guest again: its database would stay on the disk for ever.
    if (another && runtime.begun) await runtime.end(guest.value)
    runtime.token = grant.token
    userId.value = grant.userId
    guest.value = asGuest
    username.value = asGuest ? null : grant.username
    local.setItem(KEY.token, grant.token)
    local.setItem(KEY.userId, grant.userId)
    if (asGuest) local.removeItem(KEY.username)
    else local.setItem(KEY.username, grant.username)
    if (displayName.value === '' || (another && !asGuest)) applyProfile({ displayName: grant.username })
    if (runtime.begun) {
      runtime.connection.stop()
      runtime.connection.start()
    }
    await start()
    if (brought === null) return
    await storeImport(runtime.storage, await readExport(brought))
    await runtime.reopen()
  }

  async function continueAsGuest(name: string): Promise<void> {
    readStored()
    setProfile({ displayName: name })
    if (displayName.value === '') throw new Failure('invalid', 'empty name', { reason: 'nameNeeded' })
    let grant: Grant
    try {
      grant = await runtime.auth.guest(displayName.value, userId.value, local.getItem(KEY.token))
    } catch (error) {
      if (!(error instanceof Failure) || error.kind !== 'identityTaken') throw error
      // The id has been taken over, and without a valid token there is no way to prove that it is ours.
      grant = await runtime.auth.guest(displayName.value, newId(), null)
    }
    await accept(grant, true)
  }

  async function register(name: string, password: string): Promise<void> {
    readStored()
    await accept(await runtime.auth.register(name, password, userId.value, local.getItem(KEY.token)), false)
  }

  async function login(name: string, password: string, bring = false): Promise<void> {
    await accept(await runtime.auth.login(name, password), false, bring)
  }

  async function changePassword(oldPassword: string, newPassword: string): Promise<void> {
    await runtime.auth.changePassword(runtime.token ?? '', oldPassword, newPassword)
  }

  function forgetEverything(): void {
    stopRenewing()
    runtime.token = null
    signedIn.value = false
    restoring = null
    const keys = Array.from({ length: local.length }, (_, index) => local.key(index) ?? '')
    for (const key of keys) if (key.startsWith(PREFIX)) local.removeItem(key)
    local.removeItem('recent-emojis')
  }

  async function logout(): Promise<void> {
    const { token } = runtime
    forgetEverything()
    // End the session first: the relay accepts the end of the presence only while the token is valid. A token that
    // could not be revoked expires.
    await Promise.allSettled([runtime.end(true)])
    if (token) await Promise.allSettled([runtime.auth.logout(token)])
    readStored()
  }

  function setProfile(change: { displayName?: string; color?: string; status?: Status }): void {
    applyProfile(change)
    if (change.displayName !== undefined || change.color !== undefined) runtime.emit('profileSet', null)
  }

  function applyProfile(change: { displayName?: string; color?: string; status?: Status }): void {
    if (change.displayName !== undefined) displayName.value = change.displayName.trim().slice(0, MAX_NAME)
    if (change.color !== undefined && isColor(change.color)) color.value = change.color
    if (change.status !== undefined) status.value = change.status
    local.setItem(KEY.displayName, displayName.value)
    local.setItem(KEY.color, color.value)
    local.setItem(KEY.status, status.value)
    publishSelf()
    runtime.emit('self', null)
    for (const room of runtime.rooms.values()) room.beat()
  }

  /** Another device of this user chose the name or the color. */
  function takeProfile(name: string, chosen: string): void {
    if (name !== displayName.value || chosen !== color.value) applyProfile({ displayName: name, color: chosen })
  }

  // --- renewing the token ---

  async function planRenewal(): Promise<void> {
    stopRenewing()
    const { token } = runtime
    if (!token) return
    try {
      const { expiresAtMs, guest: isGuest } = await runtime.auth.me(token)
      guest.value = isGuest
      const inMs = Math.max(MIN_RENEW_MS, expiresAtMs - clock.now() - RENEW_AHEAD_MS)
      stopRenewing = clock.after(Math.min(inMs, MAX_TIMER_MS), () => void renew().then(planRenewal, planRenewal))
    } catch {
      // No answer, or an expired token: the relay refuses it at the next HELLO, and it is renewed then.
    }
  }

  /** Renews the token; false: the user must sign in again. Rejects if the server was not reached. */
  async function renew(): Promise<boolean> {
    const stored = local.getItem(KEY.token)
    if (stored !== null && stored !== runtime.token) {
      // Another tab has already renewed it.
      runtime.token = stored
      return true
    }
    const token = runtime.token ?? ''
    try {
      takeToken((await runtime.auth.refresh(token)).token)
      return true
    } catch (error) {
      if (!(error instanceof Failure) || error.kind !== 'signedOut') throw error
    }
    if (!guest.value) return false
    try {
      takeToken((await runtime.auth.guest(displayName.value, userId.value, token)).token)
      return true
    } catch (error) {
      if (error instanceof Failure && error.kind === 'identityTaken') return false
      throw error
    }
  }

  function takeToken(token: string): void {
    runtime.token = token
    local.setItem(KEY.token, token)
  }

  runtime.renewToken = renew

  if (typeof window !== 'undefined') {
    window.addEventListener('storage', ({ key, newValue }) => {
      // Signed out in another tab, or signed in as somebody else: this session has ended.
      const other = key === KEY.userId && newValue !== null && newValue !== userId.value
      if (signedIn.value && ((key === KEY.token && newValue === null) || other)) void leaveTab()
    })
  }

  async function leaveTab(): Promise<void> {
    stopRenewing()
    signedIn.value = false
    restoring = null
    await runtime.end(false)
  }

  return {
    ready: computed(() => ready.value),
    signedIn: computed(() => signedIn.value),
    guest: computed(() => guest.value),
    userId: computed(() => userId.value),
    username: computed(() => username.value),
    displayName: computed(() => displayName.value),
    color: computed(() => color.value),
    status: computed(() => status.value),
    restore,
    continueAsGuest,
    register,
    login,
    changePassword,
    logout,
    setProfile,
    // For the other stores.
    takeProfile,
  }
})

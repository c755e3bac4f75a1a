/** Who is signed in to the console. The token is in memory, and in sessionStorage until the tab is closed. */
import { inject, reactive, readonly, type DeepReadonly, type InjectionKey } from 'vue'
import { Failure } from '@/protocol/errors'
import type { Fetch } from '@/protocol/http'
import { systemClock, type Clock } from '@/protocol/clock'
import { AdminApi } from './api'
import type { Who } from './shapes'

const STORED = 'clasp-console-token'

export interface ConsoleState {
  who: Who | null
  /** The relay has ended the session: the sign-in page says so. */
  ended: boolean
}

export interface Console {
  readonly state: DeepReadonly<ConsoleState>
  readonly api: AdminApi
  readonly fetch: Fetch
  readonly clock: Clock
  readonly token: () => string | null
  signIn(username: string, password: string): Promise<void>
  /** Signs in with a token that somebody has. */
  useToken(token: string): Promise<void>
  signOut(): Promise<void>
  /** Goes on with the token of this tab, after a reload. */
  restore(): Promise<void>
}

export interface ConsoleOptions {
  base: string
  fetch: Fetch
  clock: Clock
  /** Throws where the browser stores nothing; the token is then in memory only. */
  storage: () => Pick<Storage, 'getItem' | 'setItem' | 'removeItem'>
}

export const CONSOLE: InjectionKey<Console> = Symbol('console')

export function useConsole(): Console {
  const session = inject(CONSOLE)
  if (!session) throw new Error('no console was provided')
  return session
}

export function makeConsole({ base, fetch, clock, storage }: ConsoleOptions): Console {
  const state = reactive<ConsoleState>({ who: null, ended: false })
  let token: string | null = null

  function keep(value: string | null): void {
    token = value
    try {
      if (value === null) storage().removeItem(STORED)
      else storage().setItem(STORED, value)
    } catch {
      // The browser stores nothing for this page: a reload asks for the password again.
    }
  }

  function kept(): string | null {
    try {
      return storage().getItem(STORED)
    } catch {
      return null
    }
  }

  function end(): void {
    if (!state.who) return
    keep(null)
    state.who = null
    state.ended = true
  }

  const api = new AdminApi(base, fetch, () => token, end)

  async function useToken(given: string): Promise<void> {
    state.who = await api.describe(given.trim())
    state.ended = false
    keep(given.trim())
  }

  return {
    state: readonly(state),
    api,
    fetch,
    clock,
    token: () => token,
    useToken,
    async signIn(username, password) {
      await useToken((await api.signIn(username.trim(), password)).token)
    },
    async signOut() {
      const isOwn = state.who?.isToken === false
      // The relay's own token stays valid, and what a console token could do ends here, whether the relay hears it or not.
      if (isOwn) await api.post('logout').catch(() => undefined)
      state.who = null
      keep(null)
    },
    async restore() {
      const stored = kept()
      if (token !== null || stored === null) return
      await useToken(stored).catch((error: unknown) => {
        if (error instanceof Failure && error.kind === 'network') throw error
        keep(null)
        state.ended = true
      })
    },
  }
}

export const browserConsole = (): Console =>
  makeConsole({
    base: import.meta.env.VITE_AUTH_API_URL ?? '',
    fetch: (url, init) => window.fetch(url, init),
    clock: systemClock,
    storage: () => window.sessionStorage,
  })

/** Somebody with a browser: all the stores, over a platform that a test controls. */
import { createPinia, setActivePinia } from 'pinia'
import type { SocketLike } from '@/protocol/connection'
import {
  useBlocksStore,
  useCallsStore,
  useConnectionStore,
  useDevicesStore,
  useFilesStore,
  useFriendsStore,
  useGroupsStore,
  useMembersStore,
  useMessagesStore,
  useNotificationsStore,
  usePushStore,
  useReportsStore,
  useRoomsStore,
  useSecurityStore,
  useSessionStore,
  useSettingsStore,
} from '@/stores'
import type { Platform } from '@/stores/platform'
import { Runtime, setRuntime } from '@/stores/runtime'
import { seeded } from '../random'
import type { Clock } from '@/protocol/clock'

export class MemoryStorage {
  private readonly items = new Map<string, string>();
  [key: string]: unknown

  getItem(key: string): string | null {
    return this.items.get(key) ?? null
  }

  setItem(key: string, value: string): void {
    this.items.set(key, value)
    Object.defineProperty(this, key, { value, enumerable: true, configurable: true, writable: true })
  }

  removeItem(key: string): void {
    this.items.delete(key)
    delete this[key]
  }

  key(index: number): string | null {
    return [...this.items.keys()][index] ?? null
  }

  get length(): number {
    return this.items.size
  }
}

/** What the tabs of one browser have in common beside their storage. Everything takes one turn of the event loop. */
class Browser {
  private readonly waiting = new Map<string, (() => void)[]>()
  private readonly listeners = new Map<string, Set<(message: unknown) => void>>()

  /** The first holds the lock; the next one gets it when it is released. */
  alone: Platform['alone'] = (name, callback) => {
    const queue = this.waiting.get(name) ?? []
    this.waiting.set(name, queue)
    const grant = (): void => void setImmediate(() => queue[0] === grant && callback())
    queue.push(grant)
    if (queue[0] === grant) grant()
    return () => {
      const held = queue[0] === grant
      if (queue.includes(grant)) queue.splice(queue.indexOf(grant), 1)
      if (held) queue[0]?.()
    }
  }

  channel: Platform['channel'] = (name, hear) => {
    const all = this.listeners.get(name) ?? new Set()
    this.listeners.set(name, all.add(hear))
    const tell = (message: string): void => {
      for (const other of all) if (other !== hear) setImmediate(() => all.has(other) && other(message))
    }
    return { tell, close: () => void all.delete(hear) }
  }
}

const browsers = new WeakMap<object, Browser>()

function browserOf(local: MemoryStorage): Browser {
  const known = browsers.get(local) ?? new Browser()
  browsers.set(local, known)
  return known
}

export interface World {
  clock: Clock
  connect: (url: string) => SocketLike
  relayUrl?: string
  authBase?: string
  fetch?: Platform['fetch']
  calls?: () => Platform['calls']
  postBytes?: Platform['postBytes']
  push?: Platform['push']
}

let people = 0

export function makePerson(world: World, name: string, userId = name.toLowerCase(), local = new MemoryStorage()) {
  const seed = ++people
  const random = seeded(seed)
  const listeners = {
    beat: () => undefined as void,
    wake: () => undefined as void,
    offline: () => undefined as void,
    close: () => undefined as void,
  }
  const state = { attended: true }
  const hex = (digits: number): string =>
    Array.from({ length: digits }, () => Math.floor(random() * 16).toString(16)).join('')
  const platform: Platform = {
    clock: world.clock,
    random,
    relayUrl: world.relayUrl ?? 'ws://relay.test/ws',
    authBase: world.authBase ?? '',
    origin: 'https://chat.test',
    makeSocket: world.connect,
    fetch: world.fetch ?? (() => Promise.reject(new Error('no network'))),
    postBytes: world.postBytes ?? (() => Promise.reject(new Error('no network'))),
    local: local as unknown as globalThis.Storage,
    newId: () => `${hex(8)}-${hex(4)}-4${hex(3)}-8${hex(3)}-${hex(12)}`,
    deviceName: 'Test',
    beat: (everyMs, callback) => {
      let stop = (): void => undefined
      const tick = (): void => {
        callback()
        stop = world.clock.after(everyMs, tick)
      }
      stop = world.clock.after(everyMs, tick)
      listeners.beat = callback
      return () => stop()
    },
    attended: () => state.attended,
    onWake: (callback) => {
      listeners.wake = callback
      return () => undefined
    },
    onOffline: (callback) => {
      listeners.offline = callback
      return () => undefined
    },
    alone: (lock, callback) => browserOf(local).alone(lock, callback),
    channel: (channel, hear) => browserOf(local).channel(channel, hear),
    calls: world.calls?.() ?? null,
    visible: () => state.attended,
    push: world.push ?? null,
    onClose: (callback) => {
      const { close } = listeners
      listeners.close = () => {
        close()
        callback()
      }
      return () => undefined
    },
  }
  const runtime = new Runtime(platform)
  setRuntime(runtime)
  setActivePinia(createPinia())
  const stores = {
    session: useSessionStore(),
    notifications: useNotificationsStore(),
    blocks: useBlocksStore(),
    connection: useConnectionStore(),
    settings: useSettingsStore(),
    rooms: useRoomsStore(),
    members: useMembersStore(),
    security: useSecurityStore(),
    messages: useMessagesStore(),
    files: useFilesStore(),
    friends: useFriendsStore(),
    devices: useDevicesStore(),
    groups: useGroupsStore(),
    calls: useCallsStore(),
    push: usePushStore(),
    reports: useReportsStore(),
  }
  return {
    ...stores,
    name,
    userId,
    runtime,
    local,
    listeners,
    state,
    /** Signs in by a token that a relay without an auth API takes. */
    async start(): Promise<void> {
      local.setItem('clasp-chat-token', userId)
      local.setItem('clasp-chat-userId', userId)
      local.setItem('clasp-chat-displayName', name)
      await stores.session.restore()
    },
  }
}

export type Tester = ReturnType<typeof makePerson>

/** The browser functions that the stores use, in one place, so that tests can replace them. */
import type { SocketLike } from '@/protocol/connection'
import { openMeter, type Meter } from '@/calls/meter'
import type { MediaSource } from '@/calls/media'
import { postBytes, type PostBytes } from '@/protocol/files'
import { systemClock, type Clock, type Random } from '@/protocol/clock'

export type LocalStorage = Pick<globalThis.Storage, 'getItem' | 'setItem' | 'removeItem' | 'key' | 'length'>

export interface CallPlatform {
  media: MediaSource
  meter: (track: MediaStreamTrack) => Meter
  connect: (configuration: RTCConfiguration) => RTCPeerConnection
}

/** What a push message can say in the absence of a page; see `sw.ts`. */
export interface PushWords {
  /** By the kind of the message. */
  titles: Readonly<Record<string, string>>
  /** Names of rooms, by id. */
  rooms: Readonly<Record<string, string>>
  /** Rooms that make no sound. */
  muted: readonly string[]
}

export interface PushPlatform {
  permission: () => NotificationPermission
  /** Asks the person; to be called from a click handler. */
  ask: () => Promise<NotificationPermission>
  current: () => Promise<PushSubscriptionJSON | null>
  subscribe: (key: Uint8Array<ArrayBuffer>) => Promise<PushSubscriptionJSON>
  unsubscribe: () => Promise<void>
  /** Leaves words for the service worker; null takes them away. */
  leaveWords: (words: PushWords | null) => Promise<void>
  /** Calls back with the room of a notification that was clicked. */
  onClick: (callback: (room: string) => void) => () => void
}

export interface Platform {
  clock: Clock
  random: Random
  /** URL of the relay's WebSocket. */
  relayUrl: string
  /** URL prefix before `/auth/…`. */
  authBase: string
  /** Origin of invitation links. */
  origin: string
  makeSocket: (url: string) => SocketLike
  fetch: (url: string, init: RequestInit) => Promise<Response>
  /** Sends a file, and tells the progress. */
  postBytes: PostBytes
  local: LocalStorage
  newId: () => string
  /** What this browser is called among the devices of a user. */
  deviceName: string
  /** Calls back periodically, also while the window is hidden; returns the function that ends it. */
  beat: (everyMs: number, callback: () => void) => () => void
  /** Whether the page is visible and has the focus. */
  attended: () => boolean
  /** Calls back when the page returns to the foreground, to the network or from sleep. */
  onWake: (callback: () => void) => () => void
  /** Calls back when the browser loses the network. */
  onOffline: (callback: () => void) => () => void
  /** Calls back when this tab gets the lock of this name, which one tab of the browser holds at a time. */
  alone: (name: string, callback: () => void) => () => void
  /** Messages between the tabs of this browser. */
  channel: (name: string, hear: (message: unknown) => void) => { tell: (message: string) => void; close: () => void }
  /** What calls need; null: the browser has none of it, or gives it to secure pages only. */
  calls: CallPlatform | null
  /** Whether the page is on screen. */
  visible: () => boolean
  /** null: the browser has no push messages. */
  push: PushPlatform | null
  /** Calls back when the page is being closed. */
  onClose: (callback: () => void) => () => void
}

/** Timers of hidden windows run once a minute; those of a worker are not throttled. */
function beatFromWorker(everyMs: number, callback: () => void): () => void {
  const worker = new Worker(new URL('./beat.worker.ts', import.meta.url), { type: 'module' })
  worker.onmessage = callback
  worker.postMessage(everyMs)
  return () => worker.terminate()
}

function listen(targets: readonly (readonly [EventTarget, string])[], callback: () => void): () => void {
  for (const [target, type] of targets) target.addEventListener(type, callback)
  return () => {
    for (const [target, type] of targets) target.removeEventListener(type, callback)
  }
}

function ownRelayUrl(): string {
  const { protocol, host } = window.location
  return `${protocol === 'https:' ? 'wss:' : 'ws:'}//${host}/ws`
}

/** Holds a lock until it is released or the tab is closed; then the next tab gets it. */
function lockAlone(name: string, callback: () => void): () => void {
  const waiting = new AbortController()
  let release = (): void => waiting.abort()
  const held = (): Promise<void> =>
    new Promise((resolve) => {
      release = resolve
      callback()
    })
  // Aborted before the lock was granted: nothing to do.
  navigator.locks.request(name, { signal: waiting.signal }, held).catch(() => undefined)
  return () => release()
}

function broadcast(
  name: string,
  hear: (message: unknown) => void,
): { tell: (message: string) => void; close: () => void } {
  const channel = new BroadcastChannel(name)
  channel.onmessage = ({ data }) => hear(data)
  return { tell: (message) => channel.postMessage(message), close: () => channel.close() }
}

/** `localStorage` that lasts as long as the page, for browsers that refuse the real one. */
class PageStorage implements Pick<globalThis.Storage, 'getItem' | 'setItem' | 'removeItem' | 'key' | 'length'> {
  private readonly items = new Map<string, string>()

  get length(): number {
    return this.items.size
  }

  getItem(key: string): string | null {
    return this.items.get(key) ?? null
  }

  setItem(key: string, value: string): void {
    this.items.set(key, value)
  }

  removeItem(key: string): void {
    this.items.delete(key)
  }

  key(index: number): string | null {
    return [...this.items.keys()][index] ?? null
  }
}

/** Reading the property throws where cookies and site data are blocked. */
function localOrMemory(): LocalStorage {
  try {
    return window.localStorage
  } catch {
    return new PageStorage()
  }
}

const BROWSERS = ['Edg', 'OPR', 'Firefox', 'Chrome', 'Safari'] as const
const BROWSER_NAMES = { Edg: 'Edge', OPR: 'Opera', Firefox: 'Firefox', Chrome: 'Chrome', Safari: 'Safari' } as const
const SYSTEMS = ['Android', 'iPhone', 'iPad', 'Windows', 'Mac OS', 'Linux'] as const

/** The browser and the system in a user agent, such as `Firefox · Linux`. */
export function deviceName(userAgent: string): string {
  const browser = BROWSERS.find((name) => userAgent.includes(`${name}/`))
  const system = SYSTEMS.find((name) => userAgent.includes(name))
  return [browser && BROWSER_NAMES[browser], system].filter(Boolean).join(' · ') || 'Browser'
}

function browserCalls(): CallPlatform | null {
  if (typeof RTCPeerConnection === 'undefined' || !('mediaDevices' in navigator)) return null
  return {
    media: navigator.mediaDevices,
    meter: openMeter,
    connect: (configuration) => new RTCPeerConnection(configuration),
  }
}

const WORDS_CACHE = 'clasp-push'
const WORDS = '/push-words.json'

function browserPush(): PushPlatform | null {
  if (!('serviceWorker' in navigator) || !('PushManager' in window) || typeof Notification === 'undefined') return null
  const worker = navigator.serviceWorker
  const manager = async (): Promise<PushManager> => (await worker.ready).pushManager
  return {
    permission: () => Notification.permission,
    ask: () => Notification.requestPermission(),
    current: async () => (await (await manager()).getSubscription())?.toJSON() ?? null,
    subscribe: async (key) => {
      const options = { userVisibleOnly: true, applicationServerKey: key }
      return (await (await manager()).subscribe(options)).toJSON()
    },
    unsubscribe: async () => {
      await (await (await manager()).getSubscription())?.unsubscribe()
    },
    leaveWords: async (words) => {
      if (words) await (await caches.open(WORDS_CACHE)).put(WORDS, Response.json(words))
      else await caches.delete(WORDS_CACHE)
    },
    onClick: (callback) => {
      const hear = ({ data }: MessageEvent): void => {
        const { openRoom } = Object(data) as { openRoom?: unknown }
        if (typeof openRoom === 'string') callback(openRoom)
      }
      worker.addEventListener('message', hear)
      return () => worker.removeEventListener('message', hear)
    },
  }
}

export const browserPlatform = (): Platform => ({
  clock: systemClock,
  random: Math.random,
  relayUrl: import.meta.env.VITE_RELAY_URL || ownRelayUrl(),
  authBase: (import.meta.env.VITE_AUTH_API_URL ?? '').replace(/\/+$/, ''),
  origin: window.location.origin,
  makeSocket: (url) => new WebSocket(url, 'clasp') as unknown as SocketLike,
  fetch: (url, init) => window.fetch(url, init),
  postBytes,
  local: localOrMemory(),
  newId: () => crypto.randomUUID(),
  deviceName: deviceName(navigator.userAgent),
  beat: beatFromWorker,
  attended: () => document.visibilityState === 'visible' && document.hasFocus(),
  onWake: (callback) =>
    listen(
      [
        [document, 'visibilitychange'],
        [window, 'focus'],
        [window, 'online'],
        [window, 'pageshow'],
      ],
      callback,
    ),
  onOffline: (callback) => listen([[window, 'offline']], callback),
  alone: lockAlone,
  channel: broadcast,
  calls: browserCalls(),
  visible: () => document.visibilityState === 'visible',
  push: browserPush(),
  onClose: (callback) => listen([[window, 'pagehide']], callback),
})

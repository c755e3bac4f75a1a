/**
 * Service worker: caches the app's files, so that it opens offline. Pages are fetched from the network first.
 *
 * A new version waits until no tab shows the old one, so that a tab never mixes two versions.
 */
declare const self: ServiceWorkerGlobalScope
/** Set by the build: all files of the app, and a version that changes with any of them. */
declare const __SHELL_FILES__: readonly string[]
declare const __SHELL_VERSION__: string

const PREFIX = 'clasp-chat-'
const CACHE = `${PREFIX}${__SHELL_VERSION__}`
const PAGE = '/'
/** What is no part of the chat: the APIs, and the console. */
const ELSEWHERE = /^\/(auth\/|api\/|console(\/|$))/
/** A page that takes longer than this is served from the cache. */
const PATIENCE_MS = 4000

self.addEventListener('install', (event) => {
  event.waitUntil(
    caches
      .open(CACHE)
      .then((cache) => cache.addAll(__SHELL_FILES__.map((file) => new Request(file, { cache: 'reload' })))),
  )
})

self.addEventListener('activate', (event) => {
  event.waitUntil(
    caches
      .keys()
      .then((names) => names.filter((name) => name.startsWith(PREFIX) && name !== CACHE))
      .then((old) => Promise.all(old.map((name) => caches.delete(name))))
      .then(() => self.clients.claim()),
  )
})

self.addEventListener('fetch', (event) => {
  const { request } = event
  const url = new URL(request.url)
  if (request.method !== 'GET' || url.origin !== self.location.origin || ELSEWHERE.test(url.pathname)) return
  if (request.mode === 'navigate') event.respondWith(page(request))
  else if (url.pathname.startsWith('/assets/') || __SHELL_FILES__.includes(url.pathname))
    event.respondWith(file(request))
})

/** What the relay says: in which room something has happened, and what kind of thing. Never what was said. */
interface Said {
  room?: unknown
  kind?: unknown
}

/** What the page has left to be said in its absence; see `PushWords` in `stores/platform.ts`. */
interface Words {
  titles?: Record<string, unknown>
  rooms?: Record<string, unknown>
  muted?: unknown
}

const WORDS_CACHE = 'clasp-push'
const WORDS = '/push-words.json'
/** Where the page has left nothing. */
const NO_WORDS = 'CLASP Chat'

self.addEventListener('push', (event) => event.waitUntil(notify(event.data)))

self.addEventListener('notificationclick', (event) => {
  event.notification.close()
  event.waitUntil(openRoom(Object(event.notification.data) as Said))
})

function read(data: PushMessageData | null): Said {
  try {
    return Object(data?.json()) as Said
  } catch {
    // Not the relay's: a notification has to be shown all the same.
    return {}
  }
}

async function wordsLeft(): Promise<Words> {
  const kept = await caches.match(WORDS, { cacheName: WORDS_CACHE })
  return kept ? (Object(await kept.json()) as Words) : {}
}

const text = (value: unknown): string => (typeof value === 'string' ? value : '')

async function notify(data: PushMessageData | null): Promise<void> {
  const { room, kind } = read(data)
  const [words, pages] = await Promise.all([wordsLeft(), self.clients.matchAll({ type: 'window' })])
  // The page tells of it itself; it came on screen after the relay had looked.
  if (pages.some((each) => each.visibilityState === 'visible')) return
  const { titles = {}, rooms = {}, muted } = words
  const own = (table: Record<string, unknown>, key: string): string =>
    Object.hasOwn(table, key) ? text(table[key]) : ''
  await self.registration.showNotification(own(titles, text(kind)) || NO_WORDS, {
    body: own(rooms, text(room)),
    tag: text(room) || NO_WORDS,
    icon: '/icons/icon-192.png',
    silent: Array.isArray(muted) && muted.includes(room),
    data: { room: text(room) },
  })
}

/** Opens a room in a page that is there already, or in a new one. */
async function openRoom({ room }: Said): Promise<void> {
  const [page] = await self.clients.matchAll({ type: 'window' })
  if (!page) {
    await self.clients.openWindow(`/chat/${encodeURIComponent(text(room))}`)
    return
  }
  page.postMessage({ openRoom: text(room) })
  await page.focus()
}

/** The page from the server; from the cache if the server does not answer. */
async function page(request: Request): Promise<Response> {
  const kept = await caches.match(PAGE, { cacheName: CACHE })
  if (!kept) return fetch(request)
  try {
    const fresh = await fetch(request, { signal: AbortSignal.timeout(PATIENCE_MS) })
    return fresh.ok ? fresh : kept
  } catch {
    return kept
  }
}

/** A file whose name contains a hash of its content: the cached copy never expires. */
async function file(request: Request): Promise<Response> {
  const kept = await caches.match(request, { cacheName: CACHE })
  if (kept) return kept
  const fresh = await fetch(request)
  if (fresh.ok) await (await caches.open(CACHE)).put(request, fresh.clone())
  return fresh
}

export {}

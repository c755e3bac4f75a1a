/** The live state of a page: a feed that runs while the page is open, and when to draw. */
import { computed, onScopeDispose, ref, shallowRef } from 'vue'
import { useConsole } from '../session'
import { LiveFeed, type FeedStatus } from './liveFeed'
import { LiveState, type Taken } from './liveState'
import type { TreeRow } from './addressTree'

/** How often what is on screen is brought up to date. */
const DRAW_MS = 100
const RATE_EVERY_MS = 1_000
/** A page that is not drawn, since its window is covered, reads on at this pace. */
const HIDDEN_MS = 250

function drawn(): Promise<void> {
  return new Promise((resolve) => {
    const timer = window.setTimeout(resolve, HIDDEN_MS)
    window.requestAnimationFrame(() => {
      window.clearTimeout(timer)
      resolve()
    })
  })
}

export function useLive(onUpdate: (update: Taken) => void) {
  const session = useConsole()
  const live = new LiveState(() => session.clock.now())
  const status = shallowRef<FeedStatus>({ phase: 'idle', failure: null })
  const rows = shallowRef<readonly TreeRow[]>([])
  const tick = ref(0)
  const rate = ref(0)
  const paused = ref(false)
  const overflows = ref(false)
  let visible: ReadonlySet<string> = new Set()
  let counted = 0

  const feed = new LiveFeed(live, {
    fetch: session.fetch,
    clock: session.clock,
    token: session.token,
    urlOf: (pattern) => session.api.urlOf('stream', { pattern }),
    ready: drawn,
    onStatus: (next) => (status.value = next),
    onUpdate,
  })

  function draw(): void {
    if (live.paused) return
    const next = live.tree.rows()
    const hasRows = next !== rows.value
    rows.value = next
    overflows.value = live.overflows
    if (live.refresh(visible) || hasRows) tick.value += 1
  }

  const drawing = window.setInterval(draw, DRAW_MS)
  const counting = window.setInterval(() => {
    rate.value = Math.round(((live.updates - counted) * 1000) / RATE_EVERY_MS)
    counted = live.updates
  }, RATE_EVERY_MS)
  onScopeDispose(() => {
    window.clearInterval(drawing)
    window.clearInterval(counting)
    feed.stop()
  })

  /** What the person does to the tree shows at once. */
  function changeTree(change: () => void): void {
    change()
    rows.value = live.tree.rows()
    tick.value += 1
  }

  return {
    live,
    status,
    rows,
    tick,
    /** Updates per second that arrive. */
    rate,
    overflows,
    count: computed(() => (void rows.value, void tick.value, live.tree.size)),
    paused: computed({
      get: () => paused.value,
      set(isPaused) {
        paused.value = isPaused
        if (isPaused) live.pause()
        else live.resume()
        draw()
      },
    }),
    follow: (pattern: string) => feed.start(pattern),
    setVisible: (addresses: ReadonlySet<string>) => (visible = addresses),
    open: (path: string, isOpen: boolean) => changeTree(() => live.tree.open(path, isOpen)),
    openAll: (isOpen: boolean) => changeTree(() => live.tree.openAll(isOpen)),
    reveal: (address: string) => changeTree(() => live.tree.reveal(address)),
  }
}

/**
 * What is set and what is said at the addresses of a pattern, and what of it the page shows.
 *
 * Every update is taken at once; what is on screen changes at most {@link SHOWN_PER_SECOND} times per second in all, row
 * by row in turn, each to its newest value. While it is paused nothing on screen changes.
 */
import type { Value } from '@/protocol/codec'
import { TokenBucket } from '@/protocol/tokenBucket'
import { AddressTree } from './addressTree'

export const SHOWN_PER_SECOND = 100
/** How many addresses are kept; the page asks for a narrower pattern above it. */
export const MOST_ADDRESSES = 50_000
/** So many updates may follow one another at once: those of one tenth of a second. */
const BURST = SHOWN_PER_SECOND / 10

export interface Taken {
  readonly address: string
  readonly value: Value
  readonly kind: 'set' | 'publish' | 'snapshot'
  /** When it arrived, ms since the Unix epoch. */
  readonly atMs: number
}

/** What is known of one address. */
export interface Entry {
  readonly address: string
  readonly kind: 'param' | 'event'
  readonly value: Value
  /** How many updates came, without the value that was there at first. */
  readonly updates: number
  readonly atMs: number
}

export class LiveState {
  readonly tree = new AddressTree()
  private readonly entries = new Map<string, Entry>()
  private readonly shown = new Map<string, Entry>()
  /** Rows whose newest value is not on screen, the one that waits longest first. */
  private readonly changed = new Set<string>()
  /** What came while it was paused; of each address the newest. */
  private readonly held = new Map<string, Taken & { count: number }>()
  private readonly bucket: TokenBucket
  private isPaused = false
  private left = 0
  private total = 0

  constructor(
    now: () => number,
    private readonly most = MOST_ADDRESSES,
  ) {
    this.bucket = new TokenBucket(SHOWN_PER_SECOND, BURST, now)
  }

  get paused(): boolean {
    return this.isPaused
  }

  /** How many updates came since the start. */
  get updates(): number {
    return this.total
  }

  /** Whether addresses were left out, since there are more than are kept. */
  get overflows(): boolean {
    return this.left > 0
  }

  /** Takes an update. */
  take(update: Taken): void {
    if (update.kind !== 'snapshot') this.total += 1
    if (this.isPaused) this.hold(update)
    else this.apply(update, update.kind === 'snapshot' ? 0 : 1)
  }

  pause(): void {
    this.isPaused = true
  }

  /** Goes on with what has come meanwhile. */
  resume(): void {
    this.isPaused = false
    for (const { count, ...update } of this.held.values()) this.apply(update, count)
    this.held.clear()
  }

  /** Forgets everything, for another pattern or after a reconnect. */
  clear(): void {
    this.tree.clear()
    this.entries.clear()
    this.shown.clear()
    this.changed.clear()
    this.held.clear()
    this.left = 0
  }

  /** What the page shows of an address: the newest value of a row that was not on screen before. */
  show(address: string): Entry | undefined {
    let entry = this.shown.get(address)
    if (!entry) {
      entry = this.entries.get(address)
      if (entry) this.shown.set(address, entry)
      this.changed.delete(address)
    }
    return entry
  }

  /** The newest that is known of an address. */
  latest(address: string): Entry | undefined {
    return this.entries.get(address)
  }

  /**
   * Puts the newest values on screen, as many as may be now.
   *
   * @param visible the addresses of the rows on screen; the others are read when they come there.
   * @returns how many rows changed.
   */
  refresh(visible: ReadonlySet<string>): number {
    for (const address of this.shown.keys()) if (!visible.has(address)) this.shown.delete(address)
    let count = 0
    for (const address of this.changed) {
      if (visible.has(address)) {
        if (!this.bucket.take()) break
        const entry = this.entries.get(address)
        if (entry) this.shown.set(address, entry)
        count += 1
      }
      this.changed.delete(address)
    }
    return count
  }

  private hold(update: Taken): void {
    const before = this.held.get(update.address)
    if (!before && this.held.size >= this.most) return
    this.held.set(update.address, { ...update, count: (before?.count ?? 0) + (update.kind === 'snapshot' ? 0 : 1) })
  }

  private apply(update: Taken, count: number): void {
    const { address, value, kind, atMs } = update
    if (value === null && kind !== 'publish') {
      this.remove(address)
      return
    }
    const before = this.entries.get(address)
    if (!before) {
      if (this.entries.size >= this.most) {
        this.left += 1
        return
      }
      this.tree.add(address)
    }
    const updates = (before?.updates ?? 0) + count
    this.entries.set(address, { address, kind: kind === 'publish' ? 'event' : 'param', value, updates, atMs })
    // To the end of the queue only when it was not in it: an address that changes all the time must get its turn.
    this.changed.add(address)
  }

  private remove(address: string): void {
    if (!this.entries.delete(address)) return
    this.tree.remove(address)
    this.shown.delete(address)
    this.changed.delete(address)
  }
}

import type { Clock } from '@/protocol/clock'

/** A clock that a test turns. */
export class FakeClock implements Clock {
  private time = 1_700_000_000_000
  private timers: { at: number; callback: () => void }[] = []

  now = (): number => this.time

  after = (delayMs: number, callback: () => void): (() => void) => {
    const timer = { at: this.time + Math.max(0, delayMs), callback }
    this.timers.push(timer)
    return () => {
      this.timers = this.timers.filter((other) => other !== timer)
    }
  }

  get waiting(): number {
    return this.timers.length
  }

  /** Goes on by so much, calling back on the way what is due. */
  advance(ms: number): void {
    const end = this.time + ms
    for (;;) {
      const next = this.timers.reduce<(typeof this.timers)[number] | null>(
        (first, timer) => (timer.at <= end && (!first || timer.at < first.at) ? timer : first),
        null,
      )
      if (!next) break
      this.timers = this.timers.filter((other) => other !== next)
      this.time = Math.max(this.time, next.at)
      next.callback()
    }
    this.time = end
  }

  /** Goes on in small steps, letting promises and the storage do their part in between. */
  async pass(ms: number, stepMs = 100): Promise<void> {
    for (let gone = 0; gone < ms; gone += stepMs) {
      this.advance(Math.min(stepMs, ms - gone))
      await breathe()
    }
  }
}

const SUBTLE = [
  'encrypt',
  'decrypt',
  'sign',
  'verify',
  'digest',
  'generateKey',
  'deriveKey',
  'deriveBits',
  'importKey',
  'exportKey',
]
let computing = 0

/** Counts what is being computed in other threads, which no number of turns can wait for. */
function watchCrypto(): void {
  const prototype = Object.getPrototypeOf(crypto.subtle) as Record<string, (...args: unknown[]) => Promise<unknown>>
  for (const name of SUBTLE) {
    const original = prototype[name]!
    prototype[name] = function (this: unknown, ...args: unknown[]) {
      computing += 1
      return original.apply(this, args).finally(() => (computing -= 1))
    }
  }
}

watchCrypto()

/** Lets everything run that waits for nothing but its turn, for a thread, or for the storage in memory. */
export async function breathe(turns = 10): Promise<void> {
  for (let quiet = 0; quiet < turns; quiet = computing === 0 ? quiet + 1 : 0) {
    await new Promise((resolve) => setImmediate(resolve))
  }
}

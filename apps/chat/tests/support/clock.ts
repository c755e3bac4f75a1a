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
/** What is at work outside of this thread's turns, which no number of turns can wait for. */
let working = 0

function watch(): () => void {
  working += 1
  let ended = false
  return () => {
    if (!ended) working -= 1
    ended = true
  }
}

/** Counts what is being computed in other threads. */
function watchCrypto(): void {
  const prototype = Object.getPrototypeOf(crypto.subtle) as Record<string, (...args: unknown[]) => Promise<unknown>>
  for (const name of SUBTLE) {
    const original = prototype[name]!
    prototype[name] = function (this: unknown, ...args: unknown[]) {
      return original.apply(this, args).finally(watch())
    }
  }
}

type Method<Made extends EventTarget> = (this: unknown, ...args: unknown[]) => Made

/** Counts what a method makes until one of these events ends it. */
function watchMade<Made extends EventTarget>(prototype: object, name: string, ends: readonly string[]): void {
  const methods = prototype as Record<string, Method<Made>>
  const original = methods[name]!
  methods[name] = function (this: unknown, ...args: unknown[]) {
    const made = original.apply(this, args)
    const end = watch()
    for (const type of ends) made.addEventListener(type, end)
    return made
  }
}

/**
 * Counts what the storage has to do. It takes a turn for each step, so that, without this, more of it would be done in a
 * step of the clock when the machine is busy with cryptography, and less when it is not.
 */
function watchStorage(): void {
  watchMade(IDBDatabase.prototype, 'transaction', ['complete', 'abort'])
  // Another tab keeps a blocked one waiting, perhaps for ever.
  watchMade(IDBFactory.prototype, 'open', ['success', 'error', 'blocked'])
  watchMade(IDBFactory.prototype, 'deleteDatabase', ['success', 'error', 'blocked'])
}

watchCrypto()
watchStorage()

/** Lets everything run that waits for nothing but its turn, for a thread, or for the storage in memory. */
export async function breathe(turns = 10): Promise<void> {
  for (let quiet = 0; quiet < turns; quiet = working === 0 ? quiet + 1 : 0) {
    await new Promise((resolve) => setImmediate(resolve))
  }
}

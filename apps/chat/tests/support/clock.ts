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

/** Lets everything run that waits for nothing but its turn. */
export async function breathe(turns = 3): Promise<void> {
  for (let turn = 0; turn < turns; turn++) await new Promise((resolve) => setTimeout(resolve, 0))
}

/** Time and chance as they are passed in, so that tests decide them. */
export interface Clock {
  /** Milliseconds since the Unix epoch. */
  now(): number
  /** Calls back once; returns the function that prevents it. */
  after(delayMs: number, callback: () => void): () => void
}

/** A number from 0 up to, not including, 1. */
export type Random = () => number

export const systemClock: Clock = {
  now: () => Date.now(),
  after(delayMs, callback) {
    const timer = setTimeout(callback, delayMs)
    return () => clearTimeout(timer)
  },
}

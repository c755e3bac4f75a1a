/** A rate limiter with bursts. Its rates are below the relay's limit, so that no message is dropped. */
export class TokenBucket {
  private tokens: number
  private countedAt: number

  constructor(
    private readonly perSecond: number,
    private readonly burst: number,
    private readonly now: () => number,
  ) {
    this.tokens = burst
    this.countedAt = now()
  }

  private refill(): void {
    const now = this.now()
    // A clock that was set back must not remove tokens.
    const passed = Math.max(0, now - this.countedAt)
    this.tokens = Math.min(this.burst, this.tokens + (passed / 1000) * this.perSecond)
    this.countedAt = now
  }

  /** Takes one token if there is one. */
  take(): boolean {
    this.refill()
    if (this.tokens < 1) return false
    this.tokens -= 1
    return true
  }

  /** Time until the next token, ms. */
  waitMs(): number {
    this.refill()
    return this.tokens >= 1 ? 0 : Math.ceil(((1 - this.tokens) / this.perSecond) * 1000)
  }

  /** Empties the bucket, after the relay has reported its rate limit. */
  drain(): void {
    this.refill()
    this.tokens = 0
  }
}

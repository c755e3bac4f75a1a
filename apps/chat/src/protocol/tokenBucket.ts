/** Lets so many through per second, and a burst after a pause. Stays below the relay's limit so that nothing is lost. */
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
    // A clock that was set back must not take tokens away.
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

  /** How long until the next token, ms. */
  waitMs(): number {
    this.refill()
    return this.tokens >= 1 ? 0 : Math.ceil(((1 - this.tokens) / this.perSecond) * 1000)
  }

  /** After the relay's own limit struck: start again with nothing saved. */
  drain(): void {
    this.refill()
    this.tokens = 0
  }
}

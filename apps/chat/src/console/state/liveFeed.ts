/** Keeps a {@link LiveState} up to date with the relay: one event stream after another, as long as it is wanted. */
import type { Clock } from '@/protocol/clock'
import { Failure, failureOf } from '@/protocol/errors'
import type { Fetch } from '@/protocol/http'
import { follow, type StreamEvent } from './eventStream'
import type { LiveState, Taken } from './liveState'
import { valueOf } from './values'

const FIRST_RETRY_MS = 1_000
const MAX_RETRY_MS = 30_000

export type FeedPhase = 'idle' | 'connecting' | 'live' | 'waiting' | 'refused'

export interface FeedStatus {
  readonly phase: FeedPhase
  readonly failure: Failure | null
}

export interface FeedOptions {
  fetch: Fetch
  clock: Clock
  token: () => string | null
  /** The stream of a pattern. */
  urlOf: (pattern: string) => string
  /** Resolves when the page has drawn. */
  ready: () => Promise<void>
  onStatus: (status: FeedStatus) => void
  /** Called with each update, before the page is told. */
  onUpdate: (update: Taken) => void
}

/** Refusals after which another try would be refused, too. */
const isFinal = (failure: Failure): boolean => ['signedOut', 'forbidden', 'invalid', 'missing'].includes(failure.kind)

export class LiveFeed {
  private running: AbortController | null = null
  private cancelRetry: () => void = () => undefined
  private attempts = 0
  /** Whether all that was set before has arrived. */
  private isLive = false
  /** Why the relay is about to end the stream. */
  private problem: Failure | null = null

  constructor(
    private readonly state: LiveState,
    private readonly options: FeedOptions,
  ) {}

  /** Follows a pattern; the one before ends, and what was known is forgotten. */
  start(pattern: string): void {
    this.stop()
    this.attempts = 0
    this.open(pattern)
  }

  stop(): void {
    this.cancelRetry()
    this.running?.abort()
    this.running = null
    this.tell('idle')
  }

  private open(pattern: string): void {
    const token = this.options.token()
    if (!token) {
      this.tell('refused', new Failure('signedOut', 'no token'))
      return
    }
    const running = new AbortController()
    this.running = running
    this.isLive = false
    this.problem = null
    this.state.clear()
    this.tell('connecting')
    const { fetch, urlOf, ready } = this.options
    const take = (events: readonly StreamEvent[]): void => {
      if (this.running === running) for (const event of events) this.take(event)
    }
    follow({ fetch, url: urlOf(pattern), token, signal: running.signal, take, ready })
      .then(() => new Failure('network', 'the stream has ended'))
      .catch((error: Failure) => error)
      .then((failure) => {
        if (this.running === running) this.ended(pattern, this.problem ?? failure)
      })
  }

  private ended(pattern: string, failure: Failure): void {
    this.running = null
    if (isFinal(failure)) {
      this.tell('refused', failure)
      return
    }
    const delayMs = Math.min(MAX_RETRY_MS, FIRST_RETRY_MS * 2 ** this.attempts)
    this.attempts += 1
    this.tell('waiting', failure)
    this.cancelRetry = this.options.clock.after(delayMs, () => this.open(pattern))
  }

  private take({ event, data }: StreamEvent): void {
    if (event === 'live') {
      this.attempts = 0
      this.isLive = true
      this.tell('live')
      return
    }
    if (event === 'problem') {
      const { code, error } = JSON.parse(data) as { code: number; error: string }
      this.problem = failureOf(code, error)
      return
    }
    if (event !== 'set' && event !== 'publish') return
    const { address, value } = JSON.parse(data) as { address: string; value?: unknown }
    const isSet = event === 'set'
    const kind = !isSet ? 'publish' : this.isLive ? 'set' : 'snapshot'
    const update = { address, value: valueOf(value ?? null), kind, atMs: this.options.clock.now() } as const
    this.state.take(update)
    this.options.onUpdate(update)
  }

  private tell(phase: FeedPhase, failure: Failure | null = null): void {
    this.options.onStatus({ phase, failure })
  }
}

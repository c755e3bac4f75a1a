/**
 * A lasting connection to the relay, over one socket after another.
 *
 * It reconnects by itself and subscribes again, and it stays below the relay's rate limit. It knows of every message
 * whether the relay accepted it: a SET by its ACK, a GET by its SNAPSHOT. PUBLISH and SUBSCRIBE have no answer, so that
 * they are followed by a PING, a fence: the relay answers in order, and its PONG confirms them. An ERROR is matched by
 * its address.
 */
import type { Clock, Random } from './clock'
import { encodeFrame, type ClientMessage, type Value } from './codec'
import { decodeFrame, type ParamValue, type ServerMessage } from './decoder'
import { endsSession, Failure, failureOf, RATE_LIMITED } from './errors'
import { matches } from './pattern'
import { TokenBucket } from './tokenBucket'

export const MESSAGES_PER_SECOND = 40
export const BURST = 200
const CONNECT_TIMEOUT_MS = 10_000
/** Time of silence after which a PING checks the connection. */
const IDLE_MS = 20_000
const PONG_TIMEOUT_MS = 8_000
const PROBE_TIMEOUT_MS = 3_000
/** Time after which a message without an answer is sent again. */
const ANSWER_TIMEOUT_MS = 15_000
const MAX_ATTEMPTS = 4
const FIRST_RETRY_MS = 500
const MAX_RETRY_MS = 30_000
/** After a connection that lasted this long, the next retry starts with the shortest delay again. */
const STABLE_MS = 10_000
const AFTER_RATE_LIMIT_MS = 1_100
const CLOSE_POLICY = 1008
/** Where the relay says, to the session that asked, that a REPLAY is answered. */
const REPLAY_END = '/clasp/replay/end'

export type Phase = 'idle' | 'connecting' | 'online' | 'waiting' | 'refused'

/** The part of WebSocket that is used. */
export interface SocketLike {
  binaryType: string
  onopen: (() => void) | null
  onmessage: ((event: { data: unknown }) => void) | null
  onclose: ((event: { code: number; reason: string }) => void) | null
  onerror: (() => void) | null
  send(data: Uint8Array<ArrayBuffer>): void
  close(): void
}

export interface ConnectionOptions {
  url: string
  makeSocket: (url: string) => SocketLike
  clock: Clock
  random: Random
  /** The client name in HELLO. */
  name: () => string
  token: () => string | null
  /** Called when the relay refuses the token; resolves with true if there is a new one. */
  renewToken: () => Promise<boolean>
}

export interface Status {
  phase: Phase
  sessionId: string | null
  serverName: string | null
  retryAtMs: number | null
  reason: string | null
}

/** A value that is delivered to a subscriber. */
export interface Update {
  address: string
  value: Value
  kind: 'set' | 'publish' | 'snapshot'
  /** Age by the relay's clock, ms; null: unknown. */
  ageMs: number | null
  /** Of an event: the time that it carries, ms; the relay's own where it keeps what is said there. null: none. */
  atMs: number | null
}

export type Handler = (update: Update) => void

export interface SendOptions {
  /** Kept and sent again after a reconnect; otherwise losing the connection rejects it. */
  durable?: boolean
  /** What the person does, and the room on screen: sent before everything else that is queued. */
  urgent?: boolean
  /** Called when it has been sent. */
  onSent?: () => void
  /** For SET: time to live, seconds. */
  ttlS?: number
  /** Called right before sending, also before repeating; false rejects the message with `conflict`. */
  guard?: () => boolean
}

/** An event that the relay kept. */
export interface ReplayedEvent {
  address: string
  value: Value
  /** When the relay accepted it, ms since the Unix epoch. */
  atMs: number
}

export interface Replayed {
  /** Oldest first. */
  events: ReplayedEvent[]
  /** Whether the relay keeps nothing older. */
  complete: boolean
  /** Where the page before these events ends. */
  next: bigint
}

/** A REPLAY that is being answered. */
interface Replaying {
  pattern: string
  /** When it was sent, by the relay's clock, µs: what it kept is older. */
  before: number
  events: { address: string; value: Value; timestamp: number }[]
  end: { complete: boolean; next: bigint } | null
}

interface Job {
  message: ClientMessage
  /** The address (or pattern) that an answer to it names. */
  address: string
  options: SendOptions
  attempts: number
  sentAt: number
  resolve: (value: Value) => void
  reject: (failure: Failure) => void
}

interface Fence {
  fence: true
  deadline: number
}

interface Subscription {
  id: number
  pattern: string
  handler: Handler
  onRefused: (failure: Failure) => void
}

const isFence = (entry: Job | Fence): entry is Fence => 'fence' in entry
/** Whether the message has no answer of its own, and needs a PING behind it. */
const needsFence = (job: Job): boolean => job.message.type === 'PUBLISH' || job.message.type === 'SUBSCRIBE'
const offline = (): Failure => new Failure('offline', 'not connected to the relay')

export class Connection {
  private socket: SocketLike | null = null
  private current: Status = { phase: 'idle', sessionId: null, serverName: null, retryAtMs: null, reason: null }
  private readonly statusListeners = new Set<(status: Status) => void>()
  private readonly onlineListeners = new Set<() => void>()
  private readonly errorListeners = new Set<(failure: Failure, address: string | null) => void>()
  private readonly subscriptions = new Map<number, Subscription>()
  private readonly bucket: TokenBucket
  private nextSubscription = 1
  private queue: Job[] = []
  private flight: (Job | Fence)[] = []
  private attempts = 0
  private renewals = 0
  private onlineSince = 0
  private heardAt = 0
  private refusal: string | null = null
  /** Difference between the relay's clock and the own one, ms. */
  private serverAheadMs = 0
  private pausedUntil = 0
  private pumpPlanned = false
  private replaying: Replaying | null = null
  private replays: Promise<unknown> = Promise.resolve()
  private stopConnecting: () => void = () => undefined
  private stopPump: (() => void) | null = null
  private stopWatch: (() => void) | null = null

  constructor(private readonly options: ConnectionOptions) {
    this.bucket = new TokenBucket(MESSAGES_PER_SECOND, BURST, () => options.clock.now())
  }

  get status(): Status {
    return this.current
  }

  get online(): boolean {
    return this.current.phase === 'online'
  }

  /** The relay's time, ms since the Unix epoch. */
  serverNow(): number {
    return this.options.clock.now() + this.serverAheadMs
  }

  onStatus(listener: (status: Status) => void): () => void {
    this.statusListeners.add(listener)
    return () => this.statusListeners.delete(listener)
  }

  /** Called at every WELCOME, before the subscriptions are sent: for urgent messages that must come first. */
  onOnline(listener: () => void): () => void {
    this.onlineListeners.add(listener)
    return () => this.onlineListeners.delete(listener)
  }

  /** Called with every ERROR that matches no pending message. */
  onError(listener: (failure: Failure, address: string | null) => void): () => void {
    this.errorListeners.add(listener)
    return () => this.errorListeners.delete(listener)
  }

  start(): void {
    if (this.current.phase !== 'idle' && this.current.phase !== 'refused') return
    this.attempts = 0
    this.renewals = 0
    this.open()
  }

  /** Closes the connection; pending messages fail. Subscriptions are kept and sent again by {@link start}. */
  stop(): void {
    this.stopConnecting()
    this.leaveSocket()
    this.update({ phase: 'idle', sessionId: null, retryAtMs: null, reason: null })
    for (const job of this.takeUnanswered()) job.reject(offline())
    const queued = this.queue
    this.queue = []
    for (const job of queued) job.reject(offline())
  }

  /** Reconnects at once instead of waiting for the next attempt. */
  retryNow(): void {
    if (this.current.phase === 'waiting') this.open()
  }

  /** Checks whether the relay still answers, after a sleep or a change of networks; a dead socket is replaced. */
  probe(timeoutMs = PROBE_TIMEOUT_MS): void {
    if (this.online) this.sendFence(timeoutMs)
    else this.retryNow()
  }

  /** Subscribes to a pattern, again after every reconnect. Returns the function that ends it. */
  subscribe(pattern: string, handler: Handler, onRefused: (failure: Failure) => void = () => undefined): () => void {
    const id = this.nextSubscription++
    const subscription = { id, pattern, handler, onRefused }
    this.subscriptions.set(id, subscription)
    if (this.online) this.sendSubscribe(subscription)
    return () => this.unsubscribe(id)
  }

  /** Stores a value; resolves when the relay has it, rejects with a {@link Failure}. null deletes. */
  set(address: string, value: Value, options: SendOptions = {}): Promise<void> {
    const queued = this.queue.find((job) => job.message.type === 'SET' && job.address === address)
    // A queued value is replaced by the newer one.
    if (queued) this.drop(queued)
    const { ttlS } = options
    const stored = this.send(
      { type: 'SET', address, value, ...(ttlS !== undefined && { ttl: ttlS }) },
      address,
      options,
    )
    if (queued) stored.then(queued.resolve, queued.reject)
    return stored.then(() => undefined)
  }

  /** Emits an event; resolves when the relay has passed it on. */
  async publish(address: string, value: Value, options: SendOptions = {}): Promise<void> {
    const timestamp = Math.round(this.serverNow() * 1000)
    await this.send({ type: 'PUBLISH', address, signal: 'event', value, timestamp }, address, options)
  }

  /** Reads the value at an address; null: there is none, or this session may not see it. */
  get(address: string, options: SendOptions = {}): Promise<Value> {
    return this.send({ type: 'GET', address }, address, options)
  }

  /**
   * Reads the newest events that the relay has kept, or those before a page. One call after the other is sent.
   * Rejects with a {@link Failure} where the relay keeps none.
   */
  replay(pattern: string, limit: number, to?: bigint): Promise<Replayed> {
    const result = this.replays.then(() => this.replayNow(pattern, limit, to))
    this.replays = result.catch(() => undefined)
    return result
  }

  private async replayNow(pattern: string, limit: number, to?: bigint): Promise<Replayed> {
    const running: Replaying = { pattern, before: 0, events: [], end: null }
    const onSent = (): void => {
      running.before = Math.round(this.serverNow() * 1000)
      this.replaying = running
    }
    try {
      await this.send({ type: 'REPLAY', pattern, limit, ...(to !== undefined && { to }) }, pattern, { onSent })
      const events = running.events.map(({ address, value, timestamp }) => ({ address, value, atMs: timestamp / 1000 }))
      return { events, ...(running.end as NonNullable<Replaying['end']>) }
    } catch (error) {
      // What was taken for an answer was said meanwhile.
      for (const { address, value, timestamp } of running.events)
        this.dispatch({ address, value, kind: 'publish', ageMs: 0, atMs: timestamp / 1000 })
      throw error
    } finally {
      this.replaying = null
    }
  }

  // --- sending ---

  private send(message: ClientMessage, address: string, options: SendOptions): Promise<Value> {
    if (!this.online && !options.durable) return Promise.reject(offline())
    return new Promise((resolve, reject) => {
      const job: Job = { message, address, options, attempts: 0, sentAt: 0, resolve, reject }
      if (options.urgent) this.queue.splice(this.queue.findLastIndex((other) => other.options.urgent) + 1, 0, job)
      else this.queue.push(job)
      this.pumpSoon()
    })
  }

  private sendSubscribe({ id, pattern, onRefused }: Subscription): void {
    this.send({ type: 'SUBSCRIBE', id, pattern }, pattern, {}).catch((failure: Failure) => {
      // Not a refusal: the subscription is sent again after the reconnect.
      if (failure.kind !== 'offline') onRefused(failure)
      if (failure.kind === 'tooMany') for (const listener of this.errorListeners) listener(failure, pattern)
    })
  }

  private unsubscribe(id: number): void {
    const subscription = this.subscriptions.get(id)
    if (!subscription) return
    this.subscriptions.delete(id)
    const waiting = this.queue.find((job) => job.message.type === 'SUBSCRIBE' && job.message.id === id)
    if (waiting) {
      this.drop(waiting)
      waiting.resolve(null)
    } else if (this.online) {
      this.send({ type: 'UNSUBSCRIBE', id }, subscription.pattern, {}).catch(() => undefined)
    }
  }

  private drop(job: Job): void {
    this.queue = this.queue.filter((other) => other !== job)
  }

  /** Sends at the end of the turn, so that one PING confirms all messages of the turn. */
  private pumpSoon(): void {
    if (this.pumpPlanned) return
    this.pumpPlanned = true
    queueMicrotask(() => {
      this.pumpPlanned = false
      this.pump()
    })
  }

  /** Sends queued messages as the rate limit allows, followed by a fence for those that the relay does not answer. */
  private pump(): void {
    if (!this.online || this.stopPump) return
    for (let job = this.queue[0]; job; job = this.queue[0]) {
      const repeatsAddress = needsFence(job) && this.unfenced().some((other) => other.address === job.address)
      if (this.mustWait()) return
      if (repeatsAddress) this.sendFence(PONG_TIMEOUT_MS)
      else this.transmit(this.queue.shift()!)
    }
    if (this.unfenced().length > 0 && !this.mustWait()) this.sendFence(PONG_TIMEOUT_MS)
  }

  /** Takes a token of the rate limit; true: none is left, and sending is planned for later. */
  private mustWait(): boolean {
    const pauseMs = this.pausedUntil - this.options.clock.now()
    if (pauseMs <= 0 && this.bucket.take()) return false
    this.stopPump = this.options.clock.after(Math.max(pauseMs, this.bucket.waitMs(), 1), () => {
      this.stopPump = null
      this.pump()
    })
    return true
  }

  /** Sent messages without a fence behind them. */
  private unfenced(): Job[] {
    const behind = this.flight.slice(this.flight.findLastIndex(isFence) + 1) as Job[]
    return behind.filter(needsFence)
  }

  private transmit(job: Job): void {
    if (job.options.guard?.() === false) {
      job.reject(new Failure('conflict', 'the guard of the message no longer holds'))
      return
    }
    let frame: Uint8Array<ArrayBuffer>
    try {
      frame = encodeFrame(job.message)
    } catch (error) {
      job.reject(new Failure('tooLarge', (error as Error).message))
      return
    }
    this.write(frame)
    if (job.message.type === 'UNSUBSCRIBE') {
      job.resolve(null)
      return
    }
    job.attempts += 1
    job.sentAt = this.options.clock.now()
    this.flight.push(job)
    job.options.onSent?.()
  }

  private sendFence(timeoutMs: number): void {
    this.flight.push({ fence: true, deadline: this.options.clock.now() + timeoutMs })
    this.write(encodeFrame({ type: 'PING' }))
    this.watch()
  }

  private write(frame: Uint8Array<ArrayBuffer>): void {
    this.socket?.send(frame)
  }

  // --- the socket's life ---

  private open(): void {
    this.stopConnecting()
    this.refusal = null
    this.update({ phase: 'connecting', sessionId: null, retryAtMs: null })
    const socket = this.options.makeSocket(this.options.url)
    this.socket = socket
    socket.binaryType = 'arraybuffer'
    socket.onopen = () => this.sayHello()
    socket.onmessage = ({ data }) => this.receive(data)
    socket.onclose = ({ code, reason }) => this.lost(code, reason)
    socket.onerror = null
    this.stopConnecting = this.options.clock.after(CONNECT_TIMEOUT_MS, () => this.lost(0, 'The relay did not answer.'))
  }

  private sayHello(): void {
    const token = this.options.token()
    const features = ['param', 'event', 'stream']
    const hello: ClientMessage = {
      type: 'HELLO',
      version: 1,
      name: this.options.name(),
      features,
      ...(token && { token }),
    }
    this.write(encodeFrame(hello))
  }

  /** Closes the socket and ignores what still arrives on it. */
  private leaveSocket(): void {
    const socket = this.socket
    this.socket = null
    this.stopPump?.()
    this.stopPump = null
    this.stopWatch?.()
    this.stopWatch = null
    if (!socket) return
    socket.onopen = socket.onmessage = socket.onclose = socket.onerror = null
    socket.close()
  }

  private takeUnanswered(): Job[] {
    const jobs = this.flight.filter((entry): entry is Job => !isFence(entry))
    this.flight = []
    return jobs
  }

  private lost(code: number, reason: string): void {
    const wasStable = this.online && this.options.clock.now() - this.onlineSince >= STABLE_MS
    if (wasStable) {
      this.attempts = 0
      this.renewals = 0
    }
    this.stopConnecting()
    this.leaveSocket()
    const unanswered = this.takeUnanswered()
    const waiting = [...unanswered, ...this.queue]
    this.queue = waiting.filter((job) => job.options.durable)
    const refused = this.refusal ?? (code === CLOSE_POLICY ? reason : null)
    if (refused === null) this.retryLater(reason)
    else void this.refused(refused)
    for (const job of waiting) if (!job.options.durable) job.reject(offline())
  }

  private retryLater(reason: string): void {
    const backoffMs = Math.min(MAX_RETRY_MS, FIRST_RETRY_MS * 2 ** this.attempts)
    // Half of the delay is random, so that clients do not reconnect all at once after a restart of the relay.
    const delayMs = backoffMs * (0.5 + this.options.random() / 2)
    this.attempts += 1
    const retryAtMs = this.options.clock.now() + delayMs
    this.update({ phase: 'waiting', sessionId: null, retryAtMs, reason: reason || null })
    this.stopConnecting = this.options.clock.after(delayMs, () => this.open())
  }

  private async refused(reason: string): Promise<void> {
    this.update({ phase: 'connecting', sessionId: null, retryAtMs: null, reason })
    const mayRenew = this.renewals === 0
    this.renewals += 1
    let renewed = false
    try {
      renewed = mayRenew && (await this.options.renewToken())
    } catch {
      // The auth API was not reached: retry later, as after a lost socket.
      this.renewals = 0
      if (this.current.phase === 'connecting') this.retryLater(reason)
      return
    }
    if (this.current.phase !== 'connecting' || this.socket) return
    if (renewed) this.open()
    else this.update({ phase: 'refused', reason })
  }

  private update(change: Partial<Status>): void {
    this.current = { ...this.current, ...change }
    for (const listener of this.statusListeners) listener(this.current)
  }

  /** Plans the next check for silence and overdue answers. */
  private watch(): void {
    this.stopWatch?.()
    const now = this.options.clock.now()
    const deadlines = this.flight.map((entry) => (isFence(entry) ? entry.deadline : entry.sentAt + ANSWER_TIMEOUT_MS))
    const next = Math.min(this.heardAt + IDLE_MS, ...deadlines)
    this.stopWatch = this.options.clock.after(Math.max(next - now, 1), () => this.checkAnswers())
  }

  private checkAnswers(): void {
    const now = this.options.clock.now()
    const overdue = this.flight.filter((entry) =>
      isFence(entry) ? now >= entry.deadline : now >= entry.sentAt + ANSWER_TIMEOUT_MS,
    )
    if (overdue.some(isFence)) {
      this.lost(0, 'The relay did not answer.')
      return
    }
    this.flight = this.flight.filter((entry) => !overdue.includes(entry))
    this.repeat(overdue as Job[], new Failure('timeout', 'no answer from the relay'))
    if (now >= this.heardAt + IDLE_MS && !this.flight.some(isFence)) this.sendFence(PONG_TIMEOUT_MS)
    this.watch()
    this.pump()
  }

  /** Queues messages without an answer again, in front; rejects those with too many attempts, and REPLAYs. */
  private repeat(jobs: readonly Job[], failure: Failure): void {
    const isOver = (job: Job): boolean => job.attempts >= MAX_ATTEMPTS || job.message.type === 'REPLAY'
    this.queue = [...jobs.filter((job) => !isOver(job)), ...this.queue]
    for (const job of jobs) if (isOver(job)) job.reject(failure)
  }

  // --- receiving ---

  private receive(data: unknown): void {
    this.heardAt = this.options.clock.now()
    if (!(data instanceof ArrayBuffer)) return
    let message: ServerMessage
    try {
      message = decodeFrame(data)
    } catch {
      // Ignore a malformed frame: the relay validates what it forwards, so none is expected.
      return
    }
    this.handle(message)
  }

  private handle(message: ServerMessage): void {
    switch (message.type) {
      case 'WELCOME':
        this.welcomed(message.session, message.name, message.time)
        break
      case 'SET':
        this.dispatch({ address: message.address, value: message.value, kind: 'set', ageMs: 0, atMs: null })
        break
      case 'PUBLISH':
        if (this.takeReplayed(message)) break
        this.dispatch({
          address: message.address,
          value: message.value,
          kind: 'publish',
          ageMs: 0,
          atMs: message.timestamp === null ? null : message.timestamp / 1000,
        })
        break
      case 'SNAPSHOT':
        for (const param of message.params) this.takeParam(param)
        break
      case 'ACK':
        this.settle('SET', message.address ?? '')?.resolve(null)
        break
      case 'ERROR':
        this.takeError(message.code, message.message, message.address)
        break
      case 'PONG':
        this.passFence()
        break
      case 'PING':
        this.write(encodeFrame({ type: 'PONG' }))
        break
    }
  }

  /** Whether an event belongs to the answer of a REPLAY. */
  private takeReplayed({ address, value, timestamp }: ServerMessage & { type: 'PUBLISH' }): boolean {
    if (address === REPLAY_END) {
      this.takeReplayEnd(value)
      return true
    }
    const { replaying } = this
    if (!replaying || timestamp === null || timestamp > replaying.before) return false
    if (!matches(replaying.pattern, address)) return false
    replaying.events.push({ address, value, timestamp })
    this.waitLonger()
    return true
  }

  /** The answers behind a REPLAY wait for it, which may take long on a slow line. */
  private waitLonger(): void {
    const now = this.options.clock.now()
    for (const entry of this.flight) {
      if (isFence(entry)) entry.deadline = Math.max(entry.deadline, now + PONG_TIMEOUT_MS)
      else entry.sentAt = now
    }
  }

  private takeReplayEnd(value: Value): void {
    if (!this.replaying || typeof value !== 'object' || value === null) return
    const { pattern, complete, next, more } = value as { [key: string]: Value }
    if (pattern !== this.replaying.pattern || more === true) return
    const isPosition = typeof next === 'string' && /^\d{1,20}$/.test(next)
    this.replaying.end = { complete: complete === true || !isPosition, next: isPosition ? BigInt(next) : 0n }
    this.settle('REPLAY', this.replaying.pattern)?.resolve(null)
  }

  private welcomed(sessionId: string, serverName: string, timeUs: number): void {
    this.stopConnecting()
    this.onlineSince = this.options.clock.now()
    this.serverAheadMs = timeUs / 1000 - this.onlineSince
    this.update({ phase: 'online', sessionId, serverName, retryAtMs: null, reason: null })
    const kept = this.queue
    this.queue = []
    for (const listener of this.onlineListeners) listener()
    for (const subscription of this.subscriptions.values()) this.sendSubscribe(subscription)
    this.queue.push(...kept)
    this.watch()
    this.pumpSoon()
  }

  private takeParam(param: ParamValue): void {
    const { address, value } = param
    const ageMs = param.timestamp === null ? null : Math.max(0, this.serverNow() - param.timestamp / 1000)
    for (let get = this.settle('GET', address); get; get = this.settle('GET', address)) get.resolve(value)
    this.dispatch({ address, value, kind: 'snapshot', ageMs, atMs: null })
  }

  private dispatch(update: Update): void {
    for (const subscription of [...this.subscriptions.values()]) {
      if (matches(subscription.pattern, update.address)) subscription.handler(update)
    }
  }

  /** Removes and returns the oldest pending message with this type and address. */
  private settle(type: ClientMessage['type'] | null, address: string): Job | undefined {
    const index = this.flight.findIndex(
      (entry) => !isFence(entry) && entry.address === address && (type === null || entry.message.type === type),
    )
    return index < 0 ? undefined : (this.flight.splice(index, 1)[0] as Job)
  }

  private passFence(): void {
    const index = this.flight.findIndex(isFence)
    if (index < 0) return
    const passed = this.flight.slice(0, index) as Job[]
    this.flight = [...passed.filter((job) => !needsFence(job)), ...this.flight.slice(index + 1)]
    for (const job of passed) if (needsFence(job)) job.resolve(null)
  }

  private takeError(code: number, message: string, address: string | null): void {
    const failure = failureOf(code, message)
    if (endsSession(code)) {
      this.refusal = message
      return
    }
    // With an address it is about this message: too many subscriptions, or attempts at a password.
    if (code === RATE_LIMITED && address === null) {
      this.slowDown(failure)
      return
    }
    const job = address === null ? undefined : this.settle(null, address)
    if (job) job.reject(failure)
    else for (const listener of this.errorListeners) listener(failure, address)
  }

  /** The relay reports dropped messages once a second at most: everything without an answer is sent again. */
  private slowDown(failure: Failure): void {
    this.bucket.drain()
    this.pausedUntil = this.options.clock.now() + AFTER_RATE_LIMIT_MS
    const fences = this.flight.filter(isFence)
    const jobs = this.takeUnanswered()
    this.flight = fences
    this.repeat(jobs, failure)
    this.pump()
  }
}

/**
 * One lasting connection to the relay, over as many sockets as it takes.
 *
 * It reconnects by itself and subscribes again; it stays below the relay's rate limit; and it knows of everything that
 * it sent whether the relay took it: a SET by its ACK, a GET by its SNAPSHOT, and a PUBLISH or SUBSCRIBE, which are not
 * answered, by the PONG to a PING sent behind them, since the relay answers in order. An ERROR is matched to what it is
 * about.
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
/** Of silence, after which the relay is asked whether it is there. */
const IDLE_MS = 20_000
const PONG_TIMEOUT_MS = 8_000
const PROBE_TIMEOUT_MS = 3_000
/** How long an answer may take before the request is repeated. */
const ANSWER_TIMEOUT_MS = 15_000
const MAX_ATTEMPTS = 4
const FIRST_RETRY_MS = 500
const MAX_RETRY_MS = 30_000
/** A connection that lasted so long was good: the next loss starts with the shortest pause again. */
const STABLE_MS = 10_000
const AFTER_RATE_LIMIT_MS = 1_100
const CLOSE_POLICY = 1008

export type Phase = 'idle' | 'connecting' | 'online' | 'waiting' | 'refused'

/** What a WebSocket has that is used here. */
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
  /** The name said in HELLO. */
  name: () => string
  token: () => string | null
  /** The relay refused the token: get another one. true: there is one, try again. */
  renewToken: () => Promise<boolean>
}

export interface Status {
  phase: Phase
  sessionId: string | null
  serverName: string | null
  retryAtMs: number | null
  reason: string | null
}

/** A value as it reaches a subscriber. */
export interface Update {
  address: string
  value: Value
  kind: 'set' | 'publish' | 'snapshot'
  /** How long ago it was written by the relay's clock, ms; null: not said. */
  ageMs: number | null
}

export type Handler = (update: Update) => void

export interface SendOptions {
  /** Kept and repeated over a reconnect; otherwise a loss of the connection is a failure. */
  durable?: boolean
  /** Before everything that waits. */
  urgent?: boolean
  /** A 429 about it is its failure, not a reason to repeat it: the policy counts tries there. */
  once?: boolean
  /** Told when it is on its way. */
  onSent?: () => void
  /** Of a SET: seconds after which the relay forgets it. */
  ttlS?: number
  /** Asked in the moment of sending, also when it is repeated: false makes it a `conflict` instead. */
  guard?: () => boolean
}

interface Job {
  message: ClientMessage
  /** What an answer to it names. */
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
/** What the relay does not answer and a PING behind it confirms. */
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
  /** Added to the own clock it gives the relay's, ms. */
  private serverAheadMs = 0
  private pausedUntil = 0
  private pumpPlanned = false
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

  /** Called at every WELCOME, before the subscriptions are made again: what must come first is sent there, urgent. */
  onOnline(listener: () => void): () => void {
    this.onlineListeners.add(listener)
    return () => this.onlineListeners.delete(listener)
  }

  /** Called with every ERROR that is about nothing that was sent here. */
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

  /** Ends the connection; what waits fails. Subscriptions stay and are made again by {@link start}. */
  stop(): void {
    this.stopConnecting()
    this.leaveSocket()
    this.update({ phase: 'idle', sessionId: null, retryAtMs: null, reason: null })
    for (const job of this.takeUnanswered()) job.reject(offline())
    const queued = this.queue
    this.queue = []
    for (const job of queued) job.reject(offline())
  }

  /** Tries again at once while it waits for the next try. */
  retryNow(): void {
    if (this.current.phase === 'waiting') this.open()
  }

  /** Checks whether the relay still answers, after a sleep or a change of networks; a dead socket is replaced. */
  probe(timeoutMs = PROBE_TIMEOUT_MS): void {
    if (this.online) this.sendFence(timeoutMs)
    else this.retryNow()
  }

  /** Hears what is written in a pattern, now and after every reconnect; `onRefused` hears why it does not. */
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
    // What has not left yet is overtaken by the newer value: only the last one counts.
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

  /** The value at an address; null: there is none, or it is not shown. */
  get(address: string, options: SendOptions = {}): Promise<Value> {
    return this.send({ type: 'GET', address }, address, options)
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
      // Made again after the next reconnect, which is no refusal.
      if (failure.kind !== 'offline') onRefused(failure)
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

  /** Sends at the end of the turn, so that one PING confirms everything that was said in it. */
  private pumpSoon(): void {
    if (this.pumpPlanned) return
    this.pumpPlanned = true
    queueMicrotask(() => {
      this.pumpPlanned = false
      this.pump()
    })
  }

  /** Sends what waits, as far as the rate allows, and puts a fence behind what the relay does not answer. */
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

  /** Takes a token; true: there is none, and sending goes on later. */
  private mustWait(): boolean {
    const pauseMs = this.pausedUntil - this.options.clock.now()
    if (pauseMs <= 0 && this.bucket.take()) return false
    this.stopPump = this.options.clock.after(Math.max(pauseMs, this.bucket.waitMs(), 1), () => {
      this.stopPump = null
      this.pump()
    })
    return true
  }

  /** What is on its way without a fence behind it. */
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

  /** Lets go of the socket; nothing that it still says is heard. */
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
    // Half of it by chance, so that not everybody comes back in the same moment after a restart.
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
      // The auth API was not reached: as good a reason to come back later as a lost socket.
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

  /** Looks after silence and answers that do not come, as long as the socket is there. */
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

  /** Puts back in front what got no answer, unless it was tried too often. */
  private repeat(jobs: readonly Job[], failure: Failure): void {
    this.queue = [...jobs.filter((job) => job.attempts < MAX_ATTEMPTS), ...this.queue]
    for (const job of jobs) if (job.attempts >= MAX_ATTEMPTS) job.reject(failure)
  }

  // --- receiving ---

  private receive(data: unknown): void {
    this.heardAt = this.options.clock.now()
    if (!(data instanceof ArrayBuffer)) return
    let message: ServerMessage
    try {
      message = decodeFrame(data)
    } catch {
      // A frame that nobody can read concerns nobody; the relay validates what it passes on.
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
        this.dispatch({ address: message.address, value: message.value, kind: 'set', ageMs: 0 })
        break
      case 'PUBLISH':
        this.dispatch({ address: message.address, value: message.value, kind: 'publish', ageMs: 0 })
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
    this.dispatch({ address, value, kind: 'snapshot', ageMs })
  }

  private dispatch(update: Update): void {
    for (const subscription of [...this.subscriptions.values()]) {
      if (matches(subscription.pattern, update.address)) subscription.handler(update)
    }
  }

  /** Takes the oldest unanswered message of a kind about an address off the list. */
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
    if (code === RATE_LIMITED && !this.isOnce(address)) {
      this.slowDown(failure)
      return
    }
    const job = address === null ? undefined : this.settle(null, address)
    if (job) job.reject(failure)
    else for (const listener of this.errorListeners) listener(failure, address)
  }

  private isOnce(address: string | null): boolean {
    return this.flight.some((entry) => !isFence(entry) && entry.address === address && entry.options.once === true)
  }

  /** The relay says only once a second that it drops: everything unanswered may have been, and is sent again. */
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

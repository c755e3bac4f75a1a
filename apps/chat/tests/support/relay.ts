/**
 * A relay as far as the chat needs one, in memory: params with snapshots, events, ACKs, PONGs, and a policy that a test
 * may give. Sockets to it can be cut, made deaf or slowed down.
 */
import { decode, encode, type Message } from '@clasp-to/core'
import { encodeFrame, type ClientMessage, type Value } from '@/protocol/codec'
import { matches } from '@/protocol/pattern'
import type { SocketLike } from '@/protocol/connection'

interface Param {
  value: Value
  revision: number
  writtenAt: number
}

/** Says the error for a message that a client may not send; null lets it through. */
export type Policy = (
  message: Message,
  subject: string | null,
) => { code: number; message: string; unnamed?: true } | null

interface Replay {
  pattern: string
  to: bigint | null
  limit: number
}

function readReplay(data: Uint8Array<ArrayBuffer>): Replay | null {
  const view = new DataView(data.buffer, data.byteOffset)
  if (view.getUint8(4) !== 0x24) return null
  const end = 8 + view.getUint16(6)
  const hasEnd = (view.getUint8(5) & 0x40) !== 0
  const pattern = new TextDecoder().decode(data.subarray(8, end))
  return { pattern, to: hasEnd ? view.getBigUint64(end + 8) : null, limit: view.getUint32(end + (hasEnd ? 16 : 8)) }
}

export class FakeSocket implements SocketLike {
  binaryType = ''
  onopen: (() => void) | null = null
  onmessage: ((event: { data: unknown }) => void) | null = null
  onclose: ((event: { code: number; reason: string }) => void) | null = null
  onerror: (() => void) | null = null
  readonly subscriptions = new Map<number, string>()
  readonly received: Message[] = []
  subject: string | null = null
  session = ''
  open = true
  /** Takes what is sent and does nothing about it. */
  deaf = false

  constructor(readonly relay: FakeRelay) {}

  send(data: Uint8Array<ArrayBuffer>): void {
    if (!this.open) return
    // The library knows no REPLAY.
    const replay = readReplay(data)
    if (replay) {
      if (!this.deaf) this.relay.replay(this, replay)
      return
    }
    const message = decode(data)
    this.received.push(message)
    if (!this.deaf) this.relay.take(this, message)
  }

  close(): void {
    if (!this.open) return
    this.open = false
    this.relay.gone(this)
  }

  tell(message: Message): void {
    if (!this.open) return
    // The library's encoder throws on long texts in scripts of three bytes; a relay does not.
    const own = message.type === 'SET' || message.type === 'PUBLISH'
    const bytes = own ? encodeFrame(message as ClientMessage) : encode(message)
    const data = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength)
    this.relay.soon(() => this.open && this.onmessage?.({ data }))
  }

  /** The relay ends it. */
  end(code = 1006, reason = ''): void {
    if (!this.open) return
    this.open = false
    this.relay.gone(this)
    this.relay.soon(() => this.onclose?.({ code, reason }))
  }
}

export class FakeRelay {
  readonly params = new Map<string, Param>()
  readonly sockets = new Set<FakeSocket>()
  readonly published: { address: string; value: Value; subject: string | null }[] = []
  policy: Policy = () => null
  /** Keeps what is said, for REPLAY. */
  keeps = false
  /** By the order of acceptance; their place is their position. */
  readonly kept: { address: string; value: Value; at: number }[] = []
  replays = 0
  /** Refuses connections. */
  down = false
  /** Refuses tokens with this. */
  refuse: string | null = null
  private sessions = 0
  private revision = 0

  constructor(
    readonly soon: (callback: () => void) => void,
    private readonly now: () => number,
    /** Who a token belongs to. */
    private readonly subjectOf: (token: string) => string | null = (token) => token || null,
  ) {}

  connect = (): FakeSocket => {
    const socket = new FakeSocket(this)
    if (this.down) {
      socket.open = false
      this.soon(() => socket.onclose?.({ code: 1006, reason: '' }))
      return socket
    }
    this.sockets.add(socket)
    this.soon(() => socket.open && socket.onopen?.())
    return socket
  }

  gone(socket: FakeSocket): void {
    this.sockets.delete(socket)
  }

  /** Cuts every connection, as a restart does. */
  restart(): void {
    for (const socket of [...this.sockets]) socket.end()
  }

  value(address: string): Value | undefined {
    return this.params.get(address)?.value
  }

  /** What is set and matches. */
  addresses(pattern: string): string[] {
    return [...this.params.keys()].filter((address) => matches(pattern, address))
  }

  take(socket: FakeSocket, message: Message): void {
    if (message.type === 'HELLO') return this.welcome(socket, message.token ?? '')
    const refused = this.policy(message, socket.subject)
    const where = 'pattern' in message ? message.pattern : 'address' in message ? message.address : undefined
    if (refused) {
      const { code, message: text, unnamed } = refused
      const named = where !== undefined && !unnamed && { address: where }
      return socket.tell({ type: 'ERROR', code, message: text, ...named })
    }
    if (message.type === 'SET') this.set(socket, message.address, message.value)
    else if (message.type === 'GET') socket.tell({ type: 'SNAPSHOT', params: [this.param(message.address)] })
    else if (message.type === 'SUBSCRIBE') this.subscribe(socket, message.id, message.pattern)
    else if (message.type === 'UNSUBSCRIBE') socket.subscriptions.delete(message.id)
    else if (message.type === 'PUBLISH') this.publish(socket, message)
    else if (message.type === 'PING') socket.tell({ type: 'PONG' })
  }

  private welcome(socket: FakeSocket, token: string): void {
    if (this.refuse !== null) {
      socket.tell({ type: 'ERROR', code: 302, message: this.refuse })
      socket.tell({ type: 'PONG' })
      this.soon(() => socket.end(1008, this.refuse ?? ''))
      return
    }
    socket.subject = this.subjectOf(token)
    socket.session = `session-${++this.sessions}`
    const features = ['param', 'event', 'stream']
    const time = this.now() * 1000
    socket.tell({ type: 'WELCOME', version: 1, session: socket.session, name: 'Fake', features, time })
    socket.tell({ type: 'SNAPSHOT', params: [] })
  }

  private param(address: string) {
    const { value, revision, writtenAt } = this.params.get(address) ?? { value: null, revision: 0, writtenAt: 0 }
    return { address, value, revision, ...(revision > 0 && { timestamp: writtenAt * 1000 }) }
  }

  private subscribe(socket: FakeSocket, id: number, pattern: string): void {
    socket.subscriptions.set(id, pattern)
    const params = [...this.params.keys()]
      .filter((address) => matches(pattern, address))
      .map((each) => this.param(each))
    for (const param of params) socket.tell({ type: 'SNAPSHOT', params: [param] })
  }

  /** Stores a value as if somebody had written it. */
  put(address: string, written: unknown): void {
    const value = written as Value
    const param = { value, revision: ++this.revision, writtenAt: this.now() }
    if (value === null) this.params.delete(address)
    else this.params.set(address, param)
    for (const other of this.listeners(address)) {
      other.tell({ type: 'SET', address, value, revision: param.revision })
    }
  }

  private set(socket: FakeSocket, address: string, value: Value): void {
    this.put(address, value)
    socket.tell({ type: 'ACK', address, revision: this.revision })
  }

  private publish(socket: FakeSocket, message: Message & { type: 'PUBLISH' }): void {
    const { address } = message
    const value = message.value ?? null
    this.published.push({ address, value, subject: socket.subject })
    const at = Math.max(this.now() * 1000, (this.kept.at(-1)?.at ?? 0) + 1)
    const stamped = this.keeps && address.endsWith('/messages')
    if (stamped) this.kept.push({ address, value, at })
    for (const other of this.listeners(address)) {
      const timestamp = stamped && { timestamp: at }
      if (other !== socket) other.tell({ type: 'PUBLISH', address, signal: 'event', value, ...timestamp })
    }
  }

  replay(socket: FakeSocket, { pattern, to, limit }: Replay): void {
    this.replays += 1
    if (!this.keeps) return socket.tell({ type: 'ERROR', code: 501, message: 'no history', address: pattern })
    const base = 1n << 63n
    const all = this.kept
      .map((entry, place) => ({ ...entry, place: base + BigInt(place) }))
      .filter((entry) => matches(pattern, entry.address) && (to === null || entry.place < to))
    const page = all.slice(-limit)
    for (const { address, value, at } of page)
      socket.tell({ type: 'PUBLISH', address, signal: 'event', value, timestamp: at })
    const end = {
      pattern,
      count: page.length,
      complete: page.length === all.length,
      next: String(page[0]?.place ?? base),
      oldest: null,
      times: [],
    }
    socket.tell({ type: 'PUBLISH', address: '/clasp/replay/end', signal: 'event', value: end })
  }

  /** Emits an event as if somebody had. */
  emit(address: string, value: Value, timestamp?: number): void {
    const time = timestamp !== undefined && { timestamp }
    for (const other of this.listeners(address))
      other.tell({ type: 'PUBLISH', address, signal: 'event', value, ...time })
  }

  private listeners(address: string): FakeSocket[] {
    return [...this.sockets].filter((socket) =>
      [...socket.subscriptions.values()].some((pattern) => matches(pattern, address)),
    )
  }
}

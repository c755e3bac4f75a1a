/**
 * Encodes CLASP frames (docs/protocol.md). The library's encoder is not used: it sizes its buffer by UTF-16 units and
 * throws on long texts in Chinese, Japanese or Korean. Wherever it succeeds, this one gives the same bytes.
 */

/** What a param or an event can hold. */
export type Value = null | boolean | number | string | Uint8Array | Value[] | ValueMap
export type ValueMap = { [key: string]: Value }

/** The most payload bytes of a frame: its length field has 16 bits. */
export const MAX_PAYLOAD_BYTES = 65_535
/** The relay's limit on nested arrays and maps. */
export const MAX_DEPTH = 32

/** The first byte of every frame. */
export const MAGIC = 0x53
/** Magic byte, flags, 16-bit payload length. */
export const HEADER_BYTES = 4
const ENCODING_BINARY = 0x01

export type Signal = 'param' | 'event' | 'stream' | 'gesture' | 'timeline'
export type Phase = 'start' | 'move' | 'end' | 'cancel'

const SIGNALS: readonly Signal[] = ['param', 'event', 'stream', 'gesture', 'timeline']
const PHASES: readonly Phase[] = ['start', 'move', 'end', 'cancel']
const FEATURE_BITS: Readonly<Record<string, number>> = {
  param: 0x80,
  event: 0x40,
  stream: 0x20,
  gesture: 0x10,
  timeline: 0x08,
}

/** The messages that this app sends. */
export type ClientMessage =
  | { type: 'HELLO'; version: number; name: string; features: readonly string[]; token?: string }
  | { type: 'SUBSCRIBE'; id: number; pattern: string; types?: readonly Signal[]; options?: SubscribeOptions }
  | { type: 'UNSUBSCRIBE'; id: number }
  | PublishMessage
  | SetMessage
  | { type: 'GET'; address: string }
  | ReplayMessage
  | { type: 'BUNDLE'; timestamp?: number; messages: readonly (SetMessage | PublishMessage)[] }
  | { type: 'PING' }
  | { type: 'PONG' }

/** Asks for events that the relay has kept: the newest ones, before a position if one is given. */
export interface ReplayMessage {
  type: 'REPLAY'
  pattern: string
  limit: number
  to?: bigint
}

export interface SubscribeOptions {
  maxRate?: number
  epsilon?: number
  history?: number
  window?: number
}

export interface PublishMessage {
  type: 'PUBLISH'
  address: string
  signal?: Signal
  phase?: Phase
  value?: Value
  payload?: Value
  samples?: readonly number[]
  /** Microseconds since the Unix epoch. */
  timestamp?: number
  id?: number
  rate?: number
}

export interface SetMessage {
  type: 'SET'
  address: string
  value: Value
  revision?: number | bigint
  lock?: boolean
  unlock?: boolean
  /** Seconds; 0: never expires. */
  ttl?: number
  /** The ttl counts from the write and is not renewed by reading. */
  absolute?: boolean
}

/** A message that cannot be encoded: too large, nested too deeply, or with a value that CLASP does not have. */
export class EncodeError extends Error {
  override readonly name = 'EncodeError'
}

const utf8 = new TextEncoder()

class Writer {
  private bytes = new Uint8Array(512)
  private view = new DataView(this.bytes.buffer)
  private length = 0

  private reserve(count: number): number {
    const start = this.length
    this.length += count
    if (this.length > this.bytes.length) {
      const grown = new Uint8Array(Math.max(this.length, this.bytes.length * 2))
      grown.set(this.bytes)
      this.bytes = grown
      this.view = new DataView(grown.buffer)
    }
    return start
  }

  u8(value: number): void {
    const at = this.reserve(1)
    this.view.setUint8(at, value)
  }

  u16(value: number): void {
    const at = this.reserve(2)
    this.view.setUint16(at, value)
  }

  u32(value: number): void {
    const at = this.reserve(4)
    this.view.setUint32(at, value)
  }

  u64(value: number | bigint): void {
    const at = this.reserve(8)
    this.view.setBigUint64(at, BigInt(typeof value === 'number' ? Math.trunc(value) : value))
  }

  f64(value: number): void {
    const at = this.reserve(8)
    this.view.setFloat64(at, value)
  }

  /** Bytes with a 16-bit length prefix. */
  block(data: Uint8Array): void {
    if (data.length > MAX_PAYLOAD_BYTES) throw new EncodeError(`${data.length} bytes do not fit a frame`)
    this.u16(data.length)
    const at = this.reserve(data.length)
    this.bytes.set(data, at)
  }

  string(text: string): void {
    this.block(utf8.encode(text))
  }

  finish(): Uint8Array<ArrayBuffer> {
    return this.bytes.slice(0, this.length)
  }
}

const enum Code {
  Null = 0x00,
  Bool = 0x01,
  F64 = 0x07,
  String = 0x08,
  Bytes = 0x09,
  Array = 0x0a,
  Map = 0x0b,
}

function valueCode(value: Value): Code {
  if (value === null) return Code.Null
  if (typeof value === 'boolean') return Code.Bool
  if (typeof value === 'number') return Code.F64
  if (typeof value === 'string') return Code.String
  if (value instanceof Uint8Array) return Code.Bytes
  if (Array.isArray(value)) return Code.Array
  if (typeof value === 'object') return Code.Map
  throw new EncodeError(`a ${typeof value} is no CLASP value`)
}

function writeCount(out: Writer, count: number): void {
  if (count > 0xffff) throw new EncodeError(`${count} items do not fit a frame`)
  out.u16(count)
}

function writeTyped(out: Writer, value: Value, depth: number): void {
  out.u8(valueCode(value))
  writeData(out, value, depth)
}

function writeData(out: Writer, value: Value, depth: number): void {
  if (depth > MAX_DEPTH) throw new EncodeError(`nested deeper than ${MAX_DEPTH} levels`)
  if (value === null) return
  if (typeof value === 'boolean') out.u8(value ? 1 : 0)
  else if (typeof value === 'number') out.f64(value)
  else if (typeof value === 'string') out.string(value)
  else if (value instanceof Uint8Array) out.block(value)
  else if (Array.isArray(value)) {
    writeCount(out, value.length)
    for (const item of value) writeTyped(out, item, depth + 1)
  } else {
    const entries = Object.entries(value).filter(([, item]) => item !== undefined)
    writeCount(out, entries.length)
    for (const [key, item] of entries) {
      out.string(key)
      writeTyped(out, item, depth + 1)
    }
  }
}

function writeSubscribe(out: Writer, message: ClientMessage & { type: 'SUBSCRIBE' }): void {
  out.u8(0x10)
  out.u32(message.id)
  out.string(message.pattern)
  const types = message.types ?? []
  out.u8(types.length ? types.reduce((mask, type) => mask | (1 << SIGNALS.indexOf(type)), 0) : 0xff)
  const { maxRate, epsilon, history, window } = message.options ?? {}
  const given = [maxRate, epsilon, history, window].map((option, bit) => (option === undefined ? 0 : 1 << bit))
  out.u8(given.reduce((flags, bit) => flags | bit, 0))
  if (maxRate !== undefined) out.u32(maxRate)
  if (epsilon !== undefined) out.f64(epsilon)
  if (history !== undefined) out.u32(history)
  if (window !== undefined) out.u32(window)
}

function writePublish(out: Writer, message: PublishMessage): void {
  out.u8(0x20)
  const signal = SIGNALS.indexOf(message.signal ?? 'event')
  const phase = PHASES.indexOf(message.phase ?? 'start')
  const timestamp = message.timestamp === undefined ? 0 : 0x10
  out.u8((signal << 5) | timestamp | (message.id === undefined ? 0 : 0x08) | phase)
  out.string(message.address)
  const value = message.value === undefined ? message.payload : message.value
  if (value !== undefined) {
    out.u8(1)
    writeTyped(out, value, 0)
  } else if (message.samples) {
    out.u8(2)
    writeCount(out, message.samples.length)
    for (const sample of message.samples) out.f64(sample)
  } else {
    out.u8(0)
  }
  if (message.timestamp !== undefined) out.u64(message.timestamp)
  if (message.id !== undefined) out.u32(message.id)
  if (message.rate !== undefined) out.u32(message.rate)
}

function writeSet(out: Writer, message: SetMessage): void {
  out.u8(0x21)
  const revision = message.revision === undefined ? 0 : 0x80
  const ttl = message.ttl === undefined ? 0 : 0x10
  out.u8(revision | (message.lock ? 0x40 : 0) | (message.unlock ? 0x20 : 0) | ttl | valueCode(message.value))
  out.string(message.address)
  writeData(out, message.value, 0)
  if (message.revision !== undefined) out.u64(message.revision)
  if (message.ttl !== undefined) {
    const seconds = message.ttl & 0x7fffffff
    out.u32(message.absolute && seconds > 0 ? (seconds | 0x80000000) >>> 0 : seconds)
  }
}

/** `from` of a REPLAY: the newest entries. */
const NEWEST = 0xffff_ffff_ffff_ffffn
const EVENTS = 1 << SIGNALS.indexOf('event')

function writeReplay(out: Writer, { pattern, limit, to }: ReplayMessage): void {
  out.u8(0x24)
  out.u8(0x80 | 0x20 | (to === undefined ? 0 : 0x40))
  out.string(pattern)
  out.u64(NEWEST)
  if (to !== undefined) out.u64(to)
  out.u32(limit)
  out.u8(EVENTS)
}

function writeHello(out: Writer, message: ClientMessage & { type: 'HELLO' }): void {
  out.u8(0x01)
  out.u8(message.version)
  out.u8(message.features.reduce((bits, feature) => bits | (FEATURE_BITS[feature] ?? 0), 0))
  out.string(message.name)
  out.string(message.token ?? '')
}

function writeBundle(out: Writer, message: ClientMessage & { type: 'BUNDLE' }): void {
  out.u8(0x30)
  out.u8(message.timestamp === undefined ? 0 : 0x80)
  writeCount(out, message.messages.length)
  if (message.timestamp !== undefined) out.u64(message.timestamp)
  for (const member of message.messages) out.block(encodePayload(member))
}

/** The payload of a message, without the frame's header. */
export function encodePayload(message: ClientMessage): Uint8Array<ArrayBuffer> {
  const out = new Writer()
  switch (message.type) {
    case 'HELLO':
      writeHello(out, message)
      break
    case 'SUBSCRIBE':
      writeSubscribe(out, message)
      break
    case 'UNSUBSCRIBE':
      out.u8(0x11)
      out.u32(message.id)
      break
    case 'PUBLISH':
      writePublish(out, message)
      break
    case 'SET':
      writeSet(out, message)
      break
    case 'GET':
      out.u8(0x22)
      out.string(message.address)
      break
    case 'REPLAY':
      writeReplay(out, message)
      break
    case 'BUNDLE':
      writeBundle(out, message)
      break
    case 'PING':
      out.u8(0x41)
      break
    case 'PONG':
      out.u8(0x42)
      break
  }
  return out.finish()
}

/** The QoS that the JavaScript client uses: SET and events want an ACK, other messages do not. */
function defaultQos(message: ClientMessage): 0 | 1 | 2 {
  if (message.type === 'SET') return 1
  if (message.type === 'BUNDLE') return 2
  if (message.type !== 'PUBLISH') return 0
  return message.signal === 'stream' || message.signal === 'gesture' ? 0 : 1
}

/**
 * Encodes a complete frame.
 *
 * @throws {EncodeError} if the message does not fit one frame or contains a value that CLASP does not have.
 */
export function encodeFrame(message: ClientMessage, qos: 0 | 1 | 2 = defaultQos(message)): Uint8Array<ArrayBuffer> {
  const payload = encodePayload(message)
  if (payload.length > MAX_PAYLOAD_BYTES) throw new EncodeError(`${payload.length} bytes do not fit a frame`)
  const frame = new Uint8Array(HEADER_BYTES + payload.length)
  frame[0] = MAGIC
  frame[1] = (qos << 6) | ENCODING_BINARY
  new DataView(frame.buffer).setUint16(2, payload.length)
  frame.set(payload, HEADER_BYTES)
  return frame
}

/**
 * Decodes the frames that a relay sends (docs/protocol.md). The library's decoder is not used: it drops a leading byte
 * order mark, so that it reads `<BOM>userId` as `userId`, and it lets the key `__proto__` replace a map's prototype.
 * The relay checks the bytes; a client that reads other keys than the relay checked can be fooled about the author.
 */
import { HEADER_BYTES, MAGIC, MAX_DEPTH, type Value, type ValueMap } from './codec'

/** One entry of a SNAPSHOT. */
export interface ParamValue {
  address: string
  /** null: there is no value, or it is not shown to this session. */
  value: Value
  revision: number
  /** Session id of the last writer. */
  writer: string | null
  /** Time of the last write on the relay's clock, µs since the Unix epoch. */
  timestamp: number | null
}

/** The messages of a relay that the chat uses. */
export type ServerMessage =
  | { type: 'WELCOME'; version: number; session: string; name: string; time: number }
  | { type: 'SET'; address: string; value: Value }
  /** `timestamp` in µs: that of its sender, or of the relay where it keeps what was said there. */
  | { type: 'PUBLISH'; address: string; value: Value; timestamp: number | null }
  | { type: 'SNAPSHOT'; params: ParamValue[] }
  | { type: 'ACK'; address: string | null }
  | { type: 'ERROR'; code: number; message: string; address: string | null }
  | { type: 'PING' }
  | { type: 'PONG' }

/** A frame that is truncated, malformed, or of a kind that the chat does not use. */
export class DecodeError extends Error {
  override readonly name = 'DecodeError'
}

const TIMESTAMP_FLAG = 0x20
/** The encrypted and the compressed bit: no relay sets them, and what follows them would be unreadable. */
const UNSUPPORTED_FLAGS = 0x18
const TIMESTAMP_BYTES = 8

/** `fatal` refuses invalid UTF-8; `ignoreBOM` keeps a byte order mark as part of the text. */
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

class Reader {
  private offset = 0

  constructor(private readonly view: DataView) {}

  private take(count: number): number {
    const start = this.offset
    if (start + count > this.view.byteLength) throw new DecodeError('truncated frame')
    this.offset += count
    return start
  }

  u8 = (): number => this.view.getUint8(this.take(1))
  i8 = (): number => this.view.getInt8(this.take(1))
  u16 = (): number => this.view.getUint16(this.take(2))
  i16 = (): number => this.view.getInt16(this.take(2))
  i32 = (): number => this.view.getInt32(this.take(4))
  f32 = (): number => this.view.getFloat32(this.take(4))
  f64 = (): number => this.view.getFloat64(this.take(8))
  /** Integers above 2⁵³ lose their low bits. */
  u64 = (): number => Number(this.view.getBigUint64(this.take(8)))
  i64 = (): number => Number(this.view.getBigInt64(this.take(8)))

  /** Skips bytes whose content is not needed. */
  skip(count: number): void {
    this.take(count)
  }

  /** The next `count` bytes, not copied. */
  private bytes(count: number): Uint8Array<ArrayBuffer> {
    const start = this.take(count)
    return new Uint8Array(this.view.buffer as ArrayBuffer, this.view.byteOffset + start, count)
  }

  /** The part of the frame that follows a 16-bit length. */
  block(): Uint8Array<ArrayBuffer> {
    return this.bytes(this.u16())
  }

  string(): string {
    try {
      return utf8.decode(this.block())
    } catch (error) {
      if (error instanceof DecodeError) throw error
      throw new DecodeError('invalid UTF-8')
    }
  }
}

const readTyped = (input: Reader, depth: number): Value => readData(input, input.u8(), depth)

function readArray(input: Reader, depth: number): Value[] {
  const count = input.u16()
  const items: Value[] = []
  for (let index = 0; index < count; index++) items.push(readTyped(input, depth))
  return items
}

/** A map without a prototype, so that `__proto__` and `constructor` are keys like any other. */
function readMap(input: Reader, depth: number): ValueMap {
  const count = input.u16()
  const map = Object.create(null) as ValueMap
  for (let index = 0; index < count; index++) {
    const key = input.string()
    map[key] = readTyped(input, depth)
  }
  return map
}

function readData(input: Reader, code: number, depth: number): Value {
  if (depth > MAX_DEPTH) throw new DecodeError(`nested deeper than ${MAX_DEPTH} levels`)
  switch (code) {
    case 0x00:
      return null
    case 0x01:
      return input.u8() !== 0
    case 0x02:
      return input.i8()
    case 0x03:
      return input.i16()
    case 0x04:
      return input.i32()
    case 0x05:
      return input.i64()
    case 0x06:
      return input.f32()
    case 0x07:
      return input.f64()
    case 0x08:
      return input.string()
    case 0x09:
      return input.block().slice()
    case 0x0a:
      return readArray(input, depth + 1)
    case 0x0b:
      return readMap(input, depth + 1)
    default:
      throw new DecodeError(`unknown value type 0x${code.toString(16)}`)
  }
}

function readWelcome(input: Reader): ServerMessage {
  const version = input.u8()
  input.skip(1)
  const time = input.u64()
  const session = input.string()
  return { type: 'WELCOME', version, session, name: input.string(), time }
}

function readPublish(input: Reader): ServerMessage {
  const flags = input.u8()
  const address = input.string()
  const content = input.u8()
  const value = content === 1 ? readTyped(input, 0) : null
  // Streams carry samples instead of a value; no address of the chat is a stream.
  if (content === 2) input.skip(8 * input.u16())
  const timestamp = flags & 0x10 ? input.u64() : null
  return { type: 'PUBLISH', address, value, timestamp }
}

function readSet(input: Reader): ServerMessage {
  const code = input.u8() & 0x0f
  const address = input.string()
  return { type: 'SET', address, value: readData(input, code, 0) }
}

function readParam(input: Reader): ParamValue {
  const address = input.string()
  const value = readTyped(input, 0)
  const revision = input.u64()
  const flags = input.u8()
  const writer = flags & 0x01 ? input.string() : null
  return { address, value, revision, writer, timestamp: flags & 0x02 ? input.u64() : null }
}

function readSnapshot(input: Reader): ServerMessage {
  const count = input.u16()
  const params: ParamValue[] = []
  for (let index = 0; index < count; index++) params.push(readParam(input))
  return { type: 'SNAPSHOT', params }
}

const readAddress = (input: Reader): string | null => (input.u8() & 0x01 ? input.string() : null)

function readError(input: Reader): ServerMessage {
  const code = input.u16()
  const message = input.string()
  return { type: 'ERROR', code, message, address: readAddress(input) }
}

function readMessage(input: Reader): ServerMessage {
  const type = input.u8()
  switch (type) {
    case 0x02:
      return readWelcome(input)
    case 0x20:
      return readPublish(input)
    case 0x21:
      return readSet(input)
    case 0x23:
      return readSnapshot(input)
    case 0x41:
      return { type: 'PING' }
    case 0x42:
      return { type: 'PONG' }
    case 0x50:
      return { type: 'ACK', address: readAddress(input) }
    case 0x51:
      return readError(input)
    default:
      throw new DecodeError(`unexpected message type 0x${type.toString(16)}`)
  }
}

/**
 * The message in a frame from the relay.
 *
 * @throws {DecodeError} when the frame holds no message that the chat uses; the caller drops such a frame.
 */
export function decodeFrame(data: ArrayBuffer): ServerMessage {
  const view = new DataView(data)
  if (view.byteLength < HEADER_BYTES || view.getUint8(0) !== MAGIC) throw new DecodeError('not a CLASP frame')
  const flags = view.getUint8(1)
  if (flags & UNSUPPORTED_FLAGS) throw new DecodeError('encrypted or compressed frame')
  const start = HEADER_BYTES + (flags & TIMESTAMP_FLAG ? TIMESTAMP_BYTES : 0)
  const length = view.getUint16(2)
  if (view.byteLength < start + length) throw new DecodeError('truncated frame')
  return readMessage(new Reader(new DataView(data, start, length)))
}

import { readFileSync } from 'node:fs'
import { decode, encode } from '@clasp-to/core'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { encodeFrame, MAX_DEPTH, type ClientMessage, type Value } from '@/protocol/codec'
import { DecodeError, decodeFrame } from '@/protocol/decoder'
import { parseMessage, parseRoomMeta } from '@/protocol/shapes'

interface Vector {
  id: string
  message: { type: string }
  hex: string
}

const vectors = JSON.parse(
  readFileSync(new URL('../../../../tests/vectors/vectors.json', import.meta.url), 'utf8'),
) as Vector[]

const BOM = '\ufeff'

const bytesOf = (hex: string): Uint8Array<ArrayBuffer> => Uint8Array.from(Buffer.from(hex.replaceAll(' ', ''), 'hex'))
/** A frame around a payload given in hex. */
function frame(payload: string, flags = '01'): ArrayBuffer {
  const bytes = bytesOf(payload)
  return bytesOf(`53${flags}${bytes.length.toString(16).padStart(4, '0')}${payload}`).buffer
}
const bufferOf = (bytes: Uint8Array): ArrayBuffer => Uint8Array.from(bytes).buffer
const valueOf = (value: Value): Value => {
  const message = decodeFrame(encodeFrame({ type: 'SET', address: '/a', value }).buffer)
  return message.type === 'SET' ? message.value : null
}
/** A map with these keys in this order, as bytes can say it and an object literal can't. */
function mapFrame(keys: readonly [string, string][], nesting = 0): ArrayBuffer {
  const text = (one: string): string => {
    const hex = Buffer.from(one, 'utf8').toString('hex')
    return (hex.length / 2).toString(16).padStart(4, '0') + hex
  }
  let code = '0b'
  let data = `${keys.length.toString(16).padStart(4, '0')}${keys.map(([key, value]) => `${text(key)}08${text(value)}`).join('')}`
  for (let level = 0; level < nesting; level++) {
    // Arrays and maps in turn.
    data = level % 2 ? `0001${text('k')}${code}${data}` : `0001${code}${data}`
    code = level % 2 ? '0b' : '0a'
  }
  return frame(`21${code}${text('/a')}${data}`)
}

/** Every map in a value. */
function mapsIn(value: Value): object[] {
  if (Array.isArray(value)) return value.flatMap(mapsIn)
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return []
  return [value, ...Object.values(value).flatMap(mapsIn)]
}

describe('decodeFrame', () => {
  const used = ['WELCOME', 'SET', 'PUBLISH', 'SNAPSHOT', 'ACK', 'ERROR', 'PING', 'PONG']
  /** Binary, as a relay sends it: MessagePack maps begin with a byte from 0x80 on. */
  const isBinary = ({ hex }: Vector): boolean => {
    const [, flags = 0, , , ...rest] = Buffer.from(hex, 'hex')
    return (flags & 0x1f) === 1 && (rest[flags & 0x20 ? 8 : 0] ?? 0) < 0x80
  }
  // The library drops a byte order mark; see below.
  const binary = vectors.filter((each) => used.includes(each.message.type) && isBinary(each) && !/bom/.test(each.id))

  it.each(binary.map((vector) => [vector.id, vector] as const))('reads %s as the library does', (_id, { hex }) => {
    const theirs = decode(bytesOf(hex)) as unknown as Record<string, unknown>
    const ours = decodeFrame(bytesOf(hex).buffer) as unknown as Record<string, unknown>
    for (const [name, value] of Object.entries(ours)) {
      if (name === 'params')
        expect(value).toEqual(
          (theirs['params'] as object[]).map((param) => ({
            writer: null,
            timestamp: null,
            ...JSON.parse(JSON.stringify(param)),
          })),
        )
      else expect([name, value ?? null]).toEqual([name, theirs[name] ?? null])
    }
  })

  it('reads every type of value', () => {
    const read = (hex: string): Value => {
      const message = decodeFrame(frame(`2001 0002 2f61 01 ${hex}`.replaceAll(' ', '')))
      return message.type === 'PUBLISH' ? message.value : null
    }
    expect(read('00')).toBeNull()
    expect([read('0100'), read('0101'), read('0102')]).toEqual([false, true, true])
    expect([read('02ff'), read('03fffe'), read('04fffffffd'), read('05fffffffffffffffc')]).toEqual([-1, -2, -3, -4])
    expect([read('063f800000'), read('073ff8000000000000')]).toEqual([1, 1.5])
    expect(read('0800026869')).toBe('hi')
    expect(read('090002feff')).toEqual(Uint8Array.of(0xfe, 0xff))
    expect(read('0a000201010100')).toEqual([true, false])
    expect(read('0b00010001610101')).toEqual({ a: true })
    expect(() => read('0c')).toThrow(DecodeError)
  })

  it('reads an event without a value as null', () => {
    expect(decodeFrame(frame('200000022f6100'))).toEqual({
      type: 'PUBLISH',
      address: '/a',
      value: null,
      timestamp: null,
    })
  })

  it('reads back what the encoder wrote, whatever the value', () => {
    const leaf = fc.oneof(fc.constant(null), fc.boolean(), fc.double(), fc.string({ unit: 'binary' }), fc.uint8Array())
    const key = fc.oneof(fc.string(), fc.constantFrom('__proto__', 'constructor', 'toString', `${BOM}userId`, 'userId'))
    const { value } = fc.letrec((tie) => ({
      value: fc.oneof(
        { maxDepth: 4 },
        leaf,
        fc.array(tie('value'), { maxLength: 5 }),
        fc.dictionary(key, tie('value'), { maxKeys: 5 }),
      ),
    }))
    fc.assert(
      fc.property(value, (any) => {
        const read = valueOf(any as Value)
        expect(read).toEqual(any)
        expect(Object.keys(read ?? {})).toEqual(Object.keys((any as object | null) ?? {}))
        for (const map of mapsIn(read)) expect(Object.getPrototypeOf(map)).toBeNull()
      }),
      { numRuns: 100 },
    )
  })

  it('gives a message or a DecodeError for any bytes', () => {
    const anyFrame = fc.uint8Array({ maxLength: 60 }).map((payload) => frame(Buffer.from(payload).toString('hex')))
    fc.assert(
      fc.property(fc.oneof(anyFrame, fc.uint8Array({ maxLength: 20 }).map(bufferOf)), (data) => {
        try {
          expect(used).toContain(decodeFrame(data).type)
        } catch (error) {
          expect(error).toBeInstanceOf(DecodeError)
        }
      }),
      { numRuns: 500 },
    )
  })

  it('refuses what is no frame, or no message that the chat uses', () => {
    for (const hex of [
      '',
      '010203',
      '54010000',
      '530100052341',
      '5301000000',
      '5319000141',
      '5309000141',
      '530100017f',
    ])
      expect(() => decodeFrame(bytesOf(hex).buffer)).toThrow(DecodeError)
    const hello = encodeFrame({ type: 'HELLO', version: 1, name: 'x', features: [] } satisfies ClientMessage)
    expect(() => decodeFrame(hello.buffer)).toThrow('unexpected message type 0x1')
    expect(() => decodeFrame(frame('2108000000'))).toThrow('truncated frame')
    expect(() => decodeFrame(frame('21080000 0001ff'.replaceAll(' ', '')))).toThrow('invalid UTF-8')
    expect(() => decodeFrame(frame('2108 0000 0005 61'.replaceAll(' ', '')))).toThrow('truncated frame')
  })

  it('reads an entry of a SNAPSHOT with and without writer and time', () => {
    const entry = (flags: string, rest = ''): unknown => {
      const message = decodeFrame(frame(`23000100022f6100000000000000000 7${flags}${rest}`.replaceAll(' ', '')))
      return message.type === 'SNAPSHOT' && message.params[0]
    }
    const bare = { address: '/a', value: null, revision: 7, writer: null, timestamp: null }
    expect(entry('00')).toEqual(bare)
    expect(entry('03', '000178 0000000000000009'.replace(' ', ''))).toEqual({ ...bare, writer: 'x', timestamp: 9 })
  })

  it('reads an answer without an address', () => {
    expect(decodeFrame(frame('5000'))).toEqual({ type: 'ACK', address: null })
    expect(decodeFrame(frame('5101ad0000 00'.replace(' ', '')))).toMatchObject({ code: 429, address: null })
  })

  it('skips the time in a header', () => {
    expect(decodeFrame(bytesOf('532100010000000000000007 42'.replaceAll(' ', '')).buffer)).toEqual({ type: 'PONG' })
    expect(decodeFrame(bufferOf(encode({ type: 'PING' })))).toEqual({ type: 'PING' })
  })

  it('refuses values that are nested too deeply', () => {
    const nested = (levels: number): ArrayBuffer => mapFrame([['a', 'b']], levels)
    expect(() => decodeFrame(nested(MAX_DEPTH - 1))).not.toThrow()
    expect(() => decodeFrame(nested(MAX_DEPTH))).toThrow('nested deeper')
    expect(() => decodeFrame(nested(5_000))).toThrow('nested deeper')
  })
})

describe('keys that two readers could read differently', () => {
  const author = (data: ArrayBuffer): string | null => {
    const message = decodeFrame(data)
    return message.type === 'SET' ? (parseMessage(message.value)?.userId ?? null) : null
  }
  const rest: [string, string][] = [
    ['fromId', 's'],
    ['msgId', 'm'],
  ]

  it('are different keys here: a byte order mark is part of the name', () => {
    const message = decodeFrame(mapFrame([['userId', 'mal'], [`${BOM}userId`, 'alice'], ...rest]))
    expect(message).toMatchObject({ value: { userId: 'mal', [`${BOM}userId`]: 'alice' } })
    expect(valueOf(`${BOM}text`)).toBe(`${BOM}text`)
  })

  it.each(['__proto__', 'constructor', 'prototype'])('%s is a key like any other, at every depth', (key) => {
    for (let depth = 0; depth < MAX_DEPTH; depth++) {
      const message = decodeFrame(mapFrame([[key, 'alice']], depth))
      const maps = message.type === 'SET' ? mapsIn(message.value) : []
      expect(maps).toHaveLength(Math.floor(depth / 2) + 1)
      for (const map of maps) expect(Object.getPrototypeOf(map)).toBeNull()
      expect(Object.keys(maps.at(-1) as object)).toEqual([key])
    }
  })

  it('say nothing about the author of a message', () => {
    const value = (own: object): Value => ({ fromId: 's', msgId: 'm', timestamp: 1, text: 'x', ...own }) as Value
    const hidden = Object.defineProperty({}, '__proto__', { value: { userId: 'alice' }, enumerable: true })
    expect(parseMessage(valueOf(value(hidden)))).toMatchObject({ userId: null })
    expect(
      parseMessage(JSON.parse('{"fromId":"s","msgId":"m","timestamp":1,"__proto__":{"userId":"alice"}}')),
    ).toMatchObject({ userId: null })
    expect(parseMessage(Object.assign(Object.create({ userId: 'alice' }), value({})))).toMatchObject({ userId: null })
    expect(author(mapFrame([['__proto__', 'alice'], ...rest]))).toBeNull()
    expect(parseRoomMeta(valueOf({ name: 'x', __proto__: null } as unknown as Value))).toMatchObject({
      creatorId: null,
    })
  })
})

import { readFileSync } from 'node:fs'
import { decode } from '@clasp-to/core'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { encodeFrame, EncodeError, encodePayload, type ClientMessage, type Value } from '@/protocol/codec'

interface Vector {
  id: string
  category: string
  source: string
  message: Record<string, unknown>
  hex: string
  frame: { qos: 0 | 1 | 2 | 3; timestamp_flag: boolean }
}

const vectors = JSON.parse(
  readFileSync(new URL('../../../../tests/vectors/vectors.json', import.meta.url), 'utf8'),
) as Vector[]

/** The tags that the vectors use for what JSON cannot say. */
function untag(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(untag)
  if (typeof value !== 'object' || value === null) return value
  const entry = Object.entries(value)[0]
  if (entry?.[0] === '$bytes') return Uint8Array.from(Buffer.from(entry[1] as string, 'hex'))
  if (entry?.[0] === '$float') return { nan: NaN, inf: Infinity, '-inf': -Infinity, '-0': -0 }[entry[1] as string]
  if (entry?.[0] === '$int') return Number(entry[1])
  if (entry?.[0] === '$bigint') return BigInt(entry[1] as string)
  if (entry?.[0] === '$utf16') return String.fromCharCode(...(entry[1] as number[]))
  if (entry?.[0] === '$undefined') return undefined
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, untag(item)]))
}

const OURS = ['HELLO', 'SUBSCRIBE', 'UNSUBSCRIBE', 'PUBLISH', 'SET', 'GET', 'BUNDLE', 'PING', 'PONG']
const ofJavaScript = vectors.filter(
  (vector) => vector.source.startsWith('js') && OURS.includes(vector.message['type'] as string),
)

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')
const US = 1_700_000_000_123_000

describe('encodeFrame', () => {
  it.each(ofJavaScript.map((vector) => [vector.id, vector] as const))('gives the bytes of %s', (_id, vector) => {
    const message = untag(vector.message) as ClientMessage
    const ours = () => encodePayload(message)
    const holdsNoValue = JSON.stringify(vector.message).match(/"value": ?\{"\$(bigint|undefined)/)
    if (holdsNoValue) return expect(ours).toThrow(EncodeError)
    const header = vector.frame.timestamp_flag ? 24 : 8
    expect(hex(ours())).toBe(vector.hex.slice(header))
  })

  it('asks for the newest events, before a position if one is given', () => {
    const ask = { type: 'REPLAY', pattern: '/a', limit: 50 } as const
    expect(hex(encodePayload(ask))).toBe('24a000022f61ffffffffffffffff0000003202')
    const before = { ...ask, to: (1n << 63n) + 7n }
    expect(hex(encodePayload(before))).toBe('24e000022f61ffffffffffffffff80000000000000070000003202')
  })

  const calls: readonly (readonly [string, ClientMessage])[] = [
    [
      'connect()',
      { type: 'HELLO', version: 1, name: 'CLASP JS Client', features: ['param', 'event', 'stream'], token: 'tok-123' },
    ],
    [
      "on('/f/*', cb, {maxRate:30,epsilon:0.01})",
      { type: 'SUBSCRIBE', id: 3, pattern: '/f/*', options: { maxRate: 30, epsilon: 0.01 } },
    ],
    ["set('/a/b', 0.75)", { type: 'SET', address: '/a/b', value: 0.75 }],
    ["set('/a/b', 1, {ttl:60,absolute:true})", { type: 'SET', address: '/a/b', value: 1, ttl: 60, absolute: true }],
    ["get('/a/b')", { type: 'GET', address: '/a/b' }],
    [
      "emit('/e', {cue:'intro'})",
      { type: 'PUBLISH', address: '/e', signal: 'event', payload: { cue: 'intro' }, timestamp: US },
    ],
    ["emit('/e')", { type: 'PUBLISH', address: '/e', signal: 'event', value: null, timestamp: US }],
    [
      "gesture('/g', 1, 'end')",
      { type: 'PUBLISH', address: '/g', signal: 'gesture', phase: 'end', value: null, id: 1, timestamp: US },
    ],
    [
      "bundle([{set:['/l/1',1]},{emit:['/c',{cue:'x'}]}])",
      {
        type: 'BUNDLE',
        messages: [
          { type: 'SET', address: '/l/1', value: 1 },
          { type: 'PUBLISH', address: '/c', signal: 'event', value: { cue: 'x' } },
        ],
      },
    ],
    [
      "bundle([{set:['/l/1',true]}], {at:1700000000223000})",
      { type: 'BUNDLE', timestamp: 1_700_000_000_223_000, messages: [{ type: 'SET', address: '/l/1', value: true }] },
    ],
  ]
  it.each(calls)('gives the frame of the client call %s', (call, message) => {
    const found = vectors.filter((vector) => vector.source === 'js-4.3.1' && vector.id.endsWith(call))
    const connect = vectors.filter((vector) => vector.id.startsWith('api/js') && vector.id.endsWith('.connect()'))
    expect(hex(encodeFrame(message))).toBe((call === 'connect()' ? connect : found)[0]!.hex)
  })

  it('asks for the quality of service of the JavaScript client', () => {
    const flags = (message: ClientMessage) => encodeFrame(message)[1]
    expect(flags({ type: 'PING' })).toBe(0x01)
    expect(flags({ type: 'PUBLISH', address: '/a', signal: 'stream', value: 1 })).toBe(0x01)
    expect(flags({ type: 'PUBLISH', address: '/a', signal: 'gesture', value: 1 })).toBe(0x01)
    expect(flags({ type: 'PUBLISH', address: '/a', value: 1 })).toBe(0x41)
    expect(flags({ type: 'UNSUBSCRIBE', id: 7 })).toBe(0x01)
    expect(encodeFrame({ type: 'SET', address: '/a', value: 1 }, 0)[1]).toBe(0x01)
  })

  it('takes long texts in scripts of three bytes a character', () => {
    const text = '漢'.repeat(20_000)
    const message = decode(encodeFrame({ type: 'SET', address: '/a', value: { text } }))
    expect(message).toMatchObject({ value: { text } })
  })

  it('knows every option of a subscription and of a publication', () => {
    const options = { maxRate: 1, epsilon: 0.5, history: 2, window: 3 }
    expect(decode(encodeFrame({ type: 'SUBSCRIBE', id: 1, pattern: '/a', types: ['event'], options }))).toMatchObject({
      types: ['event'],
      options,
    })
    const samples = { type: 'PUBLISH', address: '/a', signal: 'stream', samples: [1, 2], rate: 60 } as const
    expect(decode(encodeFrame(samples))).toMatchObject({ samples: [1, 2], rate: 60 })
    expect(decode(encodeFrame({ type: 'PUBLISH', address: '/a', signal: 'timeline' }))).toMatchObject({
      signal: 'timeline',
    })
  })

  it('says how long a value lives', () => {
    const tail = (ttl: number, absolute: boolean) =>
      hex(encodeFrame({ type: 'SET', address: '/a', value: null, ttl, absolute }).slice(-4))
    expect(tail(60, false)).toBe('0000003c')
    expect(tail(60, true)).toBe('8000003c')
    expect(tail(0, true)).toBe('00000000')
  })

  it('leaves out keys without a value', () => {
    const value = { a: 1, b: undefined } as unknown as Value
    expect(decode(encodeFrame({ type: 'SET', address: '/a', value }))).toMatchObject({ value: { a: 1 } })
  })

  it('refuses what does not fit or is no value', () => {
    const set = (value: unknown) => () => encodeFrame({ type: 'SET', address: '/a', value: value as Value })
    expect(set('x'.repeat(65_536))).toThrow(EncodeError)
    expect(set(['x'.repeat(40_000), 'x'.repeat(40_000)])).toThrow(EncodeError)
    expect(set(new Array(70_000).fill(null))).toThrow(EncodeError)
    expect(set(() => 1)).toThrow(EncodeError)
    let deep: Value = 1
    for (let level = 0; level < 40; level++) deep = [deep]
    expect(set(deep)).toThrow(EncodeError)
  })

  it('is understood by the library, whatever the value', () => {
    const leaf = fc.oneof(fc.constant(null), fc.boolean(), fc.double(), fc.string(), fc.uint8Array())
    const { value } = fc.letrec((tie) => ({
      value: fc.oneof(
        { maxDepth: 4 },
        leaf,
        fc.array(tie('value'), { maxLength: 5 }),
        fc.dictionary(fc.string(), tie('value'), { noNullPrototype: true, maxKeys: 5 }),
      ),
    }))
    fc.assert(
      fc.property(value, (any) => {
        const sent = any as Value
        // The library drops these.
        if (/__proto__|\ufeff/.test(JSON.stringify(sent) ?? '')) return
        expect(decode(encodeFrame({ type: 'SET', address: '/a', value: sent }))).toMatchObject({
          value: sent,
        })
      }),
      { numRuns: 200 },
    )
  })
})

import { describe, expect, it } from 'vitest'
import type { Value } from '@/protocol/codec'
import { jsonOf, parseValue, plainText, shortOf, typeOf, valueOf } from '@/console/state/values'

const VALUES: readonly Value[] = [
  null,
  true,
  1.5,
  'text',
  new Uint8Array([0, 127, 255]),
  [1, [new Uint8Array([7])]],
  { a: { b: null }, n: -Infinity },
  NaN,
  Infinity,
]

describe('values', () => {
  it('go through JSON and back', () => {
    for (const value of VALUES) expect(valueOf(JSON.parse(jsonOf(value)))).toEqual(value)
    expect(jsonOf(new Uint8Array([1]))).toBe('{"$bytes":"AQ=="}')
    expect(jsonOf([NaN, -Infinity])).toBe('[{"$float":"nan"},{"$float":"-inf"}]')
  })

  it('have a type', () => {
    expect(VALUES.map(typeOf)).toEqual([
      ...['nothing', 'boolean', 'number', 'text', 'bytes', 'list', 'map', 'number', 'number'],
    ])
  })

  it('have keys that are no part of every object', () => {
    const map = parseValue('{"__proto__": 1, "constructor": 2}')!.value as Record<string, Value>
    expect([Object.keys(map), map['toString']]).toEqual([['__proto__', 'constructor'], undefined])
    expect(jsonOf(map)).toBe('{"__proto__":1,"constructor":2}')
  })

  it('of strangers neither turn nor hide what stands beside them', () => {
    const name = 'Bob \u202e1a\u2066\u0007\u009b31m\nJörg'
    expect(plainText(name)).toBe('Bob \\u202e1a\\u2066\\u0007\\u009b31m\nJörg')
    for (const text of [jsonOf({ name }), shortOf({ name }), shortOf(name)]) {
      expect(text).toContain('Bob \\u202e1a\\u2066')
      expect(JSON.stringify(JSON.parse(text))).toContain('\u202e')
    }
  })

  it('fit a line', () => {
    expect(shortOf('a "b"')).toBe('"a \\"b\\""')
    expect(shortOf(new Uint8Array(9))).toBe('9 B')
    expect(shortOf({ a: 1 })).toBe('{"a":1}')
    expect(shortOf('x'.repeat(500), 20)).toHaveLength(20)
  })

  it('are typed as JSON', () => {
    expect(parseValue(' [1, "a"] ')).toEqual({ value: [1, 'a'] })
    expect(parseValue('null')).toEqual({ value: null })
    for (const wrong of ['', 'text', '{', '{"$bytes": "!"}']) expect(parseValue(wrong)).toBeNull()
    expect(parseValue('{"$float": "x"}')).toEqual({ value: { $float: 'x' } })
  })
})

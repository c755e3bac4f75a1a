import { describe, expect, it, vi } from 'vitest'
import { systemClock } from '@/protocol/clock'
import { endsSession, failureOf } from '@/protocol/errors'
import { matches } from '@/protocol/pattern'
import { TokenBucket } from '@/protocol/tokenBucket'

describe('patterns', () => {
  it.each([
    ['/a/b', '/a/b', true],
    ['/a/b', '/a/c', false],
    ['/a/b', '/a/b/c', false],
    ['/a/b/c', '/a/b', false],
    ['/a/*', '/a/b', true],
    ['/dm-*/b', '/dm-x/b', true],
    ['/dm-*/b', '/dn-x/b', false],
    ['/dm-*/b', '/dm-x/c', false],
    ['/a/*', '/a', false],
    ['/a/*', '/a/b/c', false],
    ['/a/**', '/a', true],
    ['/a/**', '/a/b/c', true],
    ['/a/**/c', '/a/c', true],
    ['/a/**/c', '/a/x/y/c', true],
    ['/a/**/c', '/a/x/y', false],
    ['/a.b/c', '/aXb/c', false],
  ])('%s and %s: %s', (pattern, address, expected) => {
    expect(matches(pattern, address)).toBe(expected)
  })
})

describe('TokenBucket', () => {
  it('gives a burst, then so many a second, never more than the burst', () => {
    let now = 0
    const bucket = new TokenBucket(10, 3, () => now)
    const take = () => [bucket.take(), bucket.take(), bucket.take(), bucket.take()].filter(Boolean).length
    expect(bucket.waitMs()).toBe(0)
    expect(take()).toBe(3)
    expect(bucket.waitMs()).toBe(100)
    now = 150
    expect(take()).toBe(1)
    now = 1_000_000
    expect(take()).toBe(3)
    now = 0
    expect(take()).toBe(0)
    now = 10_000
    bucket.drain()
    expect(take()).toBe(0)
  })
})

describe('errors', () => {
  it('say what one can do about a code of the relay', () => {
    const kinds = [200, 201, 202, 300, 301, 302, 400, 401, 402, 403, 404, 429, 500, 999].map(
      (code) => failureOf(code, 'x').kind,
    )
    expect(kinds).toEqual([
      'invalid',
      'missing',
      'invalid',
      'signedOut',
      'forbidden',
      'signedOut',
      'conflict',
      'conflict',
      'tooLarge',
      'forbidden',
      'missing',
      'tooMany',
      'server',
      'server',
    ])
    expect([300, 302, 301].map(endsSession)).toEqual([true, true, false])
  })
})

describe('systemClock', () => {
  it('calls back unless it is told not to', () => {
    vi.useFakeTimers()
    const called: number[] = []
    systemClock.after(10, () => called.push(1))
    systemClock.after(10, () => called.push(2))()
    vi.advanceTimersByTime(20)
    vi.useRealTimers()
    expect(called).toEqual([1])
    expect(Math.abs(systemClock.now() - Date.now())).toBeLessThan(60_000)
  })
})

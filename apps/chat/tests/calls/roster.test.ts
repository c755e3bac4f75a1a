import { beforeEach, describe, expect, it } from 'vitest'
import { Roster } from '@/calls/roster'
import type { Value } from '@/protocol/codec'
import { FakeClock } from '../support/clock'

let clock: FakeClock
let roster: Roster
let changes: number

beforeEach(() => {
  clock = new FakeClock()
  changes = 0
  roster = new Roster(clock, () => void (changes += 1))
})

function hear(sessionId: string, value: Value, ageMs: number | null = null, where = 'presence'): void {
  const address = `/chat/room/00000000-0000-4000-8000-000000000001/video/${where}/${sessionId}`
  roster.hear({ address, value, kind: 'set', ageMs, atMs: null })
}

const ids = (): string[] => roster.present().map(({ sessionId }) => sessionId)

describe('the roster of a call', () => {
  it('is ordered by the time of joining, and by session ids where that is the same', () => {
    hear('s-c', { name: 'C', joinedAt: 5 })
    hear('s-b', { name: 'B', joinedAt: 5 })
    hear('s-a', { name: 'A', joinedAt: 9 })
    hear('s-d', { name: 'D', joinedAt: 1 })
    expect(ids()).toEqual(['s-d', 's-b', 's-c', 's-a'])
  })

  it('keeps the place of the original, whose joining time moves with every renewal', () => {
    hear('s-o', { name: 'Olga', joinedAt: 1 })
    hear('s-a', { name: 'Ada', joinedAt: 2, negotiates: true })
    hear('s-o', { name: 'Olga', joinedAt: 3 })
    expect(ids()).toEqual(['s-o', 's-a'])
    // Ours says when it joined: a later time is another joining.
    hear('s-a', { name: 'Ada', joinedAt: 0, negotiates: true })
    expect(ids()).toEqual(['s-a', 's-o'])
  })

  it('drops who has been silent for 25 seconds, counted from what the relay says, unless they are connected', () => {
    hear('s-a', { name: 'A', joinedAt: 1 }, 20_000)
    hear('s-b', { name: 'B', joinedAt: 2 })
    clock.advance(5_000)
    expect(ids()).toEqual(['s-b'])
    expect(roster.present((id) => id === 's-a').map(({ sessionId }) => sessionId)).toEqual(['s-a', 's-b'])
    clock.advance(20_000)
    expect(ids()).toEqual([])
    expect(roster.all).toHaveLength(2)
  })

  it('forgets who leaves, what is no presence, and everybody at once', () => {
    hear('s-a', { name: 'A', joinedAt: 1 })
    hear('s-b', { name: 'B', joinedAt: 2 })
    hear('s-c', { name: 'C', joinedAt: 3 }, null, 'signal')
    expect([ids(), changes]).toEqual([['s-a', 's-b'], 2])
    hear('s-a', null)
    hear('s-b', 'no map')
    expect([ids(), roster.get('s-a')]).toEqual([[], undefined])
    hear('s-a', { name: 'A', joinedAt: 1 })
    roster.clear()
    expect([ids(), changes]).toEqual([[], 6])
  })
})

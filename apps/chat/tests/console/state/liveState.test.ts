import { beforeEach, describe, expect, it } from 'vitest'
import type { Value } from '@/protocol/codec'
import { LiveState, SHOWN_PER_SECOND } from '@/console/state/liveState'

let nowMs = 0
let live: LiveState

const set = (address: string, value: Value): void => live.take({ address, value, kind: 'set', atMs: nowMs })
const publish = (address: string, value: Value): void => live.take({ address, value, kind: 'publish', atMs: nowMs })
const there = (address: string, value: Value): void => live.take({ address, value, kind: 'snapshot', atMs: nowMs })
const addresses = (count: number): string[] => Array.from({ length: count }, (_, index) => `/p/${index}`)

beforeEach(() => {
  nowMs = 1_000_000
  live = new LiveState(() => nowMs)
})

describe('the live state', () => {
  it('has what is set and what is said, and forgets what is deleted', () => {
    there('/a', 1)
    set('/b', 'x')
    publish('/go', null)
    expect(live.latest('/a')).toMatchObject({ kind: 'param', value: 1, updates: 0 })
    expect(live.latest('/go')).toMatchObject({ kind: 'event', value: null, updates: 1 })
    set('/a', null)
    there('/b', null)
    set('/never', null)
    expect(live.tree.rows().map(({ path }) => path)).toEqual(['/go'])
    expect([live.latest('/a'), live.updates]).toEqual([undefined, 4])
  })

  it('shows at most 100 changes in a second, each row in its turn, the newest value of it', () => {
    const all = addresses(2_000)
    for (const address of all) there(address, 0)
    const visible = new Set(all.slice(0, 300))
    for (const address of visible) live.show(address)
    const shown = new Set<string>()
    let changes = 0
    for (let tenth = 1; tenth <= 40; tenth++) {
      for (const address of all) set(address, tenth)
      nowMs += 100
      const before = new Map([...visible].map((address) => [address, live.show(address)?.value]))
      changes += live.refresh(visible)
      for (const address of visible) {
        const { value } = live.show(address)!
        if (value === before.get(address)) continue
        expect(value).toBe(tenth)
        shown.add(address)
      }
    }
    expect(changes).toBeLessThanOrEqual(4 * SHOWN_PER_SECOND + SHOWN_PER_SECOND / 10)
    expect(changes).toBeGreaterThan(3 * SHOWN_PER_SECOND)
    // 300 rows at 100 per second: after four seconds each had its turn.
    expect(shown.size).toBe(visible.size)
  })

  it('shows the newest value of a row that comes onto the screen, at no cost', () => {
    there('/a', 1)
    expect(live.refresh(new Set())).toBe(0)
    set('/a', 2)
    live.refresh(new Set())
    expect(live.show('/a')?.value).toBe(2)
    expect(live.refresh(new Set(['/a']))).toBe(0)
    expect(live.show('/nothing')).toBeUndefined()
  })

  it('stands still while it is paused, and then has caught up', () => {
    there('/a', 1)
    there('/b', 1)
    live.show('/a')
    live.pause()
    set('/a', 2)
    set('/a', 3)
    set('/b', null)
    publish('/go', 1)
    publish('/go', 2)
    expect(live.refresh(new Set(['/a']))).toBe(0)
    expect([live.show('/a')?.value, live.tree.size, live.paused]).toEqual([1, 2, true])
    live.resume()
    live.refresh(new Set(['/a']))
    expect(live.show('/a')).toMatchObject({ value: 3, updates: 2 })
    expect(live.latest('/go')).toMatchObject({ value: 2, updates: 2 })
    expect(live.tree.rows().map(({ path }) => path)).toEqual(['/a', '/go'])
  })

  it('is bounded, and says when it leaves something out', () => {
    live = new LiveState(() => nowMs, 3)
    for (const address of addresses(3)) set(address, 1)
    expect(live.overflows).toBe(false)
    set('/one/more', 1)
    expect([live.tree.size, live.overflows]).toEqual([3, true])
    live.pause()
    for (const address of addresses(9)) set(address, 2)
    live.resume()
    expect([live.tree.size, live.latest('/p/0')?.value]).toEqual([3, 2])
    live.clear()
    expect([live.tree.size, live.overflows, live.show('/p/0')]).toEqual([0, false, undefined])
  })
})

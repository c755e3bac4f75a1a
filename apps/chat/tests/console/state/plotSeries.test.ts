import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { axisOf, PlotSeries, ticksOf } from '@/console/state/plotSeries'

describe('the course of a number', () => {
  it('takes numbers in the order of time, and nothing else', () => {
    const series = new PlotSeries()
    for (const value of [1, 'x', null, NaN, Infinity, true]) series.add(1_000, value)
    series.add(2_000, 2)
    series.add(1_500, 9)
    expect([series.length, series.last]).toEqual([2, { atMs: 2_000, value: 2 }])
    series.clear()
    expect([series.length, series.last]).toEqual([0, undefined])
  })

  it('keeps the newest points only', () => {
    const series = new PlotSeries(100)
    for (let at = 0; at < 1_000; at++) series.add(at, at)
    expect(series.length).toBeLessThanOrEqual(125)
    expect(series.since(900).map(({ value }) => value)).toEqual([
      899,
      ...Array.from({ length: 100 }, (_, n) => 900 + n),
    ])
  })

  it('gets what was before in front, and nothing of it twice', () => {
    const series = new PlotSeries()
    series.add(3_000, 3)
    series.prepend([
      { atMs: 1_000, value: 1 },
      { atMs: 2_000, value: NaN },
      { atMs: 3_000, value: 3 },
    ])
    expect(series.since(0).map(({ value }) => value)).toEqual([1, 3])
  })

  it('is drawn from the value before the first one in view', () => {
    const series = new PlotSeries()
    series.add(0, 5)
    series.add(60_000, 7)
    expect(series.columns(100, 50_000, 150_000)).toEqual([
      { x: 0, low: 5, high: 5, last: 5 },
      { x: 10, low: 7, high: 7, last: 7 },
    ])
    expect(series.columns(100, 200_000, 300_000)).toEqual([{ x: 0, low: 7, high: 7, last: 7 }])
    expect(new PlotSeries().columns(100, 0, 1_000)).toEqual([])
  })

  it('shows every peak in columns that are in the picture, in order', () => {
    const points = fc.array(fc.tuple(fc.nat(50), fc.integer({ min: -1_000, max: 1_000 })), { minLength: 1 })
    fc.assert(
      fc.property(points, fc.integer({ min: 1, max: 40 }), (steps, width) => {
        const series = new PlotSeries()
        let at = 0
        for (const [step, value] of steps) series.add((at += step), value)
        const columns = series.columns(width, 0, Math.max(1, at))
        const values = steps.map(([, value]) => value)
        expect(Math.min(...columns.map(({ low }) => low))).toBe(Math.min(...values))
        expect(Math.max(...columns.map(({ high }) => high))).toBe(Math.max(...values))
        expect(columns.at(-1)?.last).toBe(values.at(-1))
        columns.forEach(({ x }, index) => expect(x).toBeGreaterThan(columns[index - 1]?.x ?? -1))
        expect(columns.at(-1)!.x).toBeLessThan(width)
      }),
    )
  })

  it('has an axis with room, also where the number stands still', () => {
    expect(axisOf([])).toEqual({ low: 0, high: 1 })
    expect(axisOf([{ low: 0, high: 0 }])).toEqual({ low: -1, high: 1 })
    expect(axisOf([{ low: 100, high: 100 }])).toEqual({ low: 95, high: 105 })
    expect(
      axisOf([
        { low: 0, high: 60 },
        { low: 20, high: 100 },
      ]),
    ).toEqual({ low: -5, high: 105 })
  })

  it('has round numbers at its axis', () => {
    expect(ticksOf(0, 10, 4)).toEqual([0, 5, 10])
    expect(ticksOf(-1, 1, 4)).toEqual([-1, -0.5, 0, 0.5, 1])
    expect(ticksOf(0.001, 0.0035, 4)).toEqual([0.001, 0.002, 0.003])
    expect(ticksOf(1, 1, 4)).toEqual([])
    expect(ticksOf(0, Infinity, 4)).toEqual([])
    expect(ticksOf(0, 1, 0)).toEqual([])
  })
})

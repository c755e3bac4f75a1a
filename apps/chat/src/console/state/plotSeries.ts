/** The course of a number: a bounded series of points, and what of it is drawn. */

export interface Point {
  readonly atMs: number
  readonly value: number
}

/** What is drawn in one column of pixels: from the lowest to the highest value there. */
export interface Column {
  readonly x: number
  readonly low: number
  readonly high: number
  /** The value at the end of the column. */
  readonly last: number
}

/** Half an hour with two changes in every second. */
export const MOST_POINTS = 3_600

export class PlotSeries {
  private points: Point[] = []

  constructor(private readonly most = MOST_POINTS) {}

  get length(): number {
    return this.points.length
  }

  get last(): Point | undefined {
    return this.points.at(-1)
  }

  /** Adds a value; what is no number that can be drawn is ignored, and so is a time before the last one. */
  add(atMs: number, value: unknown): void {
    if (typeof value !== 'number' || !Number.isFinite(value)) return
    if (this.last && atMs < this.last.atMs) return
    this.points.push({ atMs, value })
    // A quarter at once: moving all points for each new one would cost more than all else.
    if (this.points.length > this.most * 1.25) this.points = this.points.slice(-this.most)
  }

  /** Puts what was before in front of what is there. */
  prepend(points: readonly Point[]): void {
    const first = this.points[0]?.atMs ?? Infinity
    const older = points.filter(({ atMs, value }) => atMs < first && Number.isFinite(value))
    this.points = [...older, ...this.points].slice(-this.most)
  }

  clear(): void {
    this.points = []
  }

  /** The points from a time on, with the one before it, from which the line comes. */
  since(fromMs: number): readonly Point[] {
    const index = this.points.findIndex(({ atMs }) => atMs >= fromMs)
    if (index < 0) return this.points.slice(-1)
    return this.points.slice(Math.max(0, index - 1))
  }

  /** The columns of a plot that is `width` wide and shows the time from `fromMs` to `toMs`. */
  columns(width: number, fromMs: number, toMs: number): Column[] {
    const columns: Column[] = []
    const scale = width / Math.max(1, toMs - fromMs)
    for (const { atMs, value } of this.since(fromMs)) {
      const x = Math.max(0, Math.min(width - 1, Math.floor((atMs - fromMs) * scale)))
      const before = columns.at(-1)
      if (before?.x !== x) columns.push({ x, low: value, high: value, last: value })
      else {
        const column = { x, low: Math.min(before.low, value), high: Math.max(before.high, value), last: value }
        columns[columns.length - 1] = column
      }
    }
    return columns
  }
}

/** The lowest and the highest value of an axis, with some room around what is drawn. */
export function axisOf(columns: readonly Pick<Column, 'low' | 'high'>[]): { low: number; high: number } {
  if (!columns.length) return { low: 0, high: 1 }
  const low = columns.reduce((least, column) => Math.min(least, column.low), Infinity)
  const high = columns.reduce((most, column) => Math.max(most, column.high), -Infinity)
  const room = high > low ? (high - low) * 0.05 : Math.abs(high) * 0.05 || 1
  return { low: low - room, high: high + room }
}

/** Round numbers between two bounds, about `count` of them, for the lines of an axis. */
export function ticksOf(low: number, high: number, count: number): number[] {
  const span = high - low
  if (!(span > 0) || !Number.isFinite(span) || count < 1) return []
  const rough = span / count
  const power = 10 ** Math.floor(Math.log10(rough))
  const step = ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10) * power
  const ticks: number[] = []
  for (let index = Math.ceil(low / step); index * step <= high && ticks.length < 100; index++) {
    // Without the noise of adding fractions up.
    ticks.push(Number((index * step).toPrecision(12)))
  }
  return ticks
}

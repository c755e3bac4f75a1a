/** The relay's metrics over the time that a page is open: values of gauges, rates of counters, means of histograms. */
import type { Metric, Metrics } from '../shapes'
import { PlotSeries } from './plotSeries'

export interface Course {
  readonly name: string
  readonly help: string
  readonly kind: 'value' | 'rate' | 'mean'
  readonly series: PlotSeries
}

/** Those that tell most come first; the others follow by name. */
const FIRST = [
  'clasp_messages_received',
  'clasp_messages_sent',
  'clasp_sessions',
  'clasp_params',
  'process_resident_memory_bytes',
  'process_cpu_seconds',
  'clasp_event_loop_lag_seconds',
]

const KINDS = { gauge: 'value', counter: 'rate', histogram: 'mean' } as const

/** The sum over all labels of the samples whose name ends so. */
function sum(metric: Metric, suffix: string): number {
  const wanted = metric.name + suffix
  return metric.samples.reduce((total, { name, value }) => (name === wanted ? total + value : total), 0)
}

function totals(metric: Metric): { top: number; bottom: number } {
  if (metric.type === 'gauge') return { top: sum(metric, ''), bottom: 0 }
  if (metric.type === 'histogram') return { top: sum(metric, '_sum'), bottom: sum(metric, '_count') }
  const isTotal = metric.samples.some(({ name }) => name.endsWith('_total'))
  return { top: sum(metric, isTotal && !metric.name.endsWith('_total') ? '_total' : ''), bottom: 0 }
}

export class MetricsHistory {
  private readonly courses = new Map<string, Course>()
  private before = new Map<string, { top: number; bottom: number }>()
  private beforeAt: number | null = null

  /** Takes one reading. A counter that went back began anew: the relay was restarted. */
  add({ at, metrics }: Metrics): void {
    const passed = this.beforeAt === null ? 0 : at - this.beforeAt
    const now = new Map<string, { top: number; bottom: number }>()
    for (const metric of metrics) {
      const reading = totals(metric)
      now.set(metric.name, reading)
      const value = this.valueOf(metric, reading, passed)
      if (value !== null) this.courseOf(metric).series.add(at * 1000, value)
      else this.courseOf(metric)
    }
    this.before = now
    this.beforeAt = at
  }

  /** All of them, those that tell most first. */
  list(): Course[] {
    const rank = ({ name }: Course): number => (FIRST.includes(name) ? FIRST.indexOf(name) : FIRST.length)
    return [...this.courses.values()].sort(
      (one, other) => rank(one) - rank(other) || one.name.localeCompare(other.name),
    )
  }

  private valueOf(metric: Metric, { top, bottom }: { top: number; bottom: number }, passed: number): number | null {
    if (metric.type === 'gauge') return top
    const before = this.before.get(metric.name)
    if (!before || passed <= 0 || top < before.top) return null
    if (metric.type === 'counter') return (top - before.top) / passed
    const count = bottom - before.bottom
    return count > 0 ? (top - before.top) / count : null
  }

  private courseOf(metric: Metric): Course {
    let course = this.courses.get(metric.name)
    if (!course) {
      course = { name: metric.name, help: metric.help, kind: KINDS[metric.type] ?? 'value', series: new PlotSeries() }
      this.courses.set(metric.name, course)
    }
    return course
  }
}

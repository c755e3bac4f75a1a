import { describe, expect, it } from 'vitest'
import type { Metric } from '@/console/shapes'
import { MetricsHistory } from '@/console/state/metricsHistory'

const gauge = (name: string, ...values: number[]): Metric => ({
  name,
  type: 'gauge',
  help: 'How many.',
  samples: values.map((value, index) => ({ name, labels: { index: String(index) }, value })),
})
const counter = (name: string, value: number): Metric => ({
  name,
  type: 'counter',
  help: 'All.',
  samples: [
    { name: `${name}_total`, labels: {}, value },
    { name: `${name}_created`, labels: {}, value: 1_700_000_000 },
  ],
})
const histogram = (name: string, sum: number, count: number): Metric => ({
  name,
  type: 'histogram',
  help: 'How long.',
  samples: [
    { name: `${name}_bucket`, labels: { le: '1' }, value: count },
    { name: `${name}_sum`, labels: {}, value: sum },
    { name: `${name}_count`, labels: {}, value: count },
  ],
})

describe('metrics over time', () => {
  it('are values, rates and means', () => {
    const history = new MetricsHistory()
    const last = (name: string) => history.list().find((course) => course.name === name)?.series.last?.value
    history.add({ at: 100, metrics: [gauge('g', 1, 2), counter('c', 50), histogram('h', 4, 10)] })
    expect([last('g'), last('c'), last('h')]).toEqual([3, undefined, undefined])
    history.add({ at: 102, metrics: [gauge('g', 5), counter('c', 60), histogram('h', 5, 12)] })
    expect([last('g'), last('c'), last('h')]).toEqual([5, 5, 0.5])
    // Nothing was measured: no mean. The relay was started anew: no rate.
    history.add({ at: 104, metrics: [gauge('g', 5), counter('c', 3), histogram('h', 5, 12)] })
    expect(history.list().map(({ kind, series }) => [kind, series.length])).toEqual([
      ['rate', 1],
      ['value', 3],
      ['mean', 1],
    ])
  })

  it('come in the order of what they tell, then by name', () => {
    const history = new MetricsHistory()
    const metrics = ['zebra', 'clasp_sessions', 'apple', 'clasp_messages_received'].map((name) => gauge(name, 1))
    history.add({ at: 1, metrics })
    expect(history.list().map(({ name }) => name)).toEqual([
      'clasp_messages_received',
      'clasp_sessions',
      'apple',
      'zebra',
    ])
  })
})

import { beforeEach, describe, expect, it } from 'vitest'
import type { SendOptions } from '@/protocol/connection'
import type { Value } from '@/protocol/codec'
import { Failure } from '@/protocol/errors'
import { Outbox, type DeliveryState } from '@/protocol/outbox'

interface Sent {
  address: string
  value: Value
  options: SendOptions
  resolve: () => void
  reject: (failure: Failure) => void
}

let online: boolean
let sent: Sent[]
let states: [string, DeliveryState, string | null][]
let outbox: Outbox

const turn = async (): Promise<void> => {
  for (let count = 0; count < 20; count++) await Promise.resolve()
}
const letter = (id: string, lane = 'room', seal = async () => ({ value: id as Value, guard: () => true })) => ({
  id,
  lane,
  address: `/${lane}`,
  seal,
})
const statesOf = (id: string): DeliveryState[] => states.filter(([each]) => each === id).map(([, state]) => state)

beforeEach(() => {
  online = true
  sent = []
  states = []
  const connection = {
    get online() {
      return online
    },
    publish: (address: string, value: Value, options: SendOptions = {}) =>
      new Promise<void>((resolve, reject) => {
        sent.push({ address, value, options, resolve, reject })
        options.onSent?.()
      }),
  }
  outbox = new Outbox(connection, (id, state, failure) => states.push([id, state, failure?.message ?? null]))
})

describe('a letter', () => {
  it('is queued, sent and confirmed', async () => {
    outbox.add(letter('a'))
    await turn()
    expect(statesOf('a')).toEqual(['queued', 'sent'])
    expect([outbox.has('a'), outbox.has('b')]).toEqual([true, false])
    sent[0]!.resolve()
    await turn()
    expect(outbox.has('a')).toBe(false)
    expect(statesOf('a')).toEqual(['queued', 'sent', 'confirmed'])
    expect(sent[0]).toMatchObject({ address: '/room', value: 'a' })
  })

  it('fails with the reason, lets the next one go, and can be sent again', async () => {
    outbox.add(letter('a'))
    outbox.add(letter('b'))
    await turn()
    sent[0]!.reject(new Failure('forbidden', 'You are banned.'))
    await turn()
    expect(states.filter(([id]) => id === 'a').at(-1)).toEqual(['a', 'failed', 'You are banned.'])
    expect(sent[1]!.value).toBe('b')
    sent[1]!.resolve()
    await turn()
    expect(outbox.retry('a')).toBe(true)
    expect(outbox.retry('a')).toBe(false)
    await turn()
    sent[2]!.resolve()
    await turn()
    expect(statesOf('a').at(-1)).toBe('confirmed')
  })

  it('fails when it cannot even be sealed', async () => {
    outbox.add(letter('a', 'room', () => Promise.reject(new Error('broken'))))
    await turn()
    expect(states.at(-1)).toEqual(['a', 'failed', 'broken'])
  })

  it('keeps its place behind the one before it', async () => {
    for (const id of ['a', 'b', 'c']) outbox.add(letter(id))
    for (const id of ['a', 'b', 'c']) {
      await turn()
      expect(sent.at(-1)!.value).toBe(id)
      sent.at(-1)!.resolve()
    }
    expect(sent).toHaveLength(3)
  })

  it('does not wait for other rooms', async () => {
    outbox.add(letter('a', 'one'))
    outbox.add(letter('b', 'two'))
    await turn()
    expect(sent.map((each) => each.value)).toEqual(['a', 'b'])
  })

  it('waits for the connection, and goes back into the queue when it is lost', async () => {
    online = false
    outbox.add(letter('a'))
    await turn()
    expect(sent).toEqual([])
    online = true
    outbox.resumeAll()
    await turn()
    online = false
    sent[0]!.reject(new Failure('offline', 'gone'))
    await turn()
    expect(statesOf('a')).toEqual(['queued', 'sent', 'queued'])
    online = true
    outbox.resumeAll()
    await turn()
    sent[1]!.resolve()
    await turn()
    expect(statesOf('a')).toEqual(['queued', 'sent', 'queued', 'sent', 'confirmed'])
  })

  it('waits for the key of its room', async () => {
    let key = false
    const seal = () =>
      key
        ? Promise.resolve({ value: 'sealed', guard: () => true })
        : Promise.reject(new Failure('waitingForKey', 'no key'))
    outbox.add(letter('a', 'room', seal))
    await turn()
    expect(statesOf('a')).toEqual(['queued', 'waiting'])
    key = true
    outbox.resume('room')
    outbox.resume('room')
    await turn()
    expect(sent).toHaveLength(1)
    expect(sent[0]!.value).toBe('sealed')
  })

  it('is sealed anew when the room changed under it, but not for ever', async () => {
    let seals = 0
    outbox.add(letter('a', 'room', () => Promise.resolve({ value: ++seals, guard: () => true })))
    for (let count = 0; count < 4; count++) {
      await turn()
      sent.at(-1)!.reject(new Failure('conflict', 'sealed for another key'))
    }
    await turn()
    expect(sent.map((each) => each.value)).toEqual([1, 2, 3, 4])
    expect(statesOf('a').at(-1)).toBe('failed')
  })

  it('is forgotten when it is discarded, also on its way', async () => {
    outbox.add(letter('a'))
    outbox.add(letter('b'))
    outbox.add(letter('c'))
    await turn()
    outbox.discard('a')
    outbox.discard('b')
    sent[0]!.resolve()
    await turn()
    expect(statesOf('a')).toEqual(['queued', 'sent'])
    expect(sent.map((each) => each.value)).toEqual(['a', 'c'])
    sent[1]!.reject(new Failure('server', 'no'))
    await turn()
    outbox.discard('c')
    expect(outbox.retry('c')).toBe(false)
  })

  it('is forgotten when everything is', async () => {
    outbox.add(letter('a'))
    await turn()
    outbox.clear()
    sent[0]!.resolve()
    await turn()
    expect(statesOf('a')).toEqual(['queued', 'sent'])
  })
})

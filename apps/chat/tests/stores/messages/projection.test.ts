/** What is shown is a function of the set of events, and shows nothing as said by somebody who did not say it. */
import fc from 'fast-check'
import { beforeAll, describe, expect, it } from 'vitest'
import { deviceIdOf, newAccountPair, signEvent, verifyEvent } from '@/crypto/devices'
import { publicJwkOf } from '@/crypto/exchange'
import { newSigningPair } from '@/crypto/signing'
import { parseMessage, type PublicJwk, type RoomMessage } from '@/protocol/shapes'
import { MemoryStorage } from '@/storage/memory'
import { eventsOfRow, type RowV1 } from '@/storage/rows'
import type { Proof, StoredEvent, StoredMessage } from '@/storage/types'
import { Log, type Arrival } from '@/stores/messages/log'
import { project } from '@/stores/messages/projection'

const ROOM = '11111111-1111-4111-8111-111111111111'
const NOW = 1_700_000_000_000
const PEOPLE = ['alice', 'bob', 'mallory', 'olga'] as const
type Name = (typeof PEOPLE)[number]
/** Olga uses the original app, which signs nothing that could be handed on. */
const SIGNING: readonly Name[] = ['alice', 'bob', 'mallory']

interface Device {
  deviceId: string
  key: CryptoKey
  publicKey: PublicJwk
}
const devices = new Map<Name, Device>()

beforeAll(async () => {
  await newAccountPair()
  for (const name of SIGNING) {
    const pair = await newSigningPair()
    const publicKey = await publicJwkOf(pair.publicKey, ['verify'])
    devices.set(name, { deviceId: await deviceIdOf(publicKey), key: pair.privateKey, publicKey })
  }
})

/** What the verifier of the app finds out, without a relay. */
async function prove(roomId: string, { event, via }: StoredEvent): Promise<Proof> {
  const device = devices.get(event.userId as Name)
  const signs = device && device.deviceId === event.deviceId && (await verifyEvent(device.publicKey, roomId, event))
  if (signs) return 'verified'
  if (via === 'shared') return device ? 'denied' : 'unsigned'
  return event.sig2 === null ? 'unsigned' : 'unverified'
}

/** Receives events in an order, and says what is on the screen and stored then. */
async function screen(arrivals: readonly Arrival[]): Promise<StoredMessage[]> {
  const { messages } = new MemoryStorage('bob')
  const rows = new Map<string, StoredMessage>()
  let tail: Promise<unknown> = Promise.resolve()
  const log: Log = new Log({
    storage: () => messages,
    active: () => true,
    prove,
    show: (_roomId, changed, gone) => {
      for (const row of changed) rows.set(row.msgId, row)
      for (const msgId of gone) rows.delete(msgId)
    },
    proven: () => undefined,
    report: (error) => {
      throw error
    },
    inOrder: <T>(_roomId: string, work: () => Promise<T>): Promise<T> => {
      const result = tail.then(work)
      tail = result.catch(() => undefined)
      return result
    },
  })
  for (const arrival of arrivals) await log.append(ROOM, null, [arrival])
  await log.settled(ROOM)
  const sorted = [...rows.values()].sort((one, other) => (one.msgId < other.msgId ? -1 : 1))
  const stored = (await messages.before(ROOM, 100)).sort((one, other) => (one.msgId < other.msgId ? -1 : 1))
  expect(stored).toEqual(sorted)
  return sorted
}

/** An event of the world: who really wrote it, and whom it names. */
interface Act {
  by: Name
  as: Name
  kind: 'message' | 'edit' | 'delete'
  msgId: string
  targetId: string
  text: string
  timestamp: number
  signed: boolean
  via: 'live' | 'shared'
  claimsModerator: boolean
}

const act: fc.Arbitrary<Act> = fc.record({
  by: fc.constantFrom(...PEOPLE),
  as: fc.constantFrom(...PEOPLE),
  kind: fc.constantFrom('message', 'message', 'edit', 'delete'),
  msgId: fc.constantFrom('m-1', 'm-2', 'm-3'),
  targetId: fc.constantFrom('m-1', 'm-2'),
  text: fc.constantFrom('one', 'two', 'three'),
  timestamp: fc.integer({ min: NOW, max: NOW + 3 }),
  signed: fc.boolean(),
  via: fc.constantFrom('live', 'shared'),
  claimsModerator: fc.boolean(),
})

/** An act as it arrives. The relay lets nobody write in another's name; who hands on history writes what they like. */
async function arrivalOf(given: Act, at: number): Promise<Arrival> {
  const { by, kind, msgId, targetId, timestamp, signed, via } = given
  const as = via === 'live' ? by : given.as
  const device = devices.get(by)
  const head = { kind, fromId: `session-${as}`, userId: as, msgId, timestamp }
  const value = {
    ...head,
    text: `${given.text} by ${by}`,
    from: as,
    type: kind === 'message' ? 'text' : kind,
    ...(kind !== 'message' && { targetId }),
    ...(kind === 'delete' && given.claimsModerator && { isModAction: true }),
    ...(signed && device && { deviceId: device.deviceId }),
  }
  const parsed = parseMessage(value) as RoomMessage
  const sig2 = signed && device ? await signEvent(device.key, ROOM, parsed) : null
  const event = { ...parsed, sig2 }
  return { event, at, via, sharedBy: via === 'shared' ? by : null, moderator: false, encrypted: false }
}

const withArrivals = async (acts: readonly Act[]): Promise<Arrival[]> => {
  const arrivals: Arrival[] = []
  // Who hands on history may have heard an event: true ones travel that way, too.
  for (const [place, each] of acts.entries()) {
    const arrival = await arrivalOf(each, each.via === 'live' ? NOW + place : each.timestamp)
    arrivals.push(arrival)
    // It arrives a second time from what the relay has kept, which knows when.
    if (each.via === 'live' && each.text === 'two') arrivals.push({ ...arrival, at: NOW + 50 - place, dated: true })
    if (each.via === 'live' && each.claimsModerator)
      arrivals.push({ ...arrival, via: 'shared', sharedBy: 'mallory', at: each.timestamp })
  }
  return arrivals
}

describe('whatever arrives', () => {
  it('in whatever order, the screen is the same', async () => {
    const shuffled = fc
      .array(act, { minLength: 1, maxLength: 10 })
      .chain((acts) => fc.tuple(fc.constant(acts), fc.array(fc.nat(), { minLength: 24, maxLength: 24 })))
    await fc.assert(
      fc.asyncProperty(shuffled, async ([acts, keys]) => {
        const arrivals = await withArrivals(acts)
        const permuted = arrivals
          .map((arrival, place) => ({ arrival, key: keys[place] ?? place }))
          .sort((one, other) => one.key - other.key)
          .map(({ arrival }) => arrival)
        expect(await screen(permuted)).toEqual(await screen(arrivals))
        expect(await screen([...permuted, ...arrivals])).toEqual(await screen(arrivals))
      }),
      { numRuns: 60 },
    )
  })

  it('nothing is shown as said, changed or deleted by somebody who did not', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(act, { minLength: 1, maxLength: 12 }), async (acts) => {
        for (const row of await screen(await withArrivals(acts))) {
          const written = acts.filter(({ by, as, via }) => by === row.userId && (via === 'live' || as === by))
          if (row.relayedBy !== null) {
            // Marked as what somebody claims, of people whose devices do not sign.
            expect(row).toMatchObject({ userId: 'olga', verification: 'unsigned' })
            continue
          }
          if (row.deleted) expect(written.some(({ kind }) => kind === 'delete')).toBe(true)
          else expect(row.text).toMatch(new RegExp(` by ${row.userId}$`))
          if (row.edited) expect(written.some(({ kind }) => kind === 'edit')).toBe(true)
        }
      }),
      { numRuns: 200 },
    )
  })

  it('nobody hides what another said by taking its id', async () => {
    const said = {
      by: 'alice',
      as: 'alice',
      kind: 'message',
      text: 'one',
      signed: true,
      claimsModerator: false,
    } as const
    const base = { ...said, msgId: 'm-1', targetId: 'm-1', timestamp: NOW + 2, via: 'live' } as const
    const copy = { ...base, by: 'mallory', as: 'mallory', timestamp: NOW } as const
    for (const via of ['live', 'shared'] as const) {
      const rows = await screen(await withArrivals([base, { ...copy, via }]))
      expect(rows.map(({ userId, text }) => [userId, text]).sort()).toEqual([
        ['alice', 'one by alice'],
        ['mallory', 'one by mallory'],
      ])
      expect(rows.find(({ userId }) => userId === 'alice')!.msgId).toBe('m-1')
    }
  })
})

describe('rows without events', () => {
  const row = (part: Partial<RowV1> = {}): RowV1 => ({
    roomId: ROOM,
    msgId: 'm-1',
    userId: 'olga',
    sessionId: 's',
    name: 'Olga',
    color: '#112233',
    kind: 'text',
    text: 'hello',
    image: null,
    alt: '',
    timestamp: NOW,
    replyTo: null,
    edited: false,
    deleted: false,
    unproven: false,
    delivery: 'confirmed',
    failure: null,
    secrecy: 'plain',
    verification: 'unsigned',
    relayedBy: null,
    ...part,
  })

  it('give events whose projection is the row again', () => {
    const rows: RowV1[] = [
      row(),
      row({ verification: 'verified', replyTo: { msgId: 'm-0', from: 'x', text: 'y' } }),
      row({ edited: true, text: 'changed' }),
      row({ deleted: true, text: '' }),
      row({ relayedBy: 'carol', secrecy: 'encrypted' }),
      row({ relayedBy: 'carol', edited: true }),
      row({ kind: 'image', image: 'data:image/png;base64,AAAA', alt: 'a cat', secrecy: 'exposed' }),
      row({ userId: null, edited: true, unproven: true }),
      row({
        secrecy: 'unreadable',
        text: '',
        sealed: { text: { text: 'AA==', iv: 'AA==' }, image: null, alt: null, keyId: null },
      }),
    ]
    for (const each of rows) {
      const { sealed: _sealed, ...shown } = each
      expect(project(eventsOfRow(each))).toEqual([shown])
    }
    expect(eventsOfRow(row({ delivery: 'failed' }))).toEqual([])
  })
})

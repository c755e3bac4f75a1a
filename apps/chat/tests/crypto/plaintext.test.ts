import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { seal, type Outgoing } from '@/crypto/envelope'
import { RoomCrypto, type CryptoEvent, type RoomCryptoRecord } from '@/crypto/roomCrypto'
import { Failure } from '@/protocol/errors'
import { seeded } from '../random'
import { identity, Room } from './room'

const SECRET = 'plain words that nobody may read'
const IMAGE = 'data:image/png;base64,cGxhaW4gd29yZHM='
const USERS = ['creator', 'bob', 'carol']

const text = {
  kind: 'message',
  from: 'Bob',
  fromId: 'session',
  userId: 'bob',
  msgId: '1700000000000-abc123',
  timestamp: 1_700_000_000_000,
  avatarColor: '#112233',
  text: SECRET,
  image: IMAGE,
  alt: SECRET,
  replyTo: { msgId: '1-a', from: 'Carol', text: SECRET },
} as const
const edit = {
  kind: 'edit',
  fromId: 's',
  userId: 'bob',
  msgId: '1-b',
  timestamp: 1,
  targetId: '1-a',
  text: SECRET,
} as const

const meta = fc.record({
  encrypted: fc.boolean(),
  creatorId: fc.constantFrom('creator', 'bob', null),
  passwordSalt: fc.constantFrom(null, 'AAAA', 'BBBB'),
})
const user = fc.constantFrom(...USERS)

/** Everything that can happen to a machine, in any order. Keys come from machines of the other parties. */
type Happening = CryptoEvent | { type: 'pubkeyOf'; userId: string; live: boolean } | { type: 'keyexOf'; userId: string }

const happening: fc.Arbitrary<Happening> = fc.oneof(
  { weight: 3, arbitrary: fc.record({ type: fc.constant('meta' as const), meta: fc.option(meta) }) },
  fc.record({ type: fc.constant('disconnected' as const) }),
  fc.record({ type: fc.constant('asleep' as const) }),
  fc.record({ type: fc.constant('admin' as const), userId: user, admin: fc.boolean() }),
  fc.record({ type: fc.constant('presence' as const), userId: user, present: fc.boolean() }),
  fc.record({ type: fc.constant('ban' as const), userId: user, banned: fc.boolean() }),
  fc.record({ type: fc.constant('member' as const), userId: user, member: fc.boolean() }),
  fc.record({ type: fc.constant('proof' as const), userId: user, given: fc.boolean() }),
  fc.record({ type: fc.constant('rotate' as const), without: fc.array(user, { maxLength: 2 }) }),
  fc.record({ type: fc.constant('unreadable' as const) }),
  fc.record({ type: fc.constant('create' as const) }),
  fc.record({
    type: fc.constant('timer' as const),
    name: fc.constantFrom('ask', 'askSoon', 'audit', 'leave', 'answer carol', 'repeat carol', 'answer creator'),
  }),
  fc.record({ type: fc.constant('pubkeyOf' as const), userId: user, live: fc.boolean() }),
  fc.record({ type: fc.constant('keyexOf' as const), userId: user }),
)

async function keyexFrom(userId: string): Promise<CryptoEvent> {
  const room = new Room(seeded(userId.length))
  await room.enter(userId)
  await room.act(userId, { type: 'create' })
  const { publicKey } = await identity('bob')
  const { machine } = room.party(userId)
  await machine.handle({ type: 'presence', userId: 'bob', present: true })
  await machine.handle({ type: 'pubkey', userId: 'bob', publicKey, live: true })
  const effects = await machine.handle({ type: 'timer', name: 'answer bob' })
  const keyex = effects.flatMap((effect) => (effect.type === 'sendKeyex' ? [effect.value] : []))[0]
  return keyex ? { type: 'keyex', keyex, doubtful: false } : { type: 'unreadable' }
}

async function attempt(machine: RoomCrypto, message: Outgoing) {
  try {
    return await seal(machine, await identity('bob'), '11111111-1111-4111-8111-111111111111', message)
  } catch (error) {
    expect(error).toBeInstanceOf(Failure)
    expect((error as Failure).kind).toBe('waitingForKey')
    return null
  }
}

describe('no clear text in an encrypted room', () => {
  it('whatever happens, in whatever order, and across reloads', async () => {
    const keyexes = new Map<string, CryptoEvent>()
    for (const userId of USERS) keyexes.set(userId, await keyexFrom(userId))
    await fc.assert(
      fc.asyncProperty(fc.array(happening, { minLength: 1, maxLength: 25 }), fc.nat(), async (happenings, seed) => {
        const bob = await identity('bob')
        let machine = await RoomCrypto.load(bob, seeded(seed), null)
        let encrypted = false
        let metaSeen = false
        let record: RoomCryptoRecord | null = null
        for (const [at, what] of happenings.entries()) {
          let event: CryptoEvent
          if (what.type === 'pubkeyOf') {
            const { publicKey } = await identity(what.userId)
            event = { type: 'pubkey', userId: what.userId, publicKey, live: what.live }
          } else if (what.type === 'keyexOf') event = keyexes.get(what.userId)!
          else event = what
          // A message that was closed before the event must not leave after it, if the event changed what is allowed.
          const closedBefore = await attempt(machine, text)
          const effects = await machine.handle(event)
          if (event.type === 'create' || (event.type === 'meta' && event.meta?.encrypted)) encrypted = true
          if (event.type === 'meta') metaSeen = true
          if (event.type === 'disconnected') metaSeen = false
          for (const effect of effects) if (effect.type === 'store') record = structuredClone(effect.record)
          const envelopes = [
            ...(closedBefore?.guard() ? [closedBefore] : []),
            await attempt(machine, text),
            await attempt(machine, edit),
          ]
          for (const envelope of envelopes) {
            if (!envelope) continue
            const wire = JSON.stringify(envelope.value)
            if (encrypted) {
              expect(wire).not.toContain(SECRET)
              expect(wire).not.toContain(IMAGE)
              expect(wire).not.toContain('"signature"')
            } else {
              expect(metaSeen).toBe(true)
            }
          }
          if (at % 7 === 6) machine = await RoomCrypto.load(bob, seeded(seed + at), record)
          if (at % 7 === 6) metaSeen = false
        }
      }),
      { numRuns: 150 },
    )
  })

  it('nor does it send any before the room is known', async () => {
    const machine = await RoomCrypto.load(await identity('bob'), seeded(1), null)
    expect(machine.state).toBe('unknown')
    expect(await attempt(machine, text)).toBeNull()
    expect(
      await attempt(machine, {
        kind: 'delete',
        fromId: 's',
        userId: 'bob',
        msgId: '1-b',
        timestamp: 1,
        targetId: '1-a',
        moderator: false,
      }),
    ).toBeNull()
  })

  it('and it does send where the room is open', async () => {
    const machine = await RoomCrypto.load(await identity('bob'), seeded(1), null)
    await machine.handle({ type: 'meta', meta: null })
    expect(machine.state).toBe('off')
    const envelope = await attempt(machine, text)
    expect(envelope!.value).toMatchObject({ text: SECRET, image: IMAGE, alt: SECRET, type: 'image' })
    expect(envelope!.guard()).toBe(true)
    await machine.handle({ type: 'meta', meta: { encrypted: true, creatorId: null, passwordSalt: null } })
    expect(envelope!.guard()).toBe(false)
  })

  it('and an encrypted one stays encrypted, whatever its meta says later', async () => {
    const machine = await RoomCrypto.load(await identity('bob'), seeded(1), null)
    await machine.handle({ type: 'create' })
    for (const later of [null, { encrypted: false, creatorId: null, passwordSalt: null }]) {
      await machine.handle({ type: 'meta', meta: later })
      expect(machine.state).toBe('ready')
    }
    await machine.handle({ type: 'create' })
    await machine.handle({ type: 'disconnected' })
    expect(machine.state).toBe('ready')
  })
})

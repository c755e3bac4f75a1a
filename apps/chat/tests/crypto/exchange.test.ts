import { describe, expect, it } from 'vitest'
import { RoomCrypto } from '@/crypto/roomCrypto'
import { newRoomKey } from '@/crypto/roomKey'
import { permutations, seeded } from '../random'
import { Room } from './room'

const NAMES = ['creator', 'bob', 'carol', 'dave', 'erin']

/** A room in which the creator made the key and these came in this order, with or without quiet in between. */
async function fill(seed: number, order: readonly string[], quiet: boolean): Promise<Room> {
  const room = new Room(seeded(seed))
  for (const id of order) {
    await room.enter(id)
    if (id === 'creator') await room.act('creator', { type: 'create' })
    if (quiet) await room.settle(60)
  }
  await room.settle()
  return room
}

describe('key exchange', () => {
  const orders = [2, 3, 4].flatMap((count) => permutations(NAMES.slice(0, count)))
  it.each(orders.map((order) => [order.join(' → '), order] as const))('reaches everybody: %s', async (name, order) => {
    for (const quiet of [true, false]) {
      const room = await fill(name.length, order, quiet)
      expect(await room.allUnderstand()).toBe(true)
      expect([...room.parties.values()].map((party) => party.state)).toEqual(order.map(() => 'ready'))
    }
  })

  it('reaches five in every order of arrival', async () => {
    for (const [seed, order] of permutations(NAMES).entries()) {
      const room = await fill(seed, order, seed % 2 === 0)
      expect(await room.allUnderstand(), `order ${order.join(' ')}, seed ${seed}`).toBe(true)
    }
  })

  it('lets everybody write with one key in the end', async () => {
    for (let seed = 0; seed < 10; seed++) {
      const room = await fill(seed, NAMES, false)
      const keys = await Promise.all(NAMES.map((id) => room.keyOf(id)))
      expect(new Set(keys).size).toBe(1)
    }
  })

  it('works when a member who is not the creator hands the key on', async () => {
    const room = await fill(1, ['creator', 'bob'], true)
    room.drop('creator')
    await room.enter('carol')
    await room.settle()
    expect(await room.allUnderstand()).toBe(true)
  })

  it('survives a reload without asking anybody', async () => {
    const room = await fill(1, ['creator', 'bob'], true)
    const { record } = room.party('bob')
    room.drop('bob')
    await room.add('bob', record)
    expect(room.party('bob').machine.state).toBe('ready')
    await room.enter('bob')
    await room.settle()
    expect(await room.allUnderstand()).toBe(true)
    expect(room.party('creator').changes.filter((change) => change.type === 'keyChanged')).toEqual([])
  })

  it('asks at once where the room is encrypted and the key is not there', async () => {
    const room = new Room(seeded(1))
    await room.add('bob')
    const effects = await room.act('bob', { type: 'meta', meta: room.meta })
    expect(effects).toContainEqual({
      type: 'publishPubkey',
      value: { publicKey: room.party('bob').identity.publicKey },
    })
    expect(effects).toContainEqual({ type: 'state', state: 'waiting' })
  })

  it('goes on asking, but not without a pause', async () => {
    const room = new Room(seeded(1))
    await room.enter('bob')
    await room.settle(5)
    const again = await room.act('bob', { type: 'meta', meta: room.meta })
    expect(again.filter((effect) => effect.type === 'publishPubkey')).toEqual([])
    const later = await room.act('bob', { type: 'timer', name: 'ask' })
    expect(later.filter((effect) => effect.type === 'publishPubkey')).toHaveLength(1)
  })

  it('answers a public key once, and again only to one who still asks after a while', async () => {
    const room = await fill(2, ['creator', 'bob'], true)
    const publicKey = room.party('bob').identity.publicKey
    const ask = async (live: boolean) => {
      const before = room.keyexes.filter((keyex) => keyex.from === 'creator').length
      const effects = await room.act('creator', { type: 'pubkey', userId: 'bob', publicKey, live })
      if (effects.some((effect) => effect.type === 'timer'))
        await room.act('creator', { type: 'timer', name: 'answer bob' })
      return room.keyexes.filter((keyex) => keyex.from === 'creator').length - before
    }
    await room.act('creator', { type: 'presence', userId: 'bob', present: false })
    await room.act('creator', { type: 'presence', userId: 'bob', present: true })
    await room.act('creator', { type: 'timer', name: 'answer bob' })
    expect(await ask(true)).toBe(0)
    await room.act('creator', { type: 'timer', name: 'repeat bob' })
    expect(await ask(false)).toBe(0)
    expect(await ask(true)).toBe(1)
    await room.act('creator', { type: 'timer', name: 'repeat nobody' })
  })

  it('does not answer one who sent a key meanwhile, who went away, or whose answer is not due', async () => {
    const room = await fill(3, ['creator', 'bob'], true)
    room.setMeta({})
    await room.settle(20)
    const creator = room.party('creator')
    const { closed } = await creator.machine.close(['x'])
    expect(closed).toHaveLength(1)
    const carol = await room.add('carol')
    const publicKey = carol.identity.publicKey
    await room.act('creator', { type: 'presence', userId: 'carol', present: true })
    await room.act('creator', { type: 'pubkey', userId: 'carol', publicKey, live: true })
    await room.act('creator', { type: 'presence', userId: 'carol', present: false })
    expect(await room.act('creator', { type: 'timer', name: 'answer carol' })).toEqual([])
    expect(await room.act('creator', { type: 'timer', name: 'answer carol' })).toEqual([])
    expect(await room.act('creator', { type: 'timer', name: 'answer nobody' })).toEqual([])
  })

  it('sends nothing to a key that is no point of the curve', async () => {
    const room = await fill(3, ['creator'], true)
    const off = { ...room.party('creator').identity.publicKey, x: 'A'.repeat(43) }
    await room.act('creator', { type: 'presence', userId: 'mallory', present: true })
    await room.act('creator', { type: 'pubkey', userId: 'mallory', publicKey: off, live: true })
    expect(await room.act('creator', { type: 'timer', name: 'answer mallory' })).toEqual([])
    expect(room.keyexes).toEqual([])
  })

  it('asks again when a message is unreadable, after a short while and only while it is', async () => {
    const room = await fill(4, ['creator', 'bob'], true)
    await room.act('bob', { type: 'timer', name: 'ask' })
    const [timer] = await room.act('bob', { type: 'unreadable' })
    expect(timer).toMatchObject({ type: 'timer', name: 'askSoon' })
    expect((timer as { delayMs: number }).delayMs).toBeGreaterThanOrEqual(500)
    expect((timer as { delayMs: number }).delayMs).toBeLessThan(2_000)
    expect(await room.act('bob', { type: 'unreadable' })).toEqual([])
    expect((await room.act('bob', { type: 'timer', name: 'askSoon' }))[0]).toMatchObject({ type: 'publishPubkey' })
    expect(await room.act('bob', { type: 'timer', name: 'askSoon' })).toEqual([])
  })

  it('gives nothing to a key that replaced a known one, until somebody accepts it', async () => {
    const room = await fill(7, ['creator', 'bob'], true)
    const replaced = (await room.add('intruder')).identity
    const sentTo = () => room.keyexes.filter(({ from, to }) => from === 'creator' && to === 'bob').length
    const before = sentTo()
    await room.act('creator', { type: 'pubkey', userId: 'bob', publicKey: replaced.publicKey, live: true })
    await room.act('creator', { type: 'timer', name: 'answer bob' })
    await room.act('creator', { type: 'rotate', without: ['carol'] })
    expect(sentTo()).toBe(before)
    await room.act('creator', { type: 'accept', userId: 'bob', fingerprint: replaced.fingerprint })
    await room.act('creator', { type: 'timer', name: 'answer bob' })
    expect(sentTo()).toBe(before + 1)
  })

  it('helps another device of the same person, and says that there is one', async () => {
    const room = await fill(5, ['creator', 'bob'], true)
    const device = (await room.add('device')).identity
    const effects = await room.act('bob', { type: 'pubkey', userId: 'bob', publicKey: device.publicKey, live: true })
    expect(effects).toContainEqual({
      type: 'keyChanged',
      userId: 'bob',
      oldFingerprint: room.party('bob').identity.fingerprint,
      newFingerprint: device.fingerprint,
    })
    await room.act('bob', { type: 'timer', name: 'answer bob' })
    expect(room.keyexes.at(-1)).toMatchObject({ from: 'bob', to: 'bob' })
  })

  it('does nothing about its own echo', async () => {
    const room = await fill(6, ['creator'], true)
    const { publicKey } = room.party('creator').identity
    expect(await room.act('creator', { type: 'pubkey', userId: 'creator', publicKey, live: true })).toEqual([])
  })
})

describe('tabs of one browser', () => {
  it('share what one of them learned', async () => {
    const room = await fill(1, ['creator', 'bob'], true)
    const tab = await RoomCrypto.load(
      (await room.add('creator', room.party('creator').record)).identity,
      seeded(2),
      null,
    )
    expect(tab.state).toBe('unknown')
    const { record } = room.party('creator')
    const effects = await tab.handle({ type: 'sync', record: record! })
    expect(effects.map((effect) => effect.type)).toEqual(['keysArrived', 'state'])
    expect(tab.state).toBe('ready')
    expect(tab.fingerprints('bob')).toEqual([room.party('bob').identity.fingerprint])
    await tab.handle({
      type: 'sync',
      record: { encrypted: false, keys: [], sendingKeyId: null, pins: {}, enrolled: [] },
    })
    expect(tab.state).toBe('ready')
  })
})

describe('a key that no account vouches for', () => {
  /** bob asks, and the creator answers from a device that the account has not signed. */
  async function doubted(): Promise<Room> {
    const room = new Room(seeded(3))
    room.doubted.add('creator')
    await room.enter('creator')
    await room.act('creator', { type: 'create' })
    await room.enter('bob')
    await room.settle()
    return room
  }

  it('decrypts, and is not sent with', async () => {
    const room = await doubted()
    const { closed } = await room.party('creator').machine.close(['hello'])
    const sealed = closed[0] as { text: string; iv: string; keyId: string }
    expect(await room.party('bob').machine.open(sealed, sealed.keyId)).toBe('hello')
    expect(room.party('bob').state).toBe('waiting')
    await expect(room.party('bob').machine.close(['secret'])).rejects.toMatchObject({ kind: 'waitingForKey' })
    const { fingerprint } = room.party('creator').identity
    expect(room.party('bob').changes).toContainEqual({
      type: 'keyChanged',
      userId: 'creator',
      oldFingerprint: '',
      newFingerprint: fingerprint,
    })
  })

  it('is sent with once its sender was accepted, also after a reload', async () => {
    const room = await doubted()
    const { fingerprint } = room.party('creator').identity
    await room.act('bob', { type: 'accept', userId: 'creator', fingerprint })
    expect(room.party('bob').state).toBe('ready')
    expect(await room.keyOf('bob')).toBe(await room.keyOf('creator'))
    const { record } = room.party('bob')
    room.drop('bob')
    await room.add('bob', record)
    await room.enter('bob')
    await room.act('creator', { type: 'rotate', without: [] })
    await room.settle()
    expect(await room.keyOf('bob')).toBe(await room.keyOf('creator'))
  })

  it('is sent with once a second member sent it, too', async () => {
    const room = await doubted()
    room.doubted.add('carol')
    await room.enter('carol')
    const { fingerprint } = room.party('creator').identity
    await room.act('carol', { type: 'accept', userId: 'creator', fingerprint })
    await room.settle()
    room.drop('creator')
    await room.settle()
    expect(room.party('carol').state).toBe('ready')
    expect(room.party('bob').state).toBe('ready')
    expect(await room.keyOf('bob')).toBe(await room.keyOf('carol'))
  })

  it('replaces none that somebody vouches for', async () => {
    const room = await fill(1, ['creator', 'bob'], true)
    const before = await room.keyOf('bob')
    room.doubted.add('creator')
    await room.act('creator', { type: 'rotate', without: [] })
    await room.settle()
    expect(await room.keyOf('bob')).toBe(before)
    room.doubted.clear()
    await room.act('creator', { type: 'rotate', without: [] })
    await room.settle()
    expect(await room.keyOf('bob')).toBe(await room.keyOf('creator'))
  })

  it('is believed where another tab has accepted its sender', async () => {
    const room = await doubted()
    const { fingerprint } = room.party('creator').identity
    const record = { ...room.party('bob').record!, believed: [fingerprint] }
    await room.act('bob', { type: 'sync', record })
    await room.act('creator', { type: 'rotate', without: [] })
    await room.settle()
    expect(await room.keyOf('bob')).toBe(await room.keyOf('creator'))
  })
})

describe('keys that came with history', () => {
  it('are stored once, and never sent with', async () => {
    const room = await fill(1, ['creator', 'bob'], true)
    const before = await room.keyOf('bob')
    const keys = [(await newRoomKey()).jwk]
    const learned = await room.act('bob', { type: 'learn', keys })
    expect(learned.map((effect) => effect.type)).toEqual(['store'])
    expect(await room.act('bob', { type: 'learn', keys })).toEqual([])
    expect(await room.keyOf('bob')).toBe(before)
  })
})

describe('trust', () => {
  /** Somebody of the room sends bob a key of their own making. */
  async function offer(room: Room, from: string, epoch: number | null): Promise<string> {
    const other = new Room(seeded(99))
    await other.enter(from)
    await other.act(from, { type: 'create' })
    const machine = other.party(from).machine
    const bob = room.party('bob').identity
    await machine.handle({ type: 'presence', userId: 'bob', present: true })
    await machine.handle({ type: 'pubkey', userId: 'bob', publicKey: bob.publicKey, live: true })
    const effects = await machine.handle({ type: 'timer', name: 'answer bob' })
    const value = effects.flatMap((effect) => (effect.type === 'sendKeyex' ? [effect.value] : []))[0]!
    const { fromId, encryptedKey, iv, senderPublicKey } = value
    const keyId = epoch === null ? null : value.keyId
    const keyex = { fromId, encryptedKey, iv, senderPublicKey, epoch, keyId, deviceId: null }
    await room.act('bob', { type: 'keyex', keyex, doubtful: false })
    return value.keyId
  }

  it('takes any key where none is held, and the real one as soon as a leader sends it', async () => {
    const room = new Room(seeded(1))
    await room.enter('bob')
    await room.settle(20)
    const strangers = await offer(room, 'mallory', 999)
    expect(await room.keyOf('bob')).toBe(strangers)
    await room.enter('creator')
    await room.act('creator', { type: 'create' })
    await room.settle()
    const real = await room.keyOf('creator')
    if ((await room.keyOf('bob')) !== real) {
      // The creator holds back its answer where a key came from bob in that moment; bob asks at the next message.
      await room.act('bob', { type: 'unreadable' })
      await room.settle()
    }
    expect(await room.keyOf('bob')).toBe(real)
  })

  it('keeps the key that writes when somebody else sends one, whatever it claims', async () => {
    const room = await fill(1, ['creator', 'bob', 'carol'], true)
    const before = await room.keyOf('bob')
    for (const epoch of [null, 0, 999]) await offer(room, 'carol', epoch)
    expect(await room.keyOf('bob')).toBe(before)
    expect(await room.allUnderstand()).toBe(true)
  })

  it('takes a newer key of the creator, of any client, and an older one never', async () => {
    const room = await fill(1, ['creator', 'bob'], true)
    const first = await room.keyOf('bob')
    expect(await offer(room, 'creator', 0)).not.toBe(await room.keyOf('bob'))
    const second = await offer(room, 'creator', null)
    expect(await room.keyOf('bob')).toBe(second)
    expect(first).not.toBe(second)
    // The same old key again, as from a client that was away.
    const carried = await offer(room, 'creator', 7)
    expect(await room.keyOf('bob')).toBe(carried)
  })

  it('takes a key of a leader only with the key that is known to be theirs', async () => {
    const room = await fill(1, ['creator', 'bob'], true)
    const before = await room.keyOf('bob')
    const { identity } = await room.add('impostor')
    const machine = room.party('impostor').machine
    await machine.handle({ type: 'create' })
    await machine.handle({ type: 'presence', userId: 'bob', present: true })
    await machine.handle({ type: 'pubkey', userId: 'bob', publicKey: room.party('bob').identity.publicKey, live: true })
    const effects = await machine.handle({ type: 'timer', name: 'answer bob' })
    const value = effects.flatMap((effect) => (effect.type === 'sendKeyex' ? [effect.value] : []))[0]!
    const keyex = { ...value, fromId: 'creator', epoch: 50 }
    const warned = await room.act('bob', { type: 'keyex', keyex, doubtful: false })
    expect(warned).toContainEqual(expect.objectContaining({ type: 'keyChanged', userId: 'creator' }))
    expect(await room.keyOf('bob')).toBe(before)
    await room.act('bob', { type: 'accept', userId: 'creator', fingerprint: identity.fingerprint })
    expect(room.party('bob').machine.fingerprints('creator').at(-1)).toBe(identity.fingerprint)
    await room.act('bob', { type: 'keyex', keyex, doubtful: false })
    expect(await room.keyOf('bob')).toBe(value.keyId)
  })

  it('takes no key from the banned, and none that is another than it says', async () => {
    const room = await fill(1, ['creator', 'bob', 'carol'], true)
    const value = await (async () => {
      room.keyexes.length = 0
      const machine = room.party('carol').machine
      await machine.handle({ type: 'presence', userId: 'bob', present: false })
      await machine.handle({ type: 'presence', userId: 'bob', present: true })
      const effects = await machine.handle({ type: 'timer', name: 'answer bob' })
      return effects.flatMap((effect) => (effect.type === 'sendKeyex' ? [effect.value] : []))[0]!
    })()
    expect(await room.act('bob', { type: 'keyex', keyex: { ...value, keyId: '00000000' }, doubtful: false })).toEqual(
      [],
    )
    await room.act('bob', { type: 'ban', userId: 'carol', banned: true })
    expect(await room.act('bob', { type: 'keyex', keyex: value, doubtful: false })).toEqual([])
    await room.act('bob', { type: 'ban', userId: 'carol', banned: false })
    expect(
      await room.act('bob', { type: 'keyex', keyex: { ...value, iv: 'AAAAAAAAAAAAAAAA' }, doubtful: false }),
    ).toEqual([])
    expect(
      (await room.act('bob', { type: 'keyex', keyex: value, doubtful: false })).map((effect) => effect.type),
    ).toContain('keysArrived')
  })
})

describe('rooms with a password', () => {
  const withPassword = async (seed: number) => {
    const room = new Room(seeded(seed), { passwordSalt: 'AAECAwQFBgcICQoLDA0ODw==' })
    await room.enter('creator')
    await room.act('creator', { type: 'create' })
    await room.settle(40)
    return room
  }

  it('give no key to one without a proof, and give it as soon as there is one', async () => {
    for (let seed = 0; seed < 5; seed++) {
      const room = await withPassword(seed)
      await room.enter('bob')
      await room.settle(80)
      expect(room.keyexes).toEqual([])
      expect(room.party('bob').state).toBe('waiting')
      room.setProof('bob', true)
      await room.settle()
      expect(room.party('bob').state).toBe('ready')
      expect(await room.allUnderstand()).toBe(true)
    }
  })

  it('give no key to one with a proof who is not there', async () => {
    const room = await withPassword(1)
    const { publicKey } = (await room.add('bob')).identity
    room.setProof('bob', true)
    room.tell('creator', { type: 'pubkey', userId: 'bob', publicKey, live: true })
    await room.settle(80)
    expect(room.keyexes).toEqual([])
  })

  it('give none to one who took the proof back before the answer', async () => {
    const room = await withPassword(2)
    room.setProof('bob', true)
    await room.enter('bob')
    const { publicKey } = room.party('bob').identity
    await room.settle(0)
    await room.act('creator', { type: 'proof', userId: 'bob', given: true })
    await room.act('creator', { type: 'presence', userId: 'bob', present: true })
    await room.act('creator', { type: 'pubkey', userId: 'bob', publicKey, live: true })
    await room.act('creator', { type: 'proof', userId: 'bob', given: false })
    expect(await room.act('creator', { type: 'timer', name: 'answer bob' })).toEqual([])
    expect(room.keyexes).toEqual([])
  })

  it('start anew when the password changes: old proofs count no more, new ones do', async () => {
    for (let seed = 0; seed < 5; seed++) {
      const room = await withPassword(seed)
      room.setProof('bob', true)
      await room.enter('bob')
      await room.settle()
      const old = await room.keyOf('creator')
      expect(await room.keyOf('bob')).toBe(old)
      room.setMeta({ passwordSalt: 'BBECAwQFBgcICQoLDA0ODw==' })
      await room.settle(40)
      await room.act('creator', { type: 'rotate', without: [] })
      room.beat()
      await room.settle(80)
      expect(await room.keyOf('creator')).not.toBe(old)
      expect(await room.keyOf('bob')).toBe(old)
      room.setProof('bob', true)
      room.beat()
      await room.settle()
      await room.act('bob', { type: 'unreadable' })
      await room.settle()
      expect(await room.keyOf('bob')).toBe(await room.keyOf('creator'))
    }
  })

  it('let their creator in without a proof', async () => {
    const room = await withPassword(3)
    room.setProof('bob', true)
    await room.enter('bob')
    await room.settle()
    room.drop('creator')
    room.parties.delete('creator')
    await room.enter('creator')
    await room.settle()
    expect(room.party('creator').state).toBe('ready')
  })
})

describe('rotation', () => {
  it('after a ban gives the new key to everybody else, and the banned one reads nothing new', async () => {
    for (let seed = 0; seed < 10; seed++) {
      const room = await fill(seed, ['creator', 'bob', 'carol', 'dave'], true)
      const old = await room.keyOf('creator')
      room.setBan('bob')
      await room.act('creator', { type: 'rotate', without: ['bob'] })
      await room.settle()
      const fresh = await room.keyOf('creator')
      expect(fresh).not.toBe(old)
      expect(await room.keyOf('carol')).toBe(fresh)
      expect(await room.keyOf('dave')).toBe(fresh)
      const { closed } = await room.party('carol').machine.close(['without bob'])
      const sealed = closed[0] as { text: string; iv: string; keyId: string }
      expect(await room.party('bob').machine.open(sealed, sealed.keyId)).toBeNull()
    }
  })

  it('does not publish the own public key again', async () => {
    const room = await fill(1, ['creator', 'bob'], true)
    const effects = await room.act('creator', { type: 'rotate', without: [] })
    expect(effects.map((effect) => effect.type)).not.toContain('publishPubkey')
    expect(effects.filter((effect) => effect.type === 'sendKeyex')).toHaveLength(1)
  })

  it('is done by nobody who has no say or no key', async () => {
    const room = await fill(1, ['creator', 'bob'], true)
    expect(await room.act('bob', { type: 'rotate', without: [] })).toEqual([])
    const waiting = new Room(seeded(1))
    await waiting.enter('creator')
    await waiting.settle(20)
    expect(await waiting.act('creator', { type: 'rotate', without: ['bob'] })).toEqual([])
  })

  it('is not undone by a holder that was away', async () => {
    for (let seed = 0; seed < 10; seed++) {
      const room = await fill(seed, ['creator', 'bob', 'carol', 'dave'], true)
      room.drop('carol')
      room.setBan('dave')
      await room.act('creator', { type: 'rotate', without: ['dave'] })
      await room.settle()
      const fresh = await room.keyOf('creator')
      await room.enter('carol')
      await room.settle()
      expect(await room.keyOf('creator')).toBe(fresh)
      expect(await room.keyOf('bob')).toBe(fresh)
      await room.act('carol', { type: 'unreadable' })
      await room.settle()
      expect(await room.keyOf('carol')).toBe(fresh)
    }
  })

  it('by an admin reaches the creator too', async () => {
    const room = await fill(1, ['creator', 'bob', 'carol'], true)
    room.setAdmin('bob')
    await room.settle()
    await room.act('bob', { type: 'rotate', without: [] })
    await room.settle()
    const fresh = await room.keyOf('bob')
    expect(await room.keyOf('creator')).toBe(fresh)
    expect(await room.keyOf('carol')).toBe(fresh)
  })

  it('of two at once ends with one key for all', async () => {
    for (let seed = 0; seed < 10; seed++) {
      const room = await fill(seed, ['creator', 'bob', 'carol', 'dave'], true)
      room.setAdmin('bob')
      await room.settle()
      await room.act('bob', { type: 'rotate', without: [] })
      await room.act('creator', { type: 'rotate', without: [] })
      await room.settle()
      const keys = await Promise.all(['creator', 'bob', 'carol', 'dave'].map((id) => room.keyOf(id)))
      expect(new Set(keys).size).toBe(1)
    }
  })

  it('follows when somebody leaves for good, once, by the creator', async () => {
    const room = await fill(1, ['creator', 'bob', 'carol'], true)
    const old = await room.keyOf('creator')
    room.leave('bob')
    room.leave('bob')
    await room.settle()
    const fresh = await room.keyOf('creator')
    expect(fresh).not.toBe(old)
    expect(await room.keyOf('carol')).toBe(fresh)
  })

  it('follows once for several who leave together', async () => {
    const room = await fill(1, ['creator', 'bob', 'carol', 'dave'], true)
    for (const userId of ['bob', 'carol']) await room.act('creator', { type: 'member', userId, member: false })
    const before = room.keyexes.length
    await room.settle()
    expect(room.keyexes.slice(before).filter((keyex) => keyex.from === 'creator')).toEqual([
      { from: 'creator', to: 'dave', keyId: await room.keyOf('creator') },
    ])
  })

  it('follows by the first admin where the creator is away', async () => {
    const room = await fill(1, ['creator', 'bob', 'carol', 'dave'], true)
    room.setAdmin('bob')
    room.setAdmin('carol')
    await room.settle()
    const old = await room.keyOf('bob')
    room.leave('dave')
    await room.settle()
    const byCreator = await room.keyOf('creator')
    expect(byCreator).not.toBe(old)
    room.drop('creator')
    await room.enter('erin')
    await room.settle()
    room.leave('erin')
    await room.settle()
    expect(await room.keyOf('bob')).not.toBe(byCreator)
    expect(await room.keyOf('carol')).toBe(await room.keyOf('bob'))
  })

  it('is left to the admins in a room whose creator nobody knows', async () => {
    const room = await fill(1, ['creator', 'bob', 'carol'], true)
    const { record } = room.party('bob')
    await room.add('bob', record)
    const old = await room.keyOf('bob')
    await room.act('bob', { type: 'meta', meta: { encrypted: true, creatorId: null, passwordSalt: null } })
    await room.act('bob', { type: 'admin', userId: 'bob', admin: true })
    await room.act('bob', { type: 'member', userId: 'carol', member: false })
    await room.act('bob', { type: 'timer', name: 'leave' })
    expect(await room.keyOf('bob')).not.toBe(old)
  })

  it('does not follow when a page is closed', async () => {
    const room = await fill(1, ['creator', 'bob', 'carol'], true)
    const old = await room.keyOf('creator')
    room.drop('bob')
    await room.settle()
    expect(await room.keyOf('creator')).toBe(old)
  })

  it('is made up for by a leader that was away when somebody left', async () => {
    const room = await fill(1, ['creator', 'bob', 'carol'], true)
    const old = await room.keyOf('creator')
    const { record } = room.party('creator')
    room.drop('creator')
    room.leave('carol')
    await room.settle()
    await room.add('creator', record)
    await room.enter('creator')
    await room.settle()
    expect(await room.keyOf('creator')).not.toBe(old)
    expect(await room.keyOf('bob')).toBe(await room.keyOf('creator'))
  })

  it('is not brought about by a lost connection or by leaving oneself', async () => {
    const room = await fill(1, ['creator', 'bob'], true)
    const old = await room.keyOf('creator')
    await room.act('creator', { type: 'disconnected' })
    expect(await room.act('creator', { type: 'complete' })).toEqual([])
    expect(await room.act('creator', { type: 'timer', name: 'leave' })).toEqual([])
    await room.act('creator', { type: 'member', userId: 'creator', member: false })
    expect(await room.keyOf('creator')).toBe(old)
  })
})

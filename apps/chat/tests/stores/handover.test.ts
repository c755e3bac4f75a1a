/** How the keys of an account get to another of its devices: by a code, or from a backup. */
import { beforeEach, describe, expect, it } from 'vitest'
import { linkKey, newLinkPair, sealParts } from '@/crypto/link'
import type { PublicJwk } from '@/protocol/shapes'
import { writeBundle } from '@/storage/keyBundle'
import type { Tester } from '../support/person'
import { World } from './world'

let world: World
let alice: Tester
let bob: Tester
let secret: string

const texts = (tester: Tester) =>
  tester.messages
    .timeline(secret)
    .filter((message) => message.kind === 'text')
    .map(({ text, secrecy }) => [text, secrecy])

beforeEach(async () => {
  world = new World()
  alice = await world.person('Alice')
  bob = await world.person('Bob')
  secret = await world.room(alice, [bob], { encrypted: true, isPublic: false })
  await world.done(alice.messages.send(secret, { text: 'before' }))
})

/** Another device, where nobody hands on keys by the usual exchange. */
async function newDevice(): Promise<Tester> {
  const second = await world.device(alice)
  await world.pass(500)
  return second
}

describe('a link', () => {
  /** Lets the new device ask, and the first one answer; returns the id and the code on the new one's screen. */
  async function link(second: Tester): Promise<{ id: string; code: string }> {
    await world.done(second.devices.askForKeys())
    expect(second.devices.asking).toMatchObject({ code: null, received: false })
    const { id, name } = alice.devices.offers[0]!
    expect(name).toBe('Test')
    await world.done(alice.devices.answer(id))
    await world.pass(500)
    return { id, code: second.devices.asking!.code! }
  }

  it('gives a new device the account key and the room keys', async () => {
    const second = await newDevice()
    expect([alice.devices.hasAccountKey, second.devices.hasAccountKey]).toEqual([true, false])
    expect(second.devices.offers).toEqual([])
    const { id, code } = await link(second)
    expect(alice.notifications.notices).toMatchObject([{ key: 'notices.linkAsked', params: { name: 'Test' } }])
    const back = await world.done(alice.devices.handOver(id, `${code.slice(0, 3)} ${code.slice(3)}`))
    await world.pass(1_000)
    // The keys are there, and nothing is taken before it is known whose they are.
    expect(second.devices.asking).toMatchObject({ code, received: true })
    expect(second.devices.hasAccountKey).toBe(false)
    expect(back).toMatch(/^\d{6}$/)
    await world.done(second.devices.confirmKeys(` ${back} `), 1_500)
    expect([second.devices.asking, second.devices.askFailure]).toEqual([null, null])
    expect([second.devices.hasAccountKey, second.devices.mayConfirm]).toEqual([true, true])
    expect(alice.devices.offers).toEqual([])
    const kept = await second.runtime.storage.cryptoRecord(secret)
    const first = await alice.runtime.storage.cryptoRecord(secret)
    expect(kept?.keys.map(({ jwk }) => jwk.k)).toEqual(first?.keys.map(({ jwk }) => jwk.k))
    await world.done(second.messages.send(secret, { text: 'after' }))
    await world.pass(500)
    expect(texts(bob)).toContainEqual(['after', 'encrypted'])
    const places = Object.keys(world.stored(`/chat/user/${alice.userId}/link/${id}`))
    expect(places.every((place) => /-\d+$/.test(place))).toBe(true)
  })

  it('takes no keys of somebody who stands between, and pretends to be a device that has them', async () => {
    const second = await newDevice()
    const mallory = await world.person('Mallory')
    await world.done(second.devices.askForKeys())
    const { id } = alice.devices.offers[0]!
    const place = `/chat/user/${alice.userId}/link/${id}`
    // The relay answers itself, and sends what Mallory has, encrypted as it should be.
    const own = await newLinkPair()
    world.relay.put(`${place}-answer`, { key: own.publicKey })
    await world.pass(500)
    const { key } = world.relay.value(place) as unknown as { key: PublicJwk }
    const bundle = await writeBundle(mallory.runtime.storage, (await mallory.runtime.device.accountPair())!, 100_000)
    const send = async (secret: string | null) => {
      const parts = await sealParts((await linkKey(id, own, key, secret))!, id, bundle)
      parts.forEach((part, at) => world.relay.put(`${place}-${at}`, part))
      const scanned = secret !== null && { scanned: true }
      world.relay.put(`${place}-answer`, { key: own.publicKey, parts: parts.length, ...scanned })
      await world.pass(500)
    }
    await send(null)
    expect(second.devices.asking).toMatchObject({ received: true })
    await world.done(second.devices.confirmKeys('000000'))
    expect(second.devices.askFailure).toMatchObject({ reason: 'wrongCode' })
    await expect(second.devices.confirmKeys('000000')).rejects.toMatchObject({ reason: 'linkOver' })
    expect(second.devices.hasAccountKey).toBe(false)
  })

  /** The other device scans the QR code of the new one. */
  async function scan(second: Tester, edit: (hash: string) => string = (hash) => hash): Promise<string> {
    await world.done(second.devices.askForKeys())
    const { url } = second.devices.asking!
    expect(url.startsWith('https://chat.test/chat#link-')).toBe(true)
    expect(alice.devices.takeFragment(edit(new URL(url).hash))).toBe(true)
    const { id, scanned } = alice.devices.offers[0]!
    expect(scanned).toBe(true)
    return id
  }

  it('needs no code where its QR code was scanned', async () => {
    expect(alice.devices.takeFragment('#1700000000000-abc')).toBe(false)
    const second = await newDevice()
    const id = await scan(second)
    await world.done(alice.devices.handOverScanned(id), 2_000)
    await world.pass(500)
    expect([second.devices.asking, second.devices.askFailure]).toEqual([null, null])
    expect([second.devices.hasAccountKey, second.devices.mayConfirm]).toEqual([true, true])
    await expect(alice.devices.handOverScanned(id)).rejects.toMatchObject({ reason: 'linkOver' })
  })

  it('needs no code either where the new device scanned the QR code of one that has the keys', async () => {
    alice.devices.invite(true)
    const { hash } = new URL(alice.devices.invitation!)
    const second = await newDevice()
    expect(second.devices.hasScanned).toBe(false)
    expect(second.devices.takeFragment(hash)).toBe(true)
    expect(second.devices.hasScanned).toBe(true)
    await world.done(second.devices.askScanned())
    const [offer] = alice.devices.offers
    expect(offer).toMatchObject({ scanned: true, invited: true })
    await world.done(alice.devices.handOverScanned(offer!.id), 2_000)
    await world.pass(500)
    expect([second.devices.asking, second.devices.askFailure]).toEqual([null, null])
    expect([second.devices.hasAccountKey, second.devices.hasScanned]).toEqual([true, false])
    expect(alice.devices.invitation).toBeNull()
    await expect(second.devices.askScanned()).rejects.toMatchObject({ reason: 'linkOver' })
  })

  it('needs codes from a device that has not seen the QR code, though it took its place', async () => {
    alice.devices.invite(true)
    const { hash } = new URL(alice.devices.invitation!)
    const second = await newDevice()
    second.devices.takeFragment(hash.replace(/.{32}$/, 'f'.repeat(32)))
    await world.done(second.devices.askScanned())
    await world.done(alice.devices.handOverScanned(alice.devices.offers[0]!.id), 2_000)
    await world.pass(500)
    expect(second.devices.askFailure).toMatchObject({ reason: 'linkOver' })
    expect(second.devices.hasAccountKey).toBe(false)
  })

  it('gives nothing away for another QR code', async () => {
    const second = await newDevice()
    const id = await scan(second, (hash) => hash.replace(/.{32}$/, 'f'.repeat(32)))
    await world.done(alice.devices.handOverScanned(id), 2_000)
    await world.pass(500)
    expect(second.devices.askFailure).toMatchObject({ reason: 'linkOver' })
    expect(second.devices.hasAccountKey).toBe(false)
  })

  it('that was scanned ends where the new device says nothing more', async () => {
    const second = await newDevice()
    const id = await scan(second)
    second.connection.retryNow()
    world.relay.policy = (message, subject) =>
      message.type === 'SET' && message.address.endsWith(`/link/${id}`) && subject !== null
        ? { code: 403, message: 'Not now.' }
        : null
    await expect(world.done(alice.devices.handOverScanned(id), 20_000)).rejects.toMatchObject({ reason: 'linkOver' })
  })

  it('ends at a wrong code, and nothing is handed over', async () => {
    const second = await newDevice()
    const { id, code } = await link(second)
    const wrong = String((Number(code) + 1) % 1_000_000).padStart(6, '0')
    await expect(world.done(alice.devices.handOver(id, wrong))).rejects.toMatchObject({ reason: 'wrongCode' })
    await world.pass(500)
    expect(second.devices.asking).toBeNull()
    expect(second.devices.askFailure).toMatchObject({ reason: 'linkOver' })
    expect(second.devices.hasAccountKey).toBe(false)
    await expect(alice.devices.handOver(id, code)).rejects.toMatchObject({ reason: 'linkOver' })
    await expect(alice.devices.answer(id)).rejects.toMatchObject({ reason: 'linkOver' })
  })

  it('shows different codes if somebody stands between the devices', async () => {
    const second = await newDevice()
    const third = await newDevice()
    await world.done(second.devices.askForKeys())
    const { id } = alice.devices.offers[0]!
    const place = `/chat/user/${alice.userId}/link/${id}`
    // The relay gives Alice's first device another key than the one that was committed to.
    await world.done(alice.devices.answer(id))
    await world.pass(500)
    const own = world.relay.value(place) as object
    world.relay.put(place, { ...own, key: third.runtime.identity.publicKey })
    await world.pass(500)
    const code = second.devices.asking!.code!
    await expect(world.done(alice.devices.handOver(id, code))).rejects.toMatchObject({ reason: 'wrongCode' })
  })

  it('is forgotten if its commitment changes, it is cancelled, or nobody answers', async () => {
    const second = await newDevice()
    await world.done(second.devices.askForKeys())
    const place = `/chat/user/${alice.userId}/link/${alice.devices.offers[0]!.id}`
    world.relay.put(place, { ...(world.relay.value(place) as object), commit: 'f'.repeat(64) })
    await world.pass(100)
    expect(alice.devices.offers).toEqual([])
    await world.done(second.devices.askForKeys())
    expect(alice.devices.offers).toHaveLength(1)
    second.devices.stopAsking()
    await world.pass(500)
    expect([alice.devices.offers, second.devices.asking]).toEqual([[], null])
    await world.done(second.devices.askForKeys())
    await world.pass(121_000)
    expect(second.devices.askFailure).toMatchObject({ kind: 'timeout', reason: 'linkOver' })
  })

  it('takes nothing that it cannot read', async () => {
    const second = await newDevice()
    const { id } = await link(second)
    const answer = world.relay.value(`/chat/user/${alice.userId}/link/${id}-answer`) as object
    const place = `/chat/user/${alice.userId}/link/${id}`
    world.relay.put(`${place}-0`, { text: 'AAAA', iv: 'AAAA' })
    world.relay.put(`${place}-answer`, { ...answer, parts: 1 })
    await world.pass(500)
    expect(second.devices.askFailure).toMatchObject({ kind: 'invalid', reason: 'linkOver' })
    expect(second.devices.hasAccountKey).toBe(false)
  })
})

describe('a backup', () => {
  it('restores account key and room keys on a device that knows the phrase', async () => {
    expect(alice.devices.backup).toBe('none')
    const words = await alice.devices.newPhrase()
    await world.done(alice.devices.startBackup(words), 3_000)
    expect(alice.devices.backup).toBe('kept')
    await alice.runtime.end(false)
    const second = await newDevice()
    expect([second.devices.backup, second.devices.hasAccountKey]).toEqual(['locked', false])
    await world.done(second.devices.recover(words.join(' ')), 3_000)
    await world.pass(1_000)
    expect([second.devices.backup, second.devices.hasAccountKey]).toEqual(['kept', true])
    expect((await second.runtime.storage.cryptoRecord(secret))?.keys.length).toBeGreaterThan(0)
    expect(second.rooms.byId[secret]!.encryption).toBe('ready')
  })

  it('says why a phrase does not do', async () => {
    const words = await alice.devices.newPhrase()
    await expect(world.done(alice.devices.recover('twelve words'))).rejects.toMatchObject({ reason: 'notAPhrase' })
    await expect(world.done(alice.devices.recover(words.join(' ')))).rejects.toMatchObject({ reason: 'noBackup' })
    await world.done(alice.devices.startBackup(words), 3_000)
    const other = await alice.devices.newPhrase()
    await expect(world.done(alice.devices.recover(other.join(' ')), 3_000)).rejects.toMatchObject({
      reason: 'otherPhrase',
    })
  })

  it('follows new keys, keeps what others added, and leaves nothing of the one before', async () => {
    const words = await alice.devices.newPhrase()
    await world.done(alice.devices.startBackup(words), 3_000)
    const parts = () => Object.keys(world.stored(`/chat/user/${alice.userId}/backup/`)).sort()
    const before = parts()
    const second = await newDevice()
    await world.done(second.devices.recover(words.join(' ')), 3_000)
    const other = await world.done(second.rooms.create({ name: 'Other', isPublic: false, encrypted: true }))
    await world.pass(20_000)
    expect(parts()).toHaveLength(2)
    expect(parts()).not.toEqual(before)
    const third = await newDevice()
    await world.done(third.devices.recover(words.join(' ')), 3_000)
    for (const roomId of [secret, other])
      expect((await third.runtime.storage.cryptoRecord(roomId))?.keys.length).toBeGreaterThan(0)
  })

  it('is no longer written by a device whose phrase was replaced', async () => {
    await world.done(alice.devices.startBackup(await alice.devices.newPhrase()), 3_000)
    const second = await newDevice()
    await world.done(second.runtime.device.takeAccount((await alice.runtime.device.accountPair())!))
    await world.done(second.devices.startBackup(await second.devices.newPhrase()), 3_000)
    world.relay.restart()
    await world.pass(5_000)
    expect([alice.devices.backup, second.devices.backup]).toEqual(['locked', 'kept'])
  })
})

describe('sign-ins', () => {
  it('are listed, and ended by their user', async () => {
    let list = [
      { id: '0a', device: 'Here', created_at: 1, last_seen: 2, current: true },
      { id: '0b', device: 'There', created_at: 1, last_seen: 2, current: false },
    ]
    const calls: string[] = []
    alice.runtime.platform.fetch = async (url, { method }) => {
      calls.push(`${method} ${url}`)
      if (method === 'DELETE') list = list.filter(({ id }) => !url.endsWith(id))
      return new Response(JSON.stringify(method === 'DELETE' ? {} : list))
    }
    await alice.devices.loadSignIns()
    expect(alice.devices.signIns).toHaveLength(2)
    await alice.devices.endSignIn('0b')
    expect(alice.devices.signIns).toMatchObject([{ id: '0a', device: 'Here', lastSeenMs: 2_000, current: true }])
    expect(calls).toEqual(['GET /auth/sessions', 'DELETE /auth/sessions/0b', 'GET /auth/sessions'])
  })
})

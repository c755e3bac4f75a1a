import { describe, expect, it } from 'vitest'
import { KeyRing, MAX_KEYS } from '@/crypto/keyRing'
import { encrypt, newRoomKey } from '@/crypto/roomKey'

describe('KeyRing', () => {
  it('reads with every key it ever had, guided by the id or not', async () => {
    const ring = new KeyRing()
    const [one, two] = [await newRoomKey(), await newRoomKey()]
    ring.put(one, true)
    ring.put(two, true)
    for (const keyId of [one.keyId, two.keyId, 'ffffffff', null]) {
      expect(await ring.read(await encrypt(one.key, 'old'), keyId)).toBe('old')
      expect(await ring.read(await encrypt(two.key, 'new'), keyId)).toBe('new')
    }
    expect(await ring.read(await encrypt((await newRoomKey()).key, 'x'), null)).toBeNull()
  })

  it('comes back as it was stored, without a writing key that it does not have', async () => {
    const ring = new KeyRing()
    const key = await newRoomKey()
    ring.put(key, true)
    const again = await KeyRing.load(ring.records, key.keyId)
    expect(again.sending).toMatchObject({ keyId: key.keyId, epoch: 1, trusted: true })
    expect((await KeyRing.load(ring.records, 'ffffffff')).sending).toBeNull()
    expect(again.has(key.keyId)).toBe(true)
  })

  it('counts on from the epoch of the key that writes', async () => {
    const ring = new KeyRing()
    const [first, second, third] = [await newRoomKey(), await newRoomKey(), await newRoomKey()]
    ring.take(first, 7, true)
    expect(ring.sending).toMatchObject({ keyId: first.keyId, epoch: 7 })
    ring.take(second, null, true)
    expect(ring.sending).toMatchObject({ keyId: second.keyId, epoch: 8 })
    ring.take(second, null, true)
    ring.take(first, null, true)
    expect(ring.sending).toMatchObject({ keyId: second.keyId, epoch: 8 })
    ring.put(third, true)
    expect(ring.sending).toMatchObject({ keyId: third.keyId, epoch: 9 })
  })

  it('does not take trust away from a key that somebody else sends again', async () => {
    const ring = new KeyRing()
    const key = await newRoomKey()
    ring.put(key, true)
    ring.take(key, null, false)
    expect(ring.sending).toMatchObject({ keyId: key.keyId, epoch: 1, trusted: true })
  })

  it('learns that the first key is the real one when a leader sends it', async () => {
    const ring = new KeyRing()
    const key = await newRoomKey()
    ring.take(key, 3, false)
    expect(ring.sending).toMatchObject({ trusted: false })
    ring.take(key, null, true)
    expect(ring.sending).toMatchObject({ keyId: key.keyId, epoch: 3, trusted: true })
  })

  it('takes over from another tab what is newer there', async () => {
    const [old, fresh] = [await newRoomKey(), await newRoomKey()]
    const [one, other] = [new KeyRing(), new KeyRing()]
    one.put(old, true)
    await other.merge(one.records, one.sending!.keyId)
    expect(other.sending).toMatchObject({ keyId: old.keyId, epoch: 1 })
    one.put(fresh, true)
    await other.merge(one.records, one.sending!.keyId)
    expect(other.sending).toMatchObject({ keyId: fresh.keyId, epoch: 2 })
    const stale = [{ jwk: old.jwk, epoch: 1, trusted: true }]
    await other.merge(stale, old.keyId)
    await other.merge(stale, null)
    expect(other.sending).toMatchObject({ keyId: fresh.keyId, epoch: 2 })
    await other.merge([{ jwk: fresh.jwk, epoch: 5, trusted: false }], fresh.keyId)
    expect(other.sending).toMatchObject({ keyId: fresh.keyId, epoch: 5, trusted: true })
    const strangers = await newRoomKey()
    await other.merge([{ jwk: strangers.jwk, epoch: 0, trusted: false }], fresh.keyId)
    expect(other.records.at(-1)).toEqual({ jwk: strangers.jwk, epoch: 0, trusted: false })
  })

  it('settles on one of two that two tabs made at once', async () => {
    const keys = [await newRoomKey(), await newRoomKey()].sort((one, other) => (one.keyId < other.keyId ? -1 : 1))
    const rings = [new KeyRing(), new KeyRing()] as const
    keys.forEach((key, at) => rings[at as 0 | 1].put(key, true))
    const [first, second] = [rings[0].records, rings[1].records]
    await rings[0].merge(second, keys[1]!.keyId)
    await rings[1].merge(first, keys[0]!.keyId)
    expect(rings.map((ring) => ring.sending!.keyId)).toEqual([keys[0]!.keyId, keys[0]!.keyId])
  })

  it('is pushed full by strangers without losing what matters', async () => {
    const ring = new KeyRing()
    const mine = [await newRoomKey(), await newRoomKey()]
    for (const key of mine) ring.put(key, true)
    for (let count = 0; count < MAX_KEYS + 5; count++) ring.take(await newRoomKey(), 99, false)
    expect(ring.records).toHaveLength(MAX_KEYS)
    expect(mine.every((key) => ring.has(key.keyId))).toBe(true)
    for (let count = 0; count < MAX_KEYS + 5; count++) ring.put(await newRoomKey(), true)
    expect(ring.records).toHaveLength(MAX_KEYS)
    expect(mine.some((key) => ring.has(key.keyId))).toBe(false)
    expect(ring.sending).not.toBeNull()
  })
})

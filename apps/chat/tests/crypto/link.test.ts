import { describe, expect, it } from 'vitest'
import { commitmentOf, linkCode, linkKey, newLinkPair, newNonce, newSecret, openParts, sealParts } from '@/crypto/link'
import { newPhrase, parsePhrase, phraseKey } from '@/crypto/phrase'
import { newSalt } from '@/crypto/password'
import { decrypt, encrypt } from '@/crypto/roomKey'

const ID = '0123456789abcdef'

describe('a link', () => {
  it('gives both devices the same code and the same key', async () => {
    const [one, other, nonce] = [await newLinkPair(), await newLinkPair(), newNonce()]
    const reveal = { key: one.publicKey, nonce }
    expect(await linkCode('there', ID, reveal, other.publicKey)).toMatch(/^\d{6}$/)
    expect(await linkCode('there', ID, reveal, other.publicKey)).toBe(
      await linkCode('there', ID, reveal, other.publicKey),
    )
    const keys = [await linkKey(ID, one, other.publicKey, null), await linkKey(ID, other, one.publicKey, null)]
    const sealed = await encrypt(keys[0]!, 'keys')
    expect(await decrypt(keys[1]!, sealed)).toBe('keys')
    const foreign = await linkKey('f'.repeat(16), other, one.publicKey, null)
    expect(await decrypt(foreign!, sealed)).toBeNull()
    expect(newSecret()).toMatch(/^[0-9a-f]{32}$/)
    const secret = newSecret()
    const scanned = [await linkKey(ID, one, other.publicKey, secret), await linkKey(ID, other, one.publicKey, secret)]
    expect(await decrypt(scanned[1]!, await encrypt(scanned[0]!, 'keys'))).toBe('keys')
    const guessed = await linkKey(ID, other, one.publicKey, newSecret())
    expect(await decrypt(guessed!, await encrypt(scanned[0]!, 'keys'))).toBeNull()
    expect(await decrypt(keys[1]!, await encrypt(scanned[0]!, 'keys'))).toBeNull()
  })

  it('has another code and another commitment if anything of it is exchanged', async () => {
    const [one, other, third] = [await newLinkPair(), await newLinkPair(), await newLinkPair()]
    const reveal = { key: one.publicKey, nonce: newNonce() }
    const code = await linkCode('there', ID, reveal, other.publicKey)
    const codes = await Promise.all([
      linkCode('there', ID, { ...reveal, nonce: newNonce() }, other.publicKey),
      linkCode('there', ID, { ...reveal, key: third.publicKey }, other.publicKey),
      linkCode('there', ID, reveal, third.publicKey),
      linkCode('there', 'f'.repeat(16), reveal, other.publicKey),
      linkCode('back', ID, reveal, other.publicKey),
    ])
    // One of a million is the same by chance.
    expect(codes.filter((each) => each === code).length).toBeLessThan(2)
    const commits = await Promise.all([
      commitmentOf(ID, reveal),
      commitmentOf(ID, { ...reveal, nonce: newNonce() }),
      commitmentOf(ID, { ...reveal, key: third.publicKey }),
      commitmentOf('f'.repeat(16), reveal),
    ])
    expect(new Set(commits).size).toBe(4)
    expect(commits[0]).toMatch(/^[0-9a-f]{64}$/)
  })

  it('has no key with a point that is not on the curve', async () => {
    const { publicKey } = await newLinkPair()
    expect(await linkKey(ID, await newLinkPair(), { ...publicKey, x: 'A'.repeat(43) }, null)).toBeNull()
  })
})

describe('parts', () => {
  it('carry a text of any length, and nothing else', async () => {
    const key = await phraseKey(['a'], newSalt())
    for (const text of ['', 'short', 'long '.repeat(15_000)]) {
      const parts = await sealParts(key, 'tag', text)
      expect(parts).toHaveLength(Math.max(1, Math.ceil(text.length / 30_000)))
      expect(parts.every((part) => part.text.length <= 48_000)).toBe(true)
      expect(await openParts(key, 'tag', parts)).toBe(text)
      expect(await openParts(key, 'other', parts)).toBeNull()
      expect(await openParts(key, 'tag', parts.slice(1))).toBeNull()
      expect(await openParts(key, 'tag', [...parts, parts[0]!])).toBeNull()
      expect(await openParts(await phraseKey(['b'], newSalt()), 'tag', parts)).toBeNull()
    }
    const [first, second] = await sealParts(key, 'tag', 'x'.repeat(40_000))
    expect(await openParts(key, 'tag', [second!, first!])).toBeNull()
  })
})

describe('a recovery phrase', () => {
  it('has twelve words, and is read however it is typed', async () => {
    const words = await newPhrase()
    expect(words).toHaveLength(12)
    expect(await parsePhrase(words.join(' '))).toEqual(words)
    expect(await parsePhrase(`  ${words.join(',\n').toUpperCase()}. `)).toEqual(words)
    expect(await newPhrase()).not.toEqual(words)
  })

  it('is one of BIP-39', async () => {
    const known = 'legal winner thank year wave sausage worth useful legal winner thank yellow'
    expect(await parsePhrase(known)).toEqual(known.split(' '))
    for (const wrong of [
      '',
      known.replace('yellow', 'zoo'),
      known.replace('legal', 'legall'),
      known.split(' ').slice(1).join(' '),
      'abandon '.repeat(23) + 'art',
    ])
      expect(await parsePhrase(wrong)).toBeNull()
  })

  it('gives the same key with the same salt only', async () => {
    const words = await newPhrase()
    const salt = newSalt()
    const sealed = await encrypt(await phraseKey(words, salt), 'keys')
    expect(await decrypt(await phraseKey(words, salt), sealed)).toBe('keys')
    expect(await decrypt(await phraseKey(words, newSalt()), sealed)).toBeNull()
    const key = await phraseKey(words, salt)
    expect(key.extractable).toBe(false)
  })
})

import { describe, expect, it } from 'vitest'
import { fromBase64, fromBase64Url, toBase64, toBase64Url, toHex, utf8 } from '@/crypto/bytes'
import { newExchangePair, publicJwkOf, unwrapRoomKey, wrapKeyFrom, wrapRoomKey } from '@/crypto/exchange'
import { fingerprintOf } from '@/crypto/fingerprint'
import { identityOf, newIdentityPairs } from '@/crypto/identity'
import { hashPassword, newSalt } from '@/crypto/password'
import { decrypt, encrypt, importRoomKey, newRoomKey, parseRoomKeyJwk } from '@/crypto/roomKey'
import { newSigningPair, sign, signedBytes, verify } from '@/crypto/signing'
import { parsePubkey, parseSigningKey, type PublicJwk } from '@/protocol/shapes'

describe('bytes', () => {
  it('writes base64 with and without the alphabet of URLs, also of long data', () => {
    const bytes = crypto.getRandomValues(new Uint8Array(50_000))
    expect(toBase64(bytes)).toBe(Buffer.from(bytes).toString('base64'))
    expect(fromBase64(toBase64(bytes))).toEqual(bytes)
    expect(toBase64Url(bytes)).toBe(Buffer.from(bytes).toString('base64url'))
    expect(fromBase64Url(toBase64Url(bytes))).toEqual(bytes)
  })
})

describe('room keys', () => {
  it('are JWKs of the known form', async () => {
    const { jwk, keyId } = await newRoomKey()
    expect(jwk).toEqual({
      kty: 'oct',
      alg: 'A256GCM',
      k: expect.stringMatching(/^[A-Za-z0-9_-]{43}$/) as string,
      ext: true,
      key_ops: ['encrypt', 'decrypt'],
    })
    const digest = await crypto.subtle.digest('SHA-256', fromBase64Url(jwk.k))
    expect(keyId).toBe(toHex(digest).slice(0, 8))
    expect((await importRoomKey(jwk)).keyId).toBe(keyId)
  })

  it('read what they wrote, with a fresh 12-byte iv and a 16-byte tag', async () => {
    const { key } = await newRoomKey()
    for (const text of ['', 'hello', '漢字 🎉'.repeat(500)]) {
      const sealed = await encrypt(key, text)
      expect(fromBase64(sealed.iv)).toHaveLength(12)
      expect(fromBase64(sealed.text)).toHaveLength(utf8(text).length + 16)
      expect(await decrypt(key, sealed)).toBe(text)
      expect((await encrypt(key, text)).iv).not.toBe(sealed.iv)
    }
  })

  it('read nothing else', async () => {
    const [{ key }, other] = [await newRoomKey(), await newRoomKey()]
    const sealed = await encrypt(key, 'secret')
    expect(await decrypt(other.key, sealed)).toBeNull()
    expect(await decrypt(key, { ...sealed, text: 'AAAA' + sealed.text.slice(4) })).toBeNull()
    expect(await decrypt(key, { text: '?', iv: '?' })).toBeNull()
  })

  it('are not taken from what is none', () => {
    for (const value of [
      null,
      7,
      {},
      { kty: 'EC', k: 'A'.repeat(43) },
      { kty: 'oct', k: 'short' },
      { kty: 'oct', k: 7 },
    ]) {
      expect(parseRoomKeyJwk(value)).toBeNull()
    }
  })
})

describe('the exchange', () => {
  it('derives the wrap key of the vector', async () => {
    const secret = Uint8Array.from({ length: 32 }, (_, at) => at)
    const key = await wrapKeyFrom(secret.buffer)
    expect(toHex(await crypto.subtle.exportKey('raw', key))).toBe(
      'a870301263153fbc6a8d98ed23dbb4777b80a9d638b2a8915d0af8c404d8f711',
    )
  })

  it('hands a room key to the one it is wrapped for, and to nobody else', async () => {
    const [alice, bob, carol] = [await newExchangePair(), await newExchangePair(), await newExchangePair()]
    const [aliceKey, bobKey] = [await publicJwkOf(alice.publicKey), await publicJwkOf(bob.publicKey)]
    const { jwk } = await newRoomKey()
    const wrapped = await wrapRoomKey(alice.privateKey, bobKey, jwk)
    expect(await unwrapRoomKey(bob.privateKey, aliceKey, wrapped!)).toEqual(jwk)
    expect(await unwrapRoomKey(carol.privateKey, aliceKey, wrapped!)).toBeNull()
  })

  it('writes public keys that the original reads, and never a private one', async () => {
    const { publicKey, privateKey } = await newExchangePair()
    const jwk = await publicJwkOf(publicKey)
    expect(Object.keys(jwk).sort()).toEqual(['crv', 'ext', 'key_ops', 'kty', 'x', 'y'])
    expect(parsePubkey({ publicKey: jwk, timestamp: 1 })).toEqual(jwk)
    await expect(crypto.subtle.exportKey('jwk', privateKey)).rejects.toThrow()
  })

  it('takes no point that is not on the curve, and no wrapped rubbish', async () => {
    const { publicKey, privateKey } = await newExchangePair()
    const off: PublicJwk = { ...(await publicJwkOf(publicKey)), x: 'A'.repeat(43) }
    const { jwk } = await newRoomKey()
    expect(await wrapRoomKey(privateKey, off, jwk)).toBeNull()
    expect(await unwrapRoomKey(privateKey, off, { text: '', iv: '' })).toBeNull()
  })
})

describe('fingerprints', () => {
  it('give the vector', async () => {
    const key: PublicJwk = {
      crv: 'P-256',
      ext: true,
      key_ops: [],
      kty: 'EC',
      x: 'MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4',
      y: '4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM',
    }
    expect(await fingerprintOf(key)).toBe(
      'fe9d 9259 5ed4 c196 299f ff2b 98e2 e319 1f97 3b42 8e4d d6e7 a36c d256 4b33 ec6f',
    )
  })
})

describe('passwords', () => {
  it('give the vector, salted by the text of the base64', async () => {
    expect(await hashPassword('correct horse', 'AAECAwQFBgcICQoLDA0ODw==')).toBe(
      'nvhthp9eCUNpOzvymfrv1iCmniVh/pcqRCHskX+2S74=',
    )
  })

  it('get a salt of 16 random bytes', () => {
    expect(fromBase64(newSalt())).toHaveLength(16)
    expect(newSalt()).not.toBe(newSalt())
  })
})

describe('signatures', () => {
  const signed = { text: 'hi', fromId: 'session', msgId: '1700000000000-abc123', timestamp: 1_700_000_000_000 }

  it('cover exactly the text, its session, its id and its time', () => {
    const { text, fromId, msgId, timestamp } = signed
    const reversed = { timestamp, msgId, fromId, text }
    expect(new TextDecoder().decode(signedBytes(reversed))).toBe(
      '{"text":"hi","fromId":"session","msgId":"1700000000000-abc123","timestamp":1700000000000}',
    )
  })

  it('are 88 characters that only the right key and text verify', async () => {
    const [own, other] = [await newSigningPair(), await newSigningPair()]
    const publicKey = await publicJwkOf(own.publicKey, ['verify'])
    const signature = await sign(own.privateKey, signed)
    expect(signature).toHaveLength(88)
    expect(await verify(publicKey, signed, signature)).toBe(true)
    expect(await verify(publicKey, { ...signed, text: 'ho' }, signature)).toBe(false)
    expect(await verify(await publicJwkOf(other.publicKey), signed, signature)).toBe(false)
    expect(await verify(publicKey, signed, '?')).toBe(false)
  })
})

describe('identities', () => {
  it('last as long as their stored pairs and cannot be exported', async () => {
    const pairs = await newIdentityPairs()
    const [one, again] = [await identityOf('u', pairs), await identityOf('u', pairs)]
    expect(again.fingerprint).toBe(one.fingerprint)
    expect(one.exchangeKey.extractable || one.signingKey.extractable).toBe(false)
    expect(parseSigningKey({ publicKey: one.signingPublicKey })).toEqual({ publicKey: one.signingPublicKey })
  })
})

/** The long-lived keys of one person in one browser. Kept as CryptoKeys that cannot be exported. */
import type { PublicJwk } from '@/protocol/shapes'
import { deviceIdOf } from './devices'
import { newExchangePair, publicJwkOf } from './exchange'
import { fingerprintOf } from './fingerprint'
import { newSigningPair } from './signing'

/** What is stored. */
export interface IdentityPairs {
  exchange: CryptoKeyPair
  signing: CryptoKeyPair
}

export interface Identity {
  userId: string
  exchangeKey: CryptoKey
  publicKey: PublicJwk
  fingerprint: string
  signingKey: CryptoKey
  signingPublicKey: PublicJwk
  /** The id of this browser among the devices of the account. */
  deviceId: string
}

export async function newIdentityPairs(): Promise<IdentityPairs> {
  return { exchange: await newExchangePair(), signing: await newSigningPair() }
}

export async function identityOf(userId: string, { exchange, signing }: IdentityPairs): Promise<Identity> {
  const publicKey = await publicJwkOf(exchange.publicKey)
  const signingPublicKey = await publicJwkOf(signing.publicKey, ['verify'])
  return {
    userId,
    exchangeKey: exchange.privateKey,
    publicKey,
    fingerprint: await fingerprintOf(publicKey),
    signingKey: signing.privateKey,
    signingPublicKey,
    deviceId: await deviceIdOf(signingPublicKey),
  }
}

/**
 * This browser among the devices of the account: its record, and the account key. The first device makes the account
 * key. A later one gets it from there; until then it writes its record without a signature, and nobody can verify what
 * it signs.
 */
import { newAccountPair, signDevice } from '@/crypto/devices'
import { publicJwkOf } from '@/crypto/exchange'
import { address } from '@/protocol/addresses'
import { asValue, parseAccount, parseDevice, type DeviceRecord } from '@/protocol/shapes'
import type { Runtime } from '../runtime'

const ACCOUNT_KEY = 'accountKey'
const SINCE = 'deviceSince'
const VERSION = 1

export class OwnDevice {
  constructor(private readonly runtime: Runtime) {}

  /** Publishes the account key, if there is none, and the record of this device; resolves with whether it is linked. */
  async publish(): Promise<boolean> {
    const { connection, self, identity } = this.runtime
    const { userId } = self
    const published = parseAccount(await connection.get(address.account(userId)))
    const pair = published ? await this.accountPair() : await this.makeAccount()
    const linked = pair !== null && (!published || (await publicJwkOf(pair.publicKey)).x === published.key.x)
    const record = await this.record()
    const sig = linked && pair ? await signDevice(pair.privateKey, userId, record) : null
    const before = parseDevice(await connection.get(address.device(userId, identity.deviceId)))
    // Signatures differ each time: a record that is signed already stays.
    const stays =
      before?.name === record.name && before.createdAt === record.createdAt && (before.sig !== null || !linked)
    if (!stays) await this.write(address.device(userId, identity.deviceId), { ...record, ...(sig && { sig }) })
    this.runtime.directory.forget(userId)
    return linked
  }

  /** The account key; null: it has not been handed to this device. */
  async accountPair(): Promise<CryptoKeyPair | null> {
    return ((await this.runtime.storage.value(ACCOUNT_KEY)) ?? null) as CryptoKeyPair | null
  }

  async takeAccount(pair: CryptoKeyPair): Promise<void> {
    await this.runtime.storage.putValue(ACCOUNT_KEY, pair)
    await this.publish()
  }

  private async makeAccount(): Promise<CryptoKeyPair> {
    const { platform, self } = this.runtime
    const pair = (await this.accountPair()) ?? (await newAccountPair())
    await this.runtime.storage.putValue(ACCOUNT_KEY, pair)
    const key = await publicJwkOf(pair.publicKey, ['verify'])
    await this.write(address.account(self.userId), { key, createdAt: platform.clock.now(), v: VERSION })
    return pair
  }

  private async record(): Promise<Omit<DeviceRecord, 'sig'>> {
    const { storage, platform, identity } = this.runtime
    const stored = await storage.value(SINCE)
    const createdAt = typeof stored === 'number' ? stored : platform.clock.now()
    if (stored !== createdAt) await storage.putValue(SINCE, createdAt)
    return { name: platform.deviceName, key: identity.signingPublicKey, exchange: identity.publicKey, createdAt }
  }

  private write(where: string, value: object): Promise<void> {
    return this.runtime.connection.set(where, asValue(value))
  }
}

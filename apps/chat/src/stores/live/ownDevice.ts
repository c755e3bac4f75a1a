/**
 * This browser among the devices of the account: its record, and the account key. The first device makes the account
 * key. A later one gets it from there; until then it writes its record without a signature, and nobody can verify what
 * it signs.
 */
import { newAccountPair, signDevice } from '@/crypto/devices'
import { publicJwkOf } from '@/crypto/exchange'
import { address } from '@/protocol/addresses'
import { asValue, parseAccount, parseDevice, wireOfDevice, type DeviceKeys, type DeviceRecord } from '@/protocol/shapes'
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
    const keys = await this.record()
    const session = await this.session()
    const before = parseDevice(await connection.get(address.device(userId, identity.deviceId)))
    const isSame = before?.name === keys.name && before.createdAt === keys.createdAt
    // Signatures differ each time: a record that is signed already stays.
    const isSigned = isSame && before.sig !== null
    if (!isSame || (linked && !isSigned) || before.session !== session || before.endedAt !== null) {
      const sig = isSigned ? before.sig : linked && pair ? await signDevice(pair.privateKey, userId, keys) : null
      await this.publishRecord(identity.deviceId, { ...keys, sig, session, endedAt: null })
    }
    this.runtime.directory.forget(userId)
    return linked
  }

  /** The own session in the list of the auth API, so that this device ends with it. */
  private async session(): Promise<string | null> {
    const { auth, token } = this.runtime
    // A relay without accounts lists none.
    const list = await auth.sessions(token ?? '').catch(() => [])
    return list.find(({ current }) => current)?.id ?? null
  }

  publishRecord(deviceId: string, record: DeviceRecord): Promise<void> {
    return this.write(address.device(this.runtime.self.userId, deviceId), wireOfDevice(record))
  }

  /** This browser signs out: what is signed with its keys from now on does not count. */
  async end(): Promise<void> {
    const { connection, self, identity } = this.runtime
    const where = address.device(self.userId, identity.deviceId)
    const endedAt = Math.round(connection.serverNow())
    const record = parseDevice(await connection.get(where))
    if (record) await connection.set(where, asValue(wireOfDevice({ ...record, endedAt })))
  }

  /** Makes a new account key in the place of one that is lost. Whoever believes the old one has to accept it. */
  async replaceAccount(): Promise<void> {
    const { platform, directory, storage, self } = this.runtime
    const pair = await newAccountPair()
    const account = { key: await publicJwkOf(pair.publicKey, ['verify']), createdAt: platform.clock.now() }
    await this.write(address.account(self.userId), { ...account, v: VERSION })
    await storage.putValue(ACCOUNT_KEY, pair)
    await directory.repin(self.userId, account)
    await this.publish()
  }

  /** The account key; null: it has not been handed to this device. */
  async accountPair(): Promise<CryptoKeyPair | null> {
    return ((await this.runtime.storage.value(ACCOUNT_KEY)) ?? null) as CryptoKeyPair | null
  }

  /** Takes the account key that another device or a backup vouches for, whatever the relay said before. */
  async takeAccount(pair: CryptoKeyPair): Promise<void> {
    const { storage, directory, self } = this.runtime
    await storage.putValue(ACCOUNT_KEY, pair)
    await directory.repin(self.userId, { key: await publicJwkOf(pair.publicKey, ['verify']), createdAt: 0 })
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

  private async record(): Promise<DeviceKeys> {
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

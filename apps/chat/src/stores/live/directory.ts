/**
 * Who has which devices: the account keys of users, pinned when they are first seen, and the devices that these keys
 * signed. It asks the relay, and remembers the answers.
 */
import { isDeviceOf } from '@/crypto/devices'
import { address } from '@/protocol/addresses'
import { parseAccount, parseDevice, type DeviceRecord, type PublicJwk } from '@/protocol/shapes'
import type { Runtime } from '../runtime'

/** Minimum time before something that was not there is asked for again. */
const REFETCH_MS = 30_000

interface Answer<T> {
  value: T | null
  askedAt: number
}

const pinName = (userId: string): string => `account ${userId}`

export class Directory {
  private readonly accounts = new Map<string, Promise<Answer<PublicJwk>>>()
  private readonly devices = new Map<string, Promise<Answer<DeviceRecord>>>()

  constructor(private readonly runtime: Runtime) {}

  clear(): void {
    this.accounts.clear()
    this.devices.clear()
  }

  /** Forgets what is known of a user, whose devices have changed. */
  forget(userId: string): void {
    this.accounts.delete(userId)
    for (const key of this.devices.keys()) if (key.startsWith(`${userId} `)) this.devices.delete(key)
  }

  /** The pinned account key of a user; null: they have none. */
  account(userId: string): Promise<PublicJwk | null> {
    return this.remembered(this.accounts, userId, () => this.askAccount(userId))
  }

  /** A device that the account key of its user has signed; null: there is no such device. */
  device(userId: string, deviceId: string): Promise<DeviceRecord | null> {
    return this.remembered(this.devices, `${userId} ${deviceId}`, () => this.askDevice(userId, deviceId))
  }

  private async remembered<T>(
    known: Map<string, Promise<Answer<T>>>,
    key: string,
    ask: () => Promise<T | null>,
  ): Promise<T | null> {
    const { clock } = this.runtime.platform
    const before = await known.get(key)
    if (before && (before.value !== null || clock.now() - before.askedAt < REFETCH_MS)) return before.value
    const askedAt = clock.now()
    const running = ask().then((value) => ({ value, askedAt }))
    known.set(key, running)
    try {
      return (await running).value
    } catch {
      // No connection: nothing is known, and the next question is asked again.
      known.delete(key)
      return null
    }
  }

  private async askAccount(userId: string): Promise<PublicJwk | null> {
    const { connection, storage } = this.runtime
    const pinned = parseAccount(await storage.value(pinName(userId)))
    if (pinned) return pinned.key
    const value = await connection.get(address.account(userId))
    const account = parseAccount(value)
    if (account) await storage.putValue(pinName(userId), { key: account.key, createdAt: account.createdAt })
    return account?.key ?? null
  }

  private async askDevice(userId: string, deviceId: string): Promise<DeviceRecord | null> {
    const account = await this.account(userId)
    const record = account && parseDevice(await this.runtime.connection.get(address.device(userId, deviceId)))
    return account && record && (await isDeviceOf(account, userId, deviceId, record)) ? record : null
  }
}

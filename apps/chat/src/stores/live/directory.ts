/**
 * Who has which devices: the account keys of users, pinned when they are first seen, and the devices that these keys
 * signed. It asks the relay, and remembers the answers.
 */
import { isDeviceOf } from '@/crypto/devices'
import { fingerprintOf } from '@/crypto/fingerprint'
import { address } from '@/protocol/addresses'
import { Failure, type FailureKind } from '@/protocol/errors'
import { parseAccount, parseDevice, type AccountRecord, type DeviceRecord, type PublicJwk } from '@/protocol/shapes'
import type { Runtime } from '../runtime'

/** Minimum time before something that was not there is asked for again. */
const REFETCH_MS = 30_000
/** How long the record of a device is believed: it may be signed out meanwhile. */
const MAX_AGE_MS = 600_000

interface Answer<T> {
  value: T | null
  askedAt: number
}

const pinName = (userId: string): string => `account ${userId}`

const PASSING: readonly unknown[] = ['offline', 'timeout', 'tooMany'] satisfies FailureKind[]

/** Whether a question that failed may be answered later. */
export const mayPass = (error: unknown): boolean => error instanceof Failure && PASSING.includes(error.kind)

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

  /** The pinned account key of a user; null: they have none, or the relay does not answer. */
  account(userId: string): Promise<PublicJwk | null> {
    return this.certainAccount(userId).catch(() => null)
  }

  /** As {@link account}; rejects if the relay does not answer. */
  certainAccount(userId: string): Promise<PublicJwk | null> {
    return this.remembered(this.accounts, userId, () => this.askAccount(userId))
  }

  /**
   * A device that the account key of its user has signed, and that is signed in; null: there is no such device, or
   * the relay does not answer.
   */
  async device(userId: string, deviceId: string): Promise<DeviceRecord | null> {
    const record = await this.known(userId, deviceId).catch(() => null)
    return record?.endedAt === null ? record : null
  }

  /**
   * A device that might sign in the name of its user at that time (ms), whether it is signed in now or not; rejects if
   * the relay does not answer.
   */
  async signer(userId: string, deviceId: string, at: number): Promise<DeviceRecord | null> {
    const record = await this.known(userId, deviceId)
    return record && (record.endedAt === null || at <= record.endedAt) ? record : null
  }

  private known(userId: string, deviceId: string): Promise<DeviceRecord | null> {
    return this.remembered(this.devices, `${userId} ${deviceId}`, () => this.askDevice(userId, deviceId), MAX_AGE_MS)
  }

  /** Believes another account key of a user from now on. */
  async repin(userId: string, account: AccountRecord): Promise<void> {
    await this.runtime.storage.putValue(pinName(userId), account)
    this.forget(userId)
  }

  private async remembered<T>(
    known: Map<string, Promise<Answer<T>>>,
    key: string,
    ask: () => Promise<T | null>,
    maxAgeMs = Infinity,
  ): Promise<T | null> {
    const { clock } = this.runtime.platform
    const before = await known.get(key)
    const ageMs = before ? clock.now() - before.askedAt : Infinity
    if (before && ageMs < (before.value === null ? REFETCH_MS : maxAgeMs)) return before.value
    const askedAt = clock.now()
    const running = ask().then((value) => ({ value, askedAt }))
    known.set(key, running)
    try {
      return (await running).value
    } catch (error) {
      // What was known before holds, and the next question is asked again.
      if (before?.value) known.set(key, Promise.resolve(before))
      else known.delete(key)
      if (!before?.value && mayPass(error)) throw error
      return before?.value ?? null
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
    const account = await this.certainAccount(userId)
    const record = account && parseDevice(await this.runtime.connection.get(address.device(userId, deviceId)))
    if (!account || !record) return null
    if (await isDeviceOf(account, userId, deviceId, record)) return record
    await this.lookForChange(userId, deviceId, account, record)
    return null
  }

  /** A device that another account key has signed: the user has made a new one, or somebody pretends to be that user. */
  private async lookForChange(
    userId: string,
    deviceId: string,
    pinned: PublicJwk,
    record: DeviceRecord,
  ): Promise<void> {
    const current = parseAccount(await this.runtime.connection.get(address.account(userId)))
    if (!current || current.key.x === pinned.x) return
    if (!(await isDeviceOf(current.key, userId, deviceId, record))) return
    const [oldFingerprint, newFingerprint] = await Promise.all([fingerprintOf(pinned), fingerprintOf(current.key)])
    this.runtime.emit('accountChanged', { userId, account: current, oldFingerprint, newFingerprint })
  }
}

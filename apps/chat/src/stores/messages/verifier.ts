/** Finds out who wrote an event, by the signatures of their devices, or by the original's signing keys. */
import { verifyEvent } from '@/crypto/devices'
import { fingerprintOf } from '@/crypto/fingerprint'
import { verify, type Signed } from '@/crypto/signing'
import { address } from '@/protocol/addresses'
import { parseSigningKey, type PublicJwk, type TextMessage } from '@/protocol/shapes'
import type { Proof, StoredEvent } from '@/storage/types'
import { mayPass } from '../live/directory'
import type { Runtime } from '../runtime'

/** Minimum time before a key that did not verify is fetched again. */
const REFETCH_MS = 30_000

interface Known {
  /** Newest last: the original app creates a key at every load, and older messages verify with older keys. */
  keys: PublicJwk[]
  fetchedAt: number
}

export class Verifier {
  private readonly known = new Map<string, Known>()
  private readonly fetching = new Map<string, Promise<Known>>()

  constructor(private readonly runtime: Runtime) {}

  clear(): void {
    this.known.clear()
    this.fetching.clear()
  }

  /** `pending`: the relay does not answer, or what is signed cannot be read yet. */
  async prove(roomId: string, entry: StoredEvent): Promise<Proof> {
    try {
      return await this.proveNow(roomId, entry)
    } catch (error) {
      if (mayPass(error)) return 'pending'
      throw error
    }
  }

  private async proveNow(roomId: string, { event, via, content, at }: StoredEvent): Promise<Proof> {
    const { userId, deviceId, sig2 } = event
    const shared = via === 'shared'
    if (userId === null) return 'unsigned'
    const { directory } = this.runtime
    const device = deviceId !== null && sig2 !== null ? await directory.signer(userId, deviceId, at) : null
    if (device && (await verifyEvent(device.key, roomId, event))) return 'verified'
    // Whose devices sign, of them nothing counts that is handed on without a signature.
    if (shared) return (await directory.certainAccount(userId)) ? 'denied' : 'unsigned'
    if (sig2 !== null) return 'unverified'
    if (event.kind !== 'message' || event.signature === null) return 'unsigned'
    return this.proveOriginal(userId, event, event.sealed ? content?.text : event.text)
  }

  private async proveOriginal(userId: string, event: TextMessage, text: string | undefined): Promise<Proof> {
    const { fromId, msgId, timestamp, signature } = event
    if (text === undefined || signature === null) return 'pending'
    const signed: Signed = { text, fromId, msgId, timestamp }
    const tryAll = async ({ keys }: Known): Promise<boolean> => {
      for (const key of keys) if (await verify(key, signed, signature)) return true
      return false
    }
    const first = this.known.get(userId) ?? (await this.fetch(userId))
    if (await tryAll(first)) return 'verified'
    const recent = this.runtime.platform.clock.now() - first.fetchedAt < REFETCH_MS
    const again = recent ? first : await this.fetch(userId)
    if (await tryAll(again)) return 'verified'
    return again.keys.length === 0 ? 'unsigned' : 'unverified'
  }

  private fetch(userId: string): Promise<Known> {
    const running = this.fetching.get(userId) ?? this.ask(userId).finally(() => this.fetching.delete(userId))
    this.fetching.set(userId, running)
    return running
  }

  private async ask(userId: string): Promise<Known> {
    const { connection, platform } = this.runtime
    const value = await connection.get(address.signingKey(userId)).catch((error: unknown) => {
      if (mayPass(error)) throw error
      return null
    })
    const found = parseSigningKey(value)?.publicKey
    const before = this.known.get(userId)?.keys ?? []
    const keys = found ? await withKey(before, found) : before
    const known = { keys, fetchedAt: platform.clock.now() }
    this.known.set(userId, known)
    return known
  }
}

async function withKey(keys: readonly PublicJwk[], key: PublicJwk): Promise<PublicJwk[]> {
  const mark = await fingerprintOf(key)
  const marks = await Promise.all(keys.map(fingerprintOf))
  return marks.includes(mark) ? [...keys] : [...keys, key]
}

/** Verifies signatures against the published signing keys. Messages are shown first and verified afterwards. */
import { fingerprintOf } from '@/crypto/fingerprint'
import { signedChange, verify, type Signed } from '@/crypto/signing'
import { address } from '@/protocol/addresses'
import { parseSigningKey, type ChangeMessage, type PublicJwk } from '@/protocol/shapes'
import type { StoredMessage } from '@/storage/types'
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

  async check(message: StoredMessage): Promise<StoredMessage['verification']> {
    const { signature, userId, sessionId, msgId } = message
    if (!signature || userId === null) return 'unsigned'
    const { text, timestamp, value } = signature
    return this.verify(userId, { text, fromId: sessionId, msgId, timestamp }, value)
  }

  /** Whether an edit or delete was signed by the person it names. */
  async proves(change: ChangeMessage): Promise<boolean> {
    const { userId, fromId, targetId, timestamp, signature } = change
    if (userId === null || signature === null) return false
    const covered = change.kind === 'edit' ? (change.sealed?.text ?? change.text) : ''
    const signed = { text: signedChange(change.kind, covered), fromId, msgId: targetId, timestamp }
    return (await this.verify(userId, signed, signature)) === 'verified'
  }

  private async verify(userId: string, signed: Signed, signature: string): Promise<'verified' | 'unsigned' | 'forged'> {
    const tryAll = async ({ keys }: Known): Promise<boolean> => {
      for (const key of keys) if (await verify(key, signed, signature)) return true
      return false
    }
    const first = this.known.get(userId) ?? (await this.fetch(userId))
    if (await tryAll(first)) return 'verified'
    const recent = this.runtime.platform.clock.now() - first.fetchedAt < REFETCH_MS
    const again = recent ? first : await this.fetch(userId)
    if (await tryAll(again)) return 'verified'
    return again.keys.length === 0 ? 'unsigned' : 'forged'
  }

  private fetch(userId: string): Promise<Known> {
    const running = this.fetching.get(userId) ?? this.ask(userId).finally(() => this.fetching.delete(userId))
    this.fetching.set(userId, running)
    return running
  }

  private async ask(userId: string): Promise<Known> {
    const { connection, platform } = this.runtime
    const value = await connection.get(address.signingKey(userId)).catch(() => null)
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

/**
 * All keys that a room ever had, as far as one got them: every one of them reads, one of them writes.
 *
 * A key becomes the one that writes only if none is held, or if the room's creator or an admin sent it and it is newer.
 * Everything else goes to the ring, where it can read and do no harm.
 */
import type { Sealed } from '@/protocol/shapes'
import { decrypt, importRoomKey, type RoomKey, type RoomKeyJwk } from './roomKey'

/** How many keys a ring keeps; a stranger who sends more pushes out only what strangers sent. */
export const MAX_KEYS = 64

/** A key as it is stored. */
export interface KeyRecord {
  jwk: RoomKeyJwk
  /** How many keys came before it, as far as its makers say. */
  epoch: number
  /** Made or sent by the creator or an admin. */
  trusted: boolean
}

export interface HeldKey extends RoomKey {
  readonly epoch: number
  readonly trusted: boolean
}

export class KeyRing {
  /** Oldest first. */
  private keys: HeldKey[] = []
  private writing: string | null = null

  static async load(records: readonly KeyRecord[], sendingKeyId: string | null): Promise<KeyRing> {
    const ring = new KeyRing()
    for (const { jwk, epoch, trusted } of records) ring.keys.push({ ...(await importRoomKey(jwk)), epoch, trusted })
    ring.writing = ring.keys.some((key) => key.keyId === sendingKeyId) ? sendingKeyId : null
    return ring
  }

  get records(): KeyRecord[] {
    return this.keys.map(({ jwk, epoch, trusted }) => ({ jwk, epoch, trusted }))
  }

  /** The key that writes. */
  get sending(): HeldKey | null {
    return this.keys.find((key) => key.keyId === this.writing) ?? null
  }

  has(keyId: string): boolean {
    return this.keys.some((key) => key.keyId === keyId)
  }

  /** Takes a key that oneself made. */
  put(key: RoomKey, trusted: boolean): void {
    this.store({ ...key, epoch: (this.sending?.epoch ?? 0) + 1, trusted })
    this.writing = key.keyId
  }

  /** Takes what another tab of the same browser has: all its keys, and the one that writes if it is newer. */
  async merge(records: readonly KeyRecord[], sendingKeyId: string | null): Promise<void> {
    for (const { jwk, epoch, trusted } of records) {
      const key = await importRoomKey(jwk)
      const known = this.keys.find((other) => other.keyId === key.keyId)
      if (!known || known.epoch < epoch || known.trusted !== trusted) {
        this.store({ ...key, epoch: Math.max(epoch, known?.epoch ?? 0), trusted: trusted || (known?.trusted ?? false) })
      }
    }
    const theirs = this.keys.find((key) => key.keyId === sendingKeyId)
    const held = this.sending
    if (!theirs || theirs === held) return
    const newer = !held || theirs.epoch > held.epoch || (theirs.epoch === held.epoch && theirs.keyId < held.keyId)
    if (newer) this.writing = theirs.keyId
  }

  /**
   * Takes a key that somebody sent.
   *
   * @param epoch as the sender says it; null: an old client, which does not.
   * @param trusted the creator or an admin sent it, with the key that is known to be theirs.
   */
  take(key: RoomKey, epoch: number | null, trusted: boolean): void {
    const held = this.sending
    const known = this.keys.find((other) => other.keyId === key.keyId)
    const becomesSending = held === null || (trusted && this.replaces(held, key.keyId, epoch, known !== undefined))
    const atLeast = becomesSending && held ? held.epoch + (held.keyId === key.keyId ? 0 : 1) : 0
    const settled = epoch ?? Math.max(known?.epoch ?? 0, atLeast)
    this.store({ ...key, epoch: settled, trusted: trusted || (known?.trusted ?? false) })
    if (becomesSending) this.writing = key.keyId
  }

  private replaces(held: HeldKey, keyId: string, epoch: number | null, known: boolean): boolean {
    // The first key may have come from anybody: what the creator or an admin sends then is the real one.
    if (!held.trusted) return true
    // An old client's key that was here before is an old key, sent again by somebody who was away.
    if (epoch === null) return !known
    // Two who rotate in the same moment: everybody settles on the same one of the two.
    return epoch === held.epoch ? keyId < held.keyId : epoch > held.epoch
  }

  private store(key: HeldKey): void {
    this.keys = [...this.keys.filter((other) => other.keyId !== key.keyId), key]
    if (this.keys.length <= MAX_KEYS) return
    const spare = this.keys.find((other) => !other.trusted && other.keyId !== this.writing)
    const victim = spare ?? this.keys.find((other) => other.keyId !== this.writing)
    this.keys = this.keys.filter((other) => other !== victim)
  }

  /** The text; null: none of the keys reads it. */
  async read(sealed: Sealed, keyId: string | null): Promise<string | null> {
    const newestFirst = [...this.keys].reverse()
    const order = [
      ...newestFirst.filter((key) => key.keyId === keyId),
      ...newestFirst.filter((key) => key.keyId !== keyId),
    ]
    for (const { key } of order) {
      const text = await decrypt(key, sealed)
      if (text !== null) return text
    }
    return null
  }
}

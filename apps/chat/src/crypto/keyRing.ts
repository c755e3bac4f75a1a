/**
 * All received keys of a room: each of them decrypts, and one of them, the sending key, encrypts.
 *
 * A key becomes the sending key only if there is none, or if it is newer and the room's creator or an admin sent it.
 * All other keys only decrypt, which does no harm.
 */
import type { Sealed } from '@/protocol/shapes'
import { decrypt, importRoomKey, type RoomKey, type RoomKeyJwk } from './roomKey'

/** The most keys in a ring; keys from untrusted senders are dropped first. */
export const MAX_KEYS = 64

/** A key as it is stored. */
export interface KeyRecord {
  jwk: RoomKeyJwk
  /** Number of keys before it, as its creators claim. */
  epoch: number
  /** Created or sent by the room's creator or an admin. */
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

  /** The sending key. */
  get sending(): HeldKey | null {
    return this.keys.find((key) => key.keyId === this.writing) ?? null
  }

  has(keyId: string): boolean {
    return this.keys.some((key) => key.keyId === keyId)
  }

  /** Adds a key that this user created, and sends with it. */
  put(key: RoomKey, trusted: boolean): void {
    this.store({ ...key, epoch: (this.sending?.epoch ?? 0) + 1, trusted })
    this.writing = key.keyId
  }

  /** Merges the keys of another tab, and takes its sending key if that is newer. */
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
   * Adds a key that a member sent.
   *
   * @param epoch the number of keys before it, as the sender claims; null: sent by the original app.
   * @param trusted whether the creator or an admin sent it, with their accepted exchange key.
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

  /** The keys with these ids, oldest first. */
  keysFor(keyIds: ReadonlySet<string | null>): RoomKeyJwk[] {
    return this.keys.filter((key) => keyIds.has(key.keyId)).map((key) => key.jwk)
  }

  /** Adds old keys, which only decrypt and are dropped first; resolves with whether there was a new one. */
  async learn(jwks: readonly RoomKeyJwk[]): Promise<boolean> {
    const keys = await Promise.all(jwks.map(importRoomKey))
    const fresh = keys.filter((key) => !this.has(key.keyId)).map((key) => ({ ...key, epoch: 0, trusted: false }))
    const room = MAX_KEYS - this.keys.length
    this.keys = [...fresh.slice(0, Math.max(0, room)), ...this.keys]
    return fresh.length > 0 && room > 0
  }

  private replaces(held: HeldKey, keyId: string, epoch: number | null, known: boolean): boolean {
    // The first key may come from anybody: a key from the creator or an admin replaces it.
    if (!held.trusted) return true
    // A known key from the original app is an old key, sent again by a member who was away.
    if (epoch === null) return !known
    // Two keys created at the same time: all members choose the same one of the two.
    return epoch === held.epoch ? keyId < held.keyId : epoch > held.epoch
  }

  private store(key: HeldKey): void {
    this.keys = [...this.keys.filter((other) => other.keyId !== key.keyId), key]
    if (this.keys.length <= MAX_KEYS) return
    const spare = this.keys.find((other) => !other.trusted && other.keyId !== this.writing)
    const victim = spare ?? this.keys.find((other) => other.keyId !== this.writing)
    this.keys = this.keys.filter((other) => other !== victim)
  }

  /** Decrypts a text; null: no key fits. */
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

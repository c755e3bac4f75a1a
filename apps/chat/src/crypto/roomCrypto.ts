/**
 * Decides who gets which key of a room, and whether a message may be sent in plain text.
 *
 * One state machine per room: events in, effects out, without network, storage or clock. Events are processed one after
 * the other, so that none can arrive between two steps. A room that was encrypted once never sends plain text again,
 * whatever its meta says later; a room whose meta was not received since the connection was made sends nothing at all.
 */
import type { Random } from '@/protocol/clock'
import { Failure } from '@/protocol/errors'
import type { Keyex, PublicJwk, Sealed } from '@/protocol/shapes'
import { unwrapRoomKey, wrapRoomKey } from './exchange'
import { fingerprintOf } from './fingerprint'
import type { Identity } from './identity'
import { KeyRing, type HeldKey, type KeyRecord } from './keyRing'
import { encrypt, importRoomKey, newRoomKey, type RoomKey, type RoomKeyJwk } from './roomKey'

/** `waiting`: encrypted, and the key has not arrived yet. */
export type EncryptionState = 'unknown' | 'off' | 'waiting' | 'ready'

/** What is stored of a room's encryption. */
export interface RoomCryptoRecord {
  encrypted: boolean
  keys: KeyRecord[]
  sendingKeyId: string | null
  /** Accepted fingerprints by user id. The first one is accepted automatically. */
  pins: Record<string, string[]>
  /** Known members: whoever of them has left meanwhile still has the key, and it must be replaced. */
  enrolled: string[]
  /** Fingerprints that somebody accepted, though no account vouches for them. */
  believed?: string[]
}

/** A key that only decrypts until its sender is believed, or a second member sends it. */
interface DoubtfulKey {
  key: RoomKey
  epoch: number | null
  fromId: string
  fingerprint: string
}

export type CryptoEvent =
  | { type: 'meta'; meta: { encrypted: boolean; creatorId: string | null; passwordSalt: string | null } | null }
  | { type: 'disconnected' }
  /** From now on nothing is heard of who is here. */
  | { type: 'asleep' }
  /** Everything that was set when this user came inside has arrived: the list of members is complete. */
  | { type: 'complete' }
  | { type: 'admin'; userId: string; admin: boolean }
  | { type: 'presence'; userId: string; present: boolean }
  | { type: 'ban'; userId: string; banned: boolean }
  | { type: 'member'; userId: string; member: boolean }
  /** `live`: written just now, not part of a snapshot. */
  | { type: 'pubkey'; userId: string; publicKey: PublicJwk; live: boolean }
  | { type: 'proof'; userId: string; given: boolean }
  /** `doubtful`: the sender has an account, and the key was wrapped by none of its devices that the account signed. */
  | { type: 'keyex'; keyex: Keyex; doubtful: boolean }
  /** This user turns encryption on. */
  | { type: 'create' }
  /** This user excludes somebody: by a ban, a kick or a new password. */
  | { type: 'rotate'; without: readonly string[] }
  /** A message arrived that no key of the ring decrypts. */
  | { type: 'unreadable' }
  | { type: 'accept'; userId: string; fingerprint: string }
  | { type: 'timer'; name: string }
  /** A member handed on history, and the old keys that decrypt it. They decrypt, and never encrypt. */
  | { type: 'learn'; keys: readonly RoomKeyJwk[] }
  /** Another tab of this browser stored something. */
  | { type: 'sync'; record: RoomCryptoRecord }

export type CryptoEffect =
  | { type: 'publishPubkey'; value: { publicKey: PublicJwk } }
  | { type: 'sendKeyex'; peer: string; value: KeyexValue }
  | { type: 'store'; record: RoomCryptoRecord }
  | { type: 'timer'; name: string; delayMs: number }
  | { type: 'state'; state: EncryptionState }
  /** New keys arrived: messages that were unreadable may be readable now. */
  | { type: 'keysArrived' }
  /** `oldFingerprint` is '' where no other key was known, and the new one is doubtful. */
  | { type: 'keyChanged'; userId: string; oldFingerprint: string; newFingerprint: string }

export interface KeyexValue {
  fromId: string
  encryptedKey: string
  iv: string
  senderPublicKey: PublicJwk
  epoch: number
  keyId: string
  deviceId: string
}

/** A text for sending: encrypted, or plain in a room without encryption. */
export type Closed = { clear: string } | ({ keyId: string; epoch: number } & Sealed)

const ANSWER_MIN_MS = 300
const ANSWER_SPREAD_MS = 700
const ASK_MIN_MS = 500
const ASK_SPREAD_MS = 1_500
/** Minimum time between two requests for the key. */
const ASK_PAUSE_MS = 15_000
/** Minimum time between two answers with the same key to the same peer. */
const ANSWER_PAUSE_MS = 20_000
const MAX_DOUBTFUL = 16

interface Peer {
  publicKey: PublicJwk
  fingerprint: string
  /** The last answer: the peer's fingerprint and the id of the key sent. */
  answered: string | null
  /** Enough time has passed since the answer: another request is answered again. */
  mayRepeat: boolean
  pending: boolean
  /** The peer sent a key itself while our answer was delayed. */
  hasKey: boolean
}

export class RoomCrypto {
  private mode: 'unknown' | 'off' | 'on'
  private announced: EncryptionState | null = null
  private creatorId: string | null = null
  private passwordSalt: string | null | undefined = undefined
  private readonly admins = new Set<string>()
  private readonly present = new Set<string>()
  private readonly banned = new Set<string>()
  private readonly members = new Set<string>()
  private readonly proofs = new Set<string>()
  private readonly peers = new Map<string, Peer>()
  private readonly leaving = new Set<string>()
  private doubtful: DoubtfulKey[] = []
  private asking: 'no' | 'soon' | 'paused' = 'no'
  private missesKey = false
  private effects: CryptoEffect[] = []
  private tail: Promise<unknown> = Promise.resolve()

  private constructor(
    private readonly identity: Identity,
    private readonly random: Random,
    private readonly ring: KeyRing,
    private readonly pins: Map<string, string[]>,
    private readonly enrolled: Set<string>,
    private readonly believed: Set<string>,
    private encrypted: boolean,
  ) {
    this.mode = encrypted ? 'on' : 'unknown'
  }

  static async load(identity: Identity, random: Random, record: RoomCryptoRecord | null): Promise<RoomCrypto> {
    const ring = await KeyRing.load(record?.keys ?? [], record?.sendingKeyId ?? null)
    const pins = new Map(Object.entries(record?.pins ?? {}))
    const [enrolled, believed] = [new Set(record?.enrolled), new Set(record?.believed)]
    return new RoomCrypto(identity, random, ring, pins, enrolled, believed, record?.encrypted ?? false)
  }

  get state(): EncryptionState {
    if (this.mode !== 'on') return this.mode
    return this.ring.sending ? 'ready' : 'waiting'
  }

  /** The accepted fingerprints of a user, newest last. */
  fingerprints(userId: string): readonly string[] {
    return this.pins.get(userId) ?? []
  }

  /** Processes an event; resolves with its effects. */
  handle(event: CryptoEvent): Promise<CryptoEffect[]> {
    const result = this.tail.then(() => this.step(event))
    this.tail = result
    return result
  }

  /**
   * Encrypts texts for sending. Rejects with `waitingForKey` if they can be neither encrypted nor sent in plain text.
   * `guard` tells, right before sending, whether the result may still be sent.
   */
  async close(texts: readonly string[]): Promise<{ closed: Closed[]; guard: () => boolean }> {
    if (this.mode === 'off') return { closed: texts.map((clear) => ({ clear })), guard: () => this.mode === 'off' }
    const key = this.mode === 'on' ? this.ring.sending : null
    if (!key) throw new Failure('waitingForKey', 'no room key yet')
    const { keyId, epoch } = key
    const sealed = await Promise.all(texts.map((text) => encrypt(key.key, text)))
    const guard = (): boolean => this.mode === 'on' && this.ring.sending?.keyId === keyId
    return { closed: sealed.map((each) => ({ keyId, epoch, ...each })), guard }
  }

  /** The keys with these ids, newest last. */
  keysFor(keyIds: ReadonlySet<string | null>): RoomKeyJwk[] {
    return this.ring.keysFor(keyIds)
  }

  /** Decrypts a text; null: no key of the room fits. */
  open(sealed: Sealed, keyId: string | null): Promise<string | null> {
    return this.ring.read(sealed, keyId)
  }

  private async step(event: CryptoEvent): Promise<CryptoEffect[]> {
    this.effects = []
    await this.apply(event)
    if (this.announced !== this.state) {
      this.announced = this.state
      this.effects.push({ type: 'state', state: this.state })
    }
    return this.effects
  }

  private async apply(event: CryptoEvent): Promise<void> {
    switch (event.type) {
      case 'meta':
        return this.takeMeta(event.meta)
      case 'disconnected':
        return this.disconnect()
      case 'asleep':
        return this.forgetPeople()
      case 'complete':
        return this.audit()
      case 'admin':
        return mark(this.admins, event.userId, event.admin)
      case 'presence':
        return this.takePresence(event.userId, event.present)
      case 'ban':
        return mark(this.banned, event.userId, event.banned)
      case 'member':
        return this.takeMember(event.userId, event.member)
      case 'pubkey':
        return this.takePubkey(event.userId, event.publicKey, event.live)
      case 'proof':
        mark(this.proofs, event.userId, event.given)
        return this.consider(event.userId)
      case 'keyex':
        return this.takeKeyex(event.keyex, event.doubtful)
      case 'create':
        return this.create()
      case 'rotate':
        return this.rotate(event.without)
      case 'unreadable':
        return this.takeUnreadable()
      case 'accept':
        return this.accept(event.userId, event.fingerprint)
      case 'timer':
        return this.takeTimer(event.name)
      case 'learn':
        if (await this.ring.learn(event.keys)) this.store()
        return
      case 'sync':
        return this.sync(event.record)
    }
  }

  // --- the room ---

  private takeMeta(meta: (CryptoEvent & { type: 'meta' })['meta']): void {
    this.creatorId = meta?.creatorId ?? this.creatorId
    const salt = meta?.passwordSalt ?? null
    // A new password invalidates all proofs, and the presence of those who proved the old one.
    if (this.passwordSalt !== undefined && salt !== null && salt !== this.passwordSalt) {
      this.proofs.clear()
      this.present.clear()
    }
    this.passwordSalt = salt
    if (meta?.encrypted && !this.encrypted) {
      this.encrypted = true
      this.store()
    }
    this.mode = this.encrypted ? 'on' : 'off'
    if (this.state === 'waiting') this.ask()
    this.considerAll()
  }

  private disconnect(): void {
    // Presence and the encryption state of an open room are known only while connected.
    if (this.mode === 'off') this.mode = 'unknown'
    this.asking = 'no'
    this.forgetPeople()
  }

  private forgetPeople(): void {
    this.present.clear()
    this.members.clear()
    for (const peer of this.peers.values()) peer.pending = false
  }

  private takePresence(userId: string, present: boolean): void {
    mark(this.present, userId, present)
    const peer = this.peers.get(userId)
    // A peer that leaves and returns may have missed the answer.
    if (!present && peer) peer.answered = null
    this.consider(userId)
  }

  private takeMember(userId: string, member: boolean): void {
    mark(this.members, userId, member)
    if (member === this.enrolled.has(userId)) return
    mark(this.enrolled, userId, member)
    this.store()
    if (!member) this.takeLeave(userId)
  }

  /** A member left for good and still has the key: one of the remaining members replaces it. */
  private takeLeave(userId: string): void {
    if (userId === this.identity.userId) return
    this.peers.delete(userId)
    this.present.delete(userId)
    if (!this.leads() || !this.ring.sending || this.mode !== 'on') return
    if (this.leaving.size === 0) this.effects.push({ type: 'timer', name: 'leave', delayMs: this.answerDelay() })
    this.leaving.add(userId)
  }

  /** Whether this user replaces the key: the creator, or else the first admin present. */
  private leads(): boolean {
    const me = this.identity.userId
    if (me === this.creatorId) return true
    if (!this.admins.has(me) || (this.creatorId !== null && this.present.has(this.creatorId))) return false
    return ![...this.admins].some((admin) => admin < me && this.present.has(admin))
  }

  private isLeader(userId: string): boolean {
    return userId === this.creatorId || this.admins.has(userId)
  }

  // --- requesting ---

  private ask(): void {
    if (this.asking === 'paused') return
    this.asking = 'paused'
    this.effects.push({ type: 'publishPubkey', value: { publicKey: this.identity.publicKey } })
    this.effects.push({ type: 'timer', name: 'ask', delayMs: ASK_PAUSE_MS })
  }

  private takeUnreadable(): void {
    this.missesKey = true
    if (this.asking !== 'no') return
    this.asking = 'soon'
    this.effects.push({ type: 'timer', name: 'askSoon', delayMs: ASK_MIN_MS + this.random() * ASK_SPREAD_MS })
  }

  // --- answering ---

  private async takePubkey(userId: string, publicKey: PublicJwk, live: boolean): Promise<void> {
    const fingerprint = await fingerprintOf(publicKey)
    // Ignore the echo of the own key; another key at this address belongs to another device of the same user.
    if (fingerprint === this.identity.fingerprint) return
    this.notePin(userId, fingerprint)
    const known = this.peers.get(userId)
    if (known?.fingerprint !== fingerprint) {
      const fresh = { publicKey, fingerprint, answered: null, mayRepeat: false, pending: false, hasKey: false }
      this.peers.set(userId, fresh)
    } else if (live && known.mayRepeat) {
      known.answered = null
    }
    this.consider(userId)
  }

  private notePin(userId: string, fingerprint: string): void {
    const pinned = this.fingerprints(userId)
    if (pinned.includes(fingerprint)) return
    const oldFingerprint = pinned.at(-1) ?? (userId === this.identity.userId ? this.identity.fingerprint : null)
    if (oldFingerprint !== null) {
      this.effects.push({ type: 'keyChanged', userId, oldFingerprint, newFingerprint: fingerprint })
      return
    }
    this.pins.set(userId, [fingerprint])
    this.store()
  }

  private accept(userId: string, fingerprint: string): void {
    this.pins.set(userId, [...this.fingerprints(userId).filter((pin) => pin !== fingerprint), fingerprint])
    this.believed.add(fingerprint)
    this.believe((each) => each.fromId === userId && each.fingerprint === fingerprint)
    this.store()
    this.consider(userId)
  }

  private considerAll(): void {
    for (const userId of this.peers.keys()) this.consider(userId)
  }

  /**
   * Whether a user may have the key: present, not banned, with a password proof where one is required, and with an
   * exchange key that is accepted: whoever replaced it may be somebody else.
   */
  private mayHave(userId: string): boolean {
    if (this.banned.has(userId)) return false
    if (userId === this.identity.userId) return true
    const peer = this.peers.get(userId)
    if (peer && !this.fingerprints(userId).includes(peer.fingerprint)) return false
    if (!this.present.has(userId)) return false
    return !this.passwordSalt || userId === this.creatorId || this.proofs.has(userId)
  }

  private answerMark(peer: Peer, key: HeldKey): string {
    return `${peer.fingerprint} ${key.keyId}`
  }

  /** Plans an answer to a public key. In the delay, another member may answer, or the own key may change. */
  private consider(userId: string): void {
    const peer = this.peers.get(userId)
    const key = this.mode === 'on' ? this.ring.sending : null
    if (!peer || !key || peer.pending || !this.mayHave(userId) || peer.answered === this.answerMark(peer, key)) return
    peer.pending = true
    peer.hasKey = false
    this.effects.push({ type: 'timer', name: `answer ${userId}`, delayMs: this.answerDelay() })
  }

  private answerDelay(): number {
    return ANSWER_MIN_MS + this.random() * ANSWER_SPREAD_MS
  }

  private async answer(userId: string): Promise<void> {
    const peer = this.peers.get(userId)
    if (!peer?.pending) return
    peer.pending = false
    const key = this.ring.sending
    if (peer.hasKey || !key || !this.mayHave(userId)) return
    await this.sendKey(userId, peer, key)
  }

  private async sendKey(userId: string, peer: Peer, key: HeldKey): Promise<void> {
    peer.answered = this.answerMark(peer, key)
    peer.mayRepeat = false
    const wrapped = await wrapRoomKey(this.identity.exchangeKey, peer.publicKey, key.jwk)
    if (!wrapped) return
    const value: KeyexValue = {
      fromId: this.identity.userId,
      encryptedKey: wrapped.text,
      iv: wrapped.iv,
      senderPublicKey: this.identity.publicKey,
      epoch: key.epoch,
      keyId: key.keyId,
      deviceId: this.identity.deviceId,
    }
    this.effects.push({ type: 'sendKeyex', peer: userId, value })
    this.effects.push({ type: 'timer', name: `repeat ${userId}`, delayMs: ANSWER_PAUSE_MS })
  }

  // --- keys ---

  private async takeKeyex(keyex: Keyex, doubtful: boolean): Promise<void> {
    const { fromId, senderPublicKey, encryptedKey, iv, epoch, keyId } = keyex
    if (this.banned.has(fromId)) return
    const jwk = await unwrapRoomKey(this.identity.exchangeKey, senderPublicKey, { text: encryptedKey, iv })
    const key = jwk && (await importRoomKey(jwk))
    if (!key || (keyId !== null && keyId !== key.keyId)) return
    const fingerprint = await fingerprintOf(senderPublicKey)
    const peer = this.peers.get(fromId)
    if (peer) peer.hasKey = true
    const arrived = { key, epoch, fromId, fingerprint }
    if (!doubtful || this.believed.has(fingerprint)) {
      this.notePin(fromId, fingerprint)
      this.take(arrived)
    } else {
      await this.doubt(arrived)
    }
    this.missesKey = false
    this.store()
    this.effects.push({ type: 'keysArrived' })
    this.considerAll()
  }

  private take({ key, epoch, fromId, fingerprint }: DoubtfulKey): void {
    const trusted = this.isLeader(fromId) && this.fingerprints(fromId).includes(fingerprint)
    this.ring.take(key, epoch, trusted)
    this.doubtful = this.doubtful.filter((each) => each.key.keyId !== key.keyId)
  }

  /** A key that nobody vouches for decrypts, and is sent with only after a second member sent it, or it was accepted. */
  private async doubt(arrived: DoubtfulKey): Promise<void> {
    const { key, fromId, fingerprint } = arrived
    await this.ring.learn([key.jwk])
    if (this.ring.sending?.keyId === key.keyId) return
    const isConfirmed = this.doubtful.some((each) => each.key.keyId === key.keyId && each.fromId !== fromId)
    this.doubtful = [...this.doubtful.slice(1 - MAX_DOUBTFUL), arrived]
    if (isConfirmed) return this.believe((each) => each.key.keyId === key.keyId)
    const oldFingerprint = this.fingerprints(fromId).findLast((pin) => pin !== fingerprint) ?? ''
    this.effects.push({ type: 'keyChanged', userId: fromId, oldFingerprint, newFingerprint: fingerprint })
  }

  private believe(which: (key: DoubtfulKey) => boolean): void {
    for (const each of this.doubtful.filter(which)) this.take(each)
  }

  /** Merges what another tab has stored. */
  private async sync(record: RoomCryptoRecord): Promise<void> {
    if (record.encrypted) {
      this.encrypted = true
      this.mode = 'on'
    }
    await this.ring.merge(record.keys, record.sendingKeyId)
    for (const [userId, pins] of Object.entries(record.pins)) this.pins.set(userId, pins)
    for (const userId of record.enrolled) this.enrolled.add(userId)
    for (const fingerprint of record.believed ?? []) this.believed.add(fingerprint)
    this.effects.push({ type: 'keysArrived' })
    this.considerAll()
  }

  private async create(): Promise<void> {
    this.encrypted = true
    this.mode = 'on'
    if (!this.ring.sending) this.ring.put(await newRoomKey(), true)
    this.store()
    this.effects.push({ type: 'publishPubkey', value: { publicKey: this.identity.publicKey } })
    this.considerAll()
  }

  /**
   * Creates a new key and sends it to all who may have it. The own public key is not published again: members would
   * answer it with the old key.
   */
  private async rotate(without: readonly string[]): Promise<void> {
    for (const userId of without) {
      this.peers.delete(userId)
      this.present.delete(userId)
      this.proofs.delete(userId)
    }
    if (this.mode !== 'on' || !this.ring.sending || !this.isLeader(this.identity.userId)) return
    this.ring.put(await newRoomKey(), true)
    this.store()
    this.effects.push({ type: 'keysArrived' })
    for (const [userId, peer] of this.peers) {
      peer.pending = false
      if (this.mayHave(userId)) await this.sendKey(userId, peer, this.ring.sending)
    }
  }

  private async takeTimer(name: string): Promise<void> {
    const [kind, userId = ''] = name.split(' ')
    if (kind === 'answer') return this.answer(userId)
    if (kind === 'repeat') {
      const peer = this.peers.get(userId)
      if (peer) peer.mayRepeat = true
    } else if (kind === 'leave') {
      const without = [...this.leaving]
      this.leaving.clear()
      if (without.length > 0) await this.rotate(without)
    } else {
      this.takeAskTimer(kind as string)
    }
  }

  private takeAskTimer(kind: string): void {
    if (kind === 'askSoon' && this.asking !== 'soon') return
    this.asking = 'no'
    if (this.state === 'waiting' || this.missesKey) this.ask()
  }

  /** Known members that are no longer listed have left during an absence. */
  private audit(): void {
    // Without the own entry the list is none: the connection was lost again, or the relay keeps no members.
    if (!this.members.has(this.identity.userId)) return
    for (const userId of [...this.enrolled]) if (!this.members.has(userId)) this.takeMember(userId, false)
  }

  private store(): void {
    const record: RoomCryptoRecord = {
      encrypted: this.encrypted,
      keys: this.ring.records,
      sendingKeyId: this.ring.sending?.keyId ?? null,
      pins: Object.fromEntries(this.pins),
      enrolled: [...this.enrolled],
      believed: [...this.believed],
    }
    // Only the last state of a step is stored.
    this.effects = [...this.effects.filter((effect) => effect.type !== 'store'), { type: 'store', record }]
  }
}

function mark(set: Set<string>, item: string, on: boolean): void {
  if (on) set.add(item)
  else set.delete(item)
}

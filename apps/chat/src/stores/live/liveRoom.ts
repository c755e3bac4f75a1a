/**
 * A joined room while the app runs: announces presence, holds the subscriptions, and connects the room's encryption to
 * the relay and the storage. It knows no store; stores receive its events.
 */
import { RoomCrypto, type CryptoEffect, type CryptoEvent, type EncryptionState } from '@/crypto/roomCrypto'
import { fingerprintOf } from '@/crypto/fingerprint'
import type { Identity } from '@/crypto/identity'
import { address, parseAddress, pattern, type Place } from '@/protocol/addresses'
import type { Clock, Random } from '@/protocol/clock'
import type { Connection, Update } from '@/protocol/connection'
import { Failure } from '@/protocol/errors'
import * as shapes from '@/protocol/shapes'
import type { UserStorage } from '@/storage/storage'
import type { RoomAccess } from '../types'

/** A presence that was not renewed for this long is stale. */
export const STALE_MS = 25_000
/** How long the relay keeps a presence that is not renewed. */
export const PRESENCE_TTL_S = 60
/** A presence older than this expired, and was not removed by a moderator. */
const EXPIRY_MS = 45_000
/** Time to live of the presence of a closing page, in which another device of the same user can renew it. */
const CLOSING_TTL_S = 2

export interface Self {
  userId: string
  name: string
  color: string
  status: shapes.Status
}

export interface LiveRoomContext {
  connection: Connection
  storage: () => UserStorage
  identity: Identity
  clock: Clock
  random: Random
  self: () => Self
  emit: (event: RoomEvent) => void
  /** A device that the account of its user has signed. */
  device: (userId: string, deviceId: string) => Promise<shapes.DeviceRecord | null>
  /** Whether a user has an account key, which signs devices. */
  hasAccount: (userId: string) => Promise<boolean>
  /** Something happened for which the room has to know more than it hears asleep. */
  wake: (roomId: string) => void
  /** The encryption of this room was stored: other tabs are to read it. */
  share: (roomId: string) => void
}

export type RoomEvent =
  | { type: 'update'; roomId: string; place: Place; update: Update }
  | { type: 'meta'; roomId: string; meta: shapes.RoomMeta | null; live: boolean }
  | { type: 'access'; roomId: string; access: RoomAccess; failure: Failure | null }
  | { type: 'encryption'; roomId: string; state: EncryptionState }
  | { type: 'keysArrived'; roomId: string }
  | { type: 'keyChanged'; roomId: string; userId: string; oldFingerprint: string; newFingerprint: string }
  /** A moderator removed the own presence. */
  | { type: 'kicked'; roomId: string }

export class LiveRoom {
  access: RoomAccess = 'unknown'
  meta: shapes.RoomMeta | null = null
  private crypto: RoomCrypto | null = null
  private readonly ready: Promise<RoomCrypto>
  private subscriptions: (() => void)[] = []
  private stopKeys: () => void = () => undefined
  private active = true
  /** Keys that arrived while it was asleep: who may send them is known when it is awake. */
  private keptKeys: CryptoEvent[] = []
  private announcedAt = 0
  private banned = false
  /** A presence is on its way. */
  private announcing = false
  /** By user: the device that wrote the exchange key. */
  private readonly devices = new Map<string, string>()
  /** This page is closing: its presence is not renewed unless the page comes back. */
  private closing = false

  constructor(
    readonly id: string,
    private readonly joinedAt: number,
    urgent: boolean,
    private isAwake: boolean,
    private readonly context: LiveRoomContext,
  ) {
    this.ready = this.load()
    if (context.connection.online) this.announce(urgent)
    if (isAwake) this.subscribe()
  }

  private async load(): Promise<RoomCrypto> {
    const { storage, identity, random } = this.context
    this.crypto = await RoomCrypto.load(identity, random, (await storage().cryptoRecord(this.id)) ?? null)
    return this.crypto
  }

  get encryption(): EncryptionState {
    return this.crypto?.state ?? 'unknown'
  }

  room(): Promise<RoomCrypto> {
    return this.ready
  }

  fingerprints(userId: string): readonly string[] {
    return this.crypto?.fingerprints(userId) ?? []
  }

  // --- presence ---

  /** Writes the presence first, then reads the room: the relay shows a room only to those present. */
  announce(urgent: boolean): void {
    if (!this.active) return
    if (this.access !== 'inside') this.setAccess('entering', null)
    this.sendPresence(urgent)
    this.context.connection
      .get(address.meta(this.id), { urgent })
      .then((value) => this.takeMeta(value, false))
      .catch(() => undefined)
    this.enrol()
  }

  private presence(): object {
    const { name, color, status } = this.context.self()
    const lastSeen = this.context.clock.now()
    return { name, avatarColor: color, joinedAt: this.joinedAt, lastSeen, status }
  }

  private sendPresence(urgent: boolean): void {
    // A presence that waits is not renewed: it would wait behind all others again.
    if (this.announcing && !urgent) return
    this.announcing = true
    this.closing = false
    const { connection, clock, self } = this.context
    const value = shapes.asValue(this.presence())
    connection
      .set(address.presence(this.id, self().userId), value, { urgent, ttlS: PRESENCE_TTL_S })
      .then(() => {
        this.announcedAt = clock.now()
        this.cameInside()
      })
      .catch((failure: Failure) => this.refused(failure))
      .finally(() => (this.announcing = false))
  }

  private enrol(): void {
    const { connection, self } = this.context
    const { userId, name, color, status } = self()
    const value = shapes.asValue({ name, avatarColor: color, joinedAt: this.joinedAt, status })
    // Older relays refuse this address. Membership only tells the encryption who has left.
    connection.set(address.member(this.id, userId), value).catch(() => undefined)
  }

  /** Renews the presence. */
  beat(): void {
    if (this.active && this.context.connection.online && this.access !== 'missing') this.sendPresence(false)
  }

  private cameInside(): void {
    if (!this.active) return
    // The end of a ban is not visible from outside; an accepted presence proves it.
    this.banned = false
    if (this.access === 'inside') return
    const late = this.access !== 'entering'
    this.setAccess('inside', null)
    // The relay now sends what has become visible, except the keys: subscribe to them again.
    if (late && this.isAwake) this.subscribeKeys()
    if (this.encryption !== 'off' && this.isAwake) this.awaitState()
  }

  private refused(failure: Failure): void {
    if (!this.active || failure.kind === 'offline' || failure.kind === 'tooMany' || failure.kind === 'timeout') return
    if (this.banned) this.setAccess('banned', failure)
    else if (this.meta?.passwordSalt) this.setAccess('passwordNeeded', failure)
    else this.setAccess('refused', failure)
  }

  private setAccess(access: RoomAccess, failure: Failure | null): void {
    if (this.access === access) return
    this.access = access
    this.context.emit({ type: 'access', roomId: this.id, access, failure })
  }

  // --- subscriptions ---

  private subscribe(): void {
    const { connection } = this.context
    const patterns = [pattern.roomTop(this.id), pattern.roomPeople(this.id)]
    this.subscriptions = patterns.map((each) => connection.subscribe(each, (update) => this.hear(update)))
    this.subscribeKeys()
  }

  /** Whether it has subscriptions of its own; asleep, it hears what all rooms hear. */
  get awake(): boolean {
    return this.isAwake
  }

  wake(): void {
    if (this.isAwake || !this.active) return
    this.isAwake = true
    this.subscribe()
    if (this.access === 'inside') this.awaitState()
  }

  sleep(): void {
    this.isAwake = false
    this.unsubscribe()
    void this.tell({ type: 'asleep' })
  }

  /** The relay answers in order: behind the presence and the subscriptions, everything that is set has arrived. */
  private awaitState(): void {
    this.context.connection
      .get(address.meta(this.id))
      .then(async (value) => {
        this.takeMeta(value, false)
        await this.tell({ type: 'complete' })
        const kept = this.keptKeys
        this.keptKeys = []
        for (const event of kept) await this.tell(event)
      })
      .catch(() => undefined)
  }

  private unsubscribe(): void {
    for (const stop of [...this.subscriptions, this.stopKeys]) stop()
    this.subscriptions = []
    this.stopKeys = () => undefined
  }

  private subscribeKeys(): void {
    this.stopKeys()
    this.stopKeys = this.context.connection.subscribe(pattern.roomKeys(this.id), (update) => this.hear(update))
  }

  /** An update of this room, from a subscription of its own or one for all rooms. */
  hear(update: Update): void {
    const place = parseAddress(update.address)
    if (!place || !this.active) return
    const event = this.cryptoEvent(place, update)
    if (event?.type === 'keyex') void this.hearKey(event.keyex)
    else if (event && this.isAwake) void this.tell(event)
    else if (event) this.hearAsleep(event)
    if (place.kind === 'meta') this.takeMeta(update.value, update.kind === 'set')
    else if (place.kind === 'presence' && place.userId === this.context.self().userId) this.takeOwnPresence(update)
    this.context.emit({ type: 'update', roomId: this.id, place, update })
  }

  /** A key for this user: whether a device of its sender's account wrapped it has to be looked up. */
  private async hearKey(keyex: shapes.Keyex): Promise<void> {
    const { fromId, senderPublicKey } = keyex
    const deviceId = keyex.deviceId ?? this.devices.get(fromId)
    const isProven = await this.vouched(fromId, await fingerprintOf(senderPublicKey), deviceId)
    const doubtful = !isProven && (await this.context.hasAccount(fromId))
    if (!this.active) return
    const event = { type: 'keyex', keyex, doubtful } as const
    if (this.isAwake) return this.tell(event)
    this.keptKeys.push(event)
    this.context.wake(this.id)
  }

  /** What asks for an answer or another key can be judged only by who is present and who is an admin. */
  private hearAsleep(event: CryptoEvent): void {
    const isAsking = event.type === 'pubkey' && event.live && event.userId !== this.context.self().userId
    const isLeaving = (event.type === 'member' && !event.member) || (event.type === 'ban' && event.banned)
    if (isAsking || (isLeaving && this.encryption !== 'off')) this.context.wake(this.id)
  }

  private takeMeta(value: unknown, live: boolean): void {
    if (!this.active) return
    this.meta = shapes.parseRoomMeta(value)
    const { meta } = this
    const known = meta && { encrypted: meta.encrypted, creatorId: meta.creatorId, passwordSalt: meta.passwordSalt }
    this.tell({ type: 'meta', meta: known })
    if (this.access === 'refused' && meta?.passwordSalt && !this.banned) this.setAccess('passwordNeeded', null)
    this.context.emit({ type: 'meta', roomId: this.id, meta, live })
  }

  /** The encryption event for an update; null: the update does not concern it. */
  private cryptoEvent(place: Place, { value, kind, ageMs }: Update): CryptoEvent | null {
    switch (place.kind) {
      case 'admin':
        return { type: 'admin', userId: place.userId, admin: shapes.parseAdmin(value) !== null }
      case 'presence':
        return { type: 'presence', userId: place.userId, present: isPresent(value, ageMs) }
      case 'ban': {
        const banned = shapes.parseBan(value) !== null
        if (place.userId === this.context.self().userId) this.takeOwnBan(banned)
        return { type: 'ban', userId: place.userId, banned }
      }
      case 'member':
        return { type: 'member', userId: place.userId, member: shapes.parsePresence(value) !== null }
      case 'proof':
        return { type: 'proof', userId: place.userId, given: shapes.parseProof(value) }
      case 'pubkey': {
        const publicKey = shapes.parsePubkey(value)
        const deviceId = shapes.parseDeviceId(value)
        if (deviceId !== null) this.devices.set(place.userId, deviceId)
        return publicKey && { type: 'pubkey', userId: place.userId, publicKey, live: kind === 'set' }
      }
      case 'keyex': {
        const keyex = place.userId === this.context.self().userId ? shapes.parseKeyex(value) : null
        return keyex && { type: 'keyex', keyex, doubtful: true }
      }
      default:
        return null
    }
  }

  private takeOwnBan(banned: boolean): void {
    this.banned = banned
    // Inside the room, the removal of the presence follows; outside, this is why the presence was refused. While
    // entering, the relay has not decided yet.
    const { access } = this
    if (banned && (access === 'inside' || access === 'refused' || access === 'passwordNeeded')) {
      this.setAccess('banned', null)
    }
  }

  private takeOwnPresence({ value, kind }: Update): void {
    if (kind !== 'set') return
    if (isClosing(value)) {
      if (this.closing) return
      // Another device of the same user leaves; this one stays.
      this.sendPresence(true)
    } else if (value === null && (this.access === 'inside' || this.access === 'banned')) {
      const expired = this.context.clock.now() - this.announcedAt > EXPIRY_MS
      if (expired && !this.banned) this.sendPresence(true)
      else this.context.emit({ type: 'kicked', roomId: this.id })
    }
  }

  // --- encryption ---

  /** Passes an event to the encryption and carries out its effects. */
  async tell(event: CryptoEvent): Promise<void> {
    const room = await this.ready
    for (const effect of await room.handle(event)) await this.carryOut(effect)
  }

  private async carryOut(effect: CryptoEffect): Promise<void> {
    const { connection, storage, clock, emit, self } = this.context
    const roomId = this.id
    // Nobody awaits these: a lost message is requested again.
    const ignore = (): undefined => undefined
    switch (effect.type) {
      case 'publishPubkey': {
        const { deviceId } = this.context.identity
        const value = shapes.asValue({ ...effect.value, timestamp: clock.now(), deviceId })
        connection.set(address.pubkey(roomId, self().userId), value, { durable: true }).catch(ignore)
        break
      }
      case 'sendKeyex':
        connection.publish(address.keyex(roomId, effect.peer), shapes.asValue(effect.value)).catch(ignore)
        break
      case 'store':
        await storage().putCryptoRecord(roomId, effect.record)
        this.context.share(roomId)
        break
      case 'timer':
        clock.after(effect.delayMs, () => {
          if (this.active) void this.tell({ type: 'timer', name: effect.name })
        })
        break
      case 'state':
        emit({ type: 'encryption', roomId, state: effect.state })
        break
      case 'keysArrived':
        emit({ type: 'keysArrived', roomId })
        break
      case 'keyChanged': {
        const { userId, oldFingerprint, newFingerprint } = effect
        if (await this.vouched(userId, newFingerprint)) {
          void this.tell({ type: 'accept', userId, fingerprint: newFingerprint })
          break
        }
        emit({ type: 'keyChanged', roomId, userId, oldFingerprint, newFingerprint })
        break
      }
    }
  }

  /** Whether a new exchange key is that of a device that the account of its user has signed. */
  private async vouched(userId: string, fingerprint: string, deviceId = this.devices.get(userId)): Promise<boolean> {
    const device = deviceId === undefined ? null : await this.context.device(userId, deviceId)
    return device !== null && (await fingerprintOf(device.exchange)) === fingerprint
  }

  /** Another tab stored encryption state of this room. */
  async sync(): Promise<void> {
    const record = await this.context.storage().cryptoRecord(this.id)
    if (record && this.active) await this.tell({ type: 'sync', record })
  }

  // --- the end ---

  connectionLost(): void {
    void this.tell({ type: 'disconnected' })
    if (this.access === 'inside') this.setAccess('entering', null)
  }

  /** Ends the presence when the page closes or the person signs out; resolves when the relay has it. */
  async sayGoodbye(): Promise<void> {
    if (!this.active || this.access !== 'inside') return
    this.closing = true
    const value = shapes.asValue({ ...this.presence(), closing: true })
    const options = { urgent: true, ttlS: CLOSING_TTL_S }
    // The page is going away in any case; without an answer the presence expires.
    await this.context.connection
      .set(address.presence(this.id, this.context.self().userId), value, options)
      .catch(() => undefined)
  }

  /** Unsubscribes, without announcing it. */
  close(): void {
    this.active = false
    this.unsubscribe()
  }

  /** Leaves the room for good. */
  async leave(): Promise<void> {
    this.close()
    const { connection, self } = this.context
    const { userId } = self()
    const gone = [address.typing(this.id, userId), address.member(this.id, userId), address.presence(this.id, userId)]
    // The presence last: the relay accepts the other writes only from those present.
    await Promise.allSettled(gone.map((each) => connection.set(each, null, { durable: true })))
  }
}

const isClosing = (value: unknown): boolean =>
  typeof value === 'object' && value !== null && 'closing' in value && value.closing === true

/** Whether a presence value means present: not removed, not closing, not stale. */
export const isPresent = (value: unknown, ageMs: number | null): boolean =>
  shapes.parsePresence(value) !== null && !isClosing(value) && (ageMs ?? 0) < STALE_MS

/**
 * What the stores share and components never see: connection, storage, keys, and the live rooms.
 * The session store starts and ends it; the other stores listen to its events.
 */
import { identityOf, type Identity } from '@/crypto/identity'
import { AuthApi } from '@/protocol/auth'
import { FilesApi } from '@/protocol/files'
import { parseAddress, pattern } from '@/protocol/addresses'
import { Connection, type Status as ConnectionStatus, type Update } from '@/protocol/connection'
import { Outbox, type DeliveryState } from '@/protocol/outbox'
import { Failure } from '@/protocol/errors'
import { MemoryStorage } from '@/storage/memory'
import { Storage, type UserStorage } from '@/storage/storage'
import type { AccountRecord } from '@/protocol/shapes'
import type { StoredRoom } from '@/storage/types'
import { Emitter } from './emitter'
import { Directory } from './live/directory'
import { LiveRoom, type RoomEvent, type Self } from './live/liveRoom'
import { OwnDevice } from './live/ownDevice'
import { browserPlatform, type Platform } from './platform'

const BEAT_MS = 10_000
/** A longer gap between two beats means that the machine was asleep. */
const SLEEP_MS = 30_000
const FIRST_BATCH = 20
/** Rooms with subscriptions of their own. A relay bounds the subscriptions of a session, and each of them costs memory. */
const MAX_AWAKE = 20
const TAB_OPENED = 'opened'
/** The browser says that it is offline: a relay in the local network may still answer, but then it does so at once. */
const OFFLINE_PROBE_MS = 1_000
/** How long signing out waits until the relay knows that this person is gone. */
const GOODBYE_MS = 1_000

export interface RuntimeEvents {
  status: ConnectionStatus
  /** WELCOME arrived: what must be sent first is sent now. */
  online: null
  /** A session begins: load rooms and friends from the storage. */
  begin: { storage: UserStorage; userId: string }
  /** `refused`: the browser stores nothing; `taken`: a newer version in another tab took the database over. */
  storage: 'refused' | 'taken'
  /** The session ended: forget everything about its user. */
  end: null
  room: RoomEvent
  /** This tab sends the messages that an earlier page left unsent. */
  alone: null
  delivery: { id: string; state: DeliveryState; failure: Failure | null }
  beat: null
  /** The relay refused a message whose result nobody awaits. */
  refusal: { failure: Failure; address: string | null }
  /** A device of a user is signed by another account key than the one that is believed. */
  accountChanged: { userId: string; account: AccountRecord; oldFingerprint: string; newFingerprint: string }
  /** The token was refused and could not be renewed. */
  signedOut: null
  /** Name, color or status of the person changed. */
  self: null
  /** The page has come back to the foreground, to the network or from sleep. */
  wake: null
  /** The person chose another name or color. */
  profileSet: null
  /** The person pinned or unpinned a group. */
  pinned: null
  /** The stored rooms are loaded. */
  roomsLoaded: null
  /** What is stored of a room changed. */
  roomKept: StoredRoom
  /** This browser stored encryption state of a room, with new keys perhaps. */
  keysStored: null
  /** This person removed somebody from a room. */
  shutOut: { roomId: string; userId: string }
  /** A room was read to its end. */
  read: { roomId: string }
}

export class Runtime extends Emitter<RuntimeEvents> {
  readonly connection: Connection
  readonly auth: AuthApi
  readonly files: FilesApi
  readonly outbox: Outbox
  readonly directory: Directory
  readonly device: OwnDevice
  readonly rooms = new Map<string, LiveRoom>()
  self: Self = { userId: '', name: '', color: '#6b7280', status: 'online' }
  token: string | null = null
  renewToken: () => Promise<boolean> = () => Promise.resolve(false)
  /** As a friend was called when they became one; '': not a friend. Set by the friends' store. */
  friendName: (userId: string) => string = () => ''
  private openStorage: UserStorage | null = null
  private ownIdentity: Identity | null = null
  private stops: (() => void)[] = []
  /** The room on screen. */
  private shownRoom: string | null = null
  /** The rooms that are awake, the one that was used last at the end. */
  private awake: LiveRoom[] = []
  private hearsAll = false
  private lastBeat = 0
  private beats = 0
  private isAlone = false
  private tabs: { tell: (message: string) => void; close: () => void } | null = null

  constructor(readonly platform: Platform) {
    super()
    const { clock, random, relayUrl, makeSocket, authBase } = platform
    this.auth = new AuthApi(authBase, (url, init) => platform.fetch(url, init), platform.deviceName)
    this.files = new FilesApi(authBase, (url, init) => platform.fetch(url, init), platform.postBytes)
    this.connection = new Connection({
      url: relayUrl,
      makeSocket,
      clock,
      random,
      name: () => this.self.name || 'CLASP Chat',
      token: () => this.token,
      renewToken: () => this.renewToken(),
    })
    this.outbox = new Outbox(this.connection, (id, state, failure) => this.emit('delivery', { id, state, failure }))
    this.directory = new Directory(this)
    this.device = new OwnDevice(this)
    this.connection.onStatus((status) => this.takeStatus(status))
    this.connection.onOnline(() => this.takeOnline())
    this.connection.onError((failure, address) => this.emit('refusal', { failure, address }))
  }

  /** Another object after the browser refused to go on storing: ask for it every time. */
  get storage(): UserStorage {
    if (!this.openStorage) throw new Failure('signedOut', 'no session')
    return this.openStorage
  }

  get identity(): Identity {
    if (!this.ownIdentity) throw new Failure('signedOut', 'no session')
    return this.ownIdentity
  }

  /** Whether somebody is signed in, with storage and identity. */
  get begun(): boolean {
    return this.ownIdentity !== null
  }

  /** Whether this tab does what one tab of the browser has to do. */
  get leads(): boolean {
    return this.isAlone
  }

  /** Opens the storage of a user, then connects. */
  async begin(userId: string): Promise<void> {
    const storage = await this.open(userId)
    const pairs = await storage.identityPairs()
    this.openStorage = storage
    this.ownIdentity = await identityOf(userId, pairs)
    const { platform } = this
    this.lastBeat = platform.clock.now()
    const tabs = platform.channel(`clasp-chat-tabs-${userId}`, (message) => this.hearTab(String(message)))
    this.tabs = tabs
    this.stops = [
      () => tabs.close(),
      platform.alone(`clasp-chat-outbox-${userId}`, () => {
        this.isAlone = true
        this.emit('alone', null)
      }),
      platform.beat(BEAT_MS, () => this.beat()),
      platform.onWake(() => {
        this.connection.probe()
        this.emit('wake', null)
      }),
      platform.onOffline(() => this.connection.probe(OFFLINE_PROBE_MS)),
      platform.onClose(() => {
        for (const room of this.rooms.values()) void room.sayGoodbye()
      }),
    ]
    this.stops.push(
      this.connection.subscribe(pattern.reactions(), (update) => this.hearRoom(update)),
      this.connection.subscribe(pattern.historyFor(userId), (update) => this.hearRoom(update)),
    )
    this.emit('begin', { storage, userId })
    tabs.tell(TAB_OPENED)
    this.connection.start()
  }

  private async open(userId: string): Promise<UserStorage> {
    const taken = (): void => {
      if (this.openStorage !== storage) return
      // The session goes on without storing, so that nothing that arrives is lost from the screen.
      this.openStorage = new MemoryStorage(userId)
      this.emit('storage', 'taken')
    }
    let storage: UserStorage
    try {
      storage = await Storage.open(userId, taken)
    } catch {
      // Private windows and strict settings refuse IndexedDB.
      storage = new MemoryStorage(userId)
      this.platform.clock.after(0, () => this.emit('storage', 'refused'))
    }
    return storage
  }

  /** Ends the session in this tab; `wipe` deletes what is stored. */
  async end(wipe: boolean): Promise<void> {
    for (const stop of this.stops) stop()
    this.stops = []
    this.isAlone = false
    const rooms = [...this.rooms.values()]
    const goodbyes: Promise<unknown>[] = rooms.map((room) => room.sayGoodbye())
    // Its keys are about to be deleted: nobody can sign with them any more.
    if (wipe && this.connection.online) goodbyes.push(this.device.end())
    const gone = Promise.allSettled(goodbyes)
    for (const room of rooms) room.close()
    this.rooms.clear()
    this.awake = []
    this.hearsAll = false
    this.outbox.clear()
    this.directory.clear()
    const storage = this.openStorage
    this.openStorage = null
    this.ownIdentity = null
    this.emit('end', null)
    // Otherwise others would see this person until the presence expires.
    if (this.connection.online) await Promise.race([gone, this.wait(GOODBYE_MS)])
    this.connection.stop()
    if (wipe) await storage?.destroy()
    else storage?.close()
  }

  /** Begins anew, to load what was imported: open rooms hold their keys in memory. */
  async reopen(): Promise<void> {
    const { userId } = this.storage
    await this.end(false)
    await this.begin(userId)
  }

  private wait(delayMs: number): Promise<void> {
    return new Promise((resolve) => this.platform.clock.after(delayMs, resolve))
  }

  /** Puts a room on screen: it is entered before the others. */
  show(roomId: string | null): void {
    this.shownRoom = roomId
    const live = roomId === null ? undefined : this.rooms.get(roomId)
    if (live) this.wake(live)
    if (live?.access === 'entering' && this.connection.online) live.announce(true)
  }

  /** Makes a room live: announces presence, subscribes, and decrypts. */
  enter(room: Pick<StoredRoom, 'id' | 'joinedAt'>, urgent: boolean): LiveRoom {
    const known = this.rooms.get(room.id)
    if (known) return known
    const { connection, identity, platform } = this
    const first = urgent || room.id === this.shownRoom
    const live = new LiveRoom(room.id, room.joinedAt, first, first || this.awake.length < MAX_AWAKE, {
      connection,
      storage: () => this.storage,
      identity,
      clock: platform.clock,
      random: platform.random,
      self: () => this.self,
      emit: (event) => this.emit('room', event),
      device: (userId, deviceId) => this.directory.device(userId, deviceId),
      hasAccount: async (userId) => (await this.directory.account(userId)) !== null,
      wake: (roomId) => {
        const asleep = this.rooms.get(roomId)
        if (asleep) this.wake(asleep)
      },
      share: (roomId) => {
        this.tabs?.tell(roomId)
        this.emit('keysStored', null)
      },
    })
    this.rooms.set(room.id, live)
    if (live.awake) this.wake(live)
    else this.hearAll()
    return live
  }

  forget(roomId: string): LiveRoom | undefined {
    const live = this.rooms.get(roomId)
    this.rooms.delete(roomId)
    this.awake = this.awake.filter((each) => each !== live)
    return live
  }

  /** Gives a room subscriptions of its own; too many of them, and the one that needed its own longest ago sleeps. */
  private wake(live: LiveRoom): void {
    this.awake = [...this.awake.filter((each) => each !== live), live]
    live.wake()
    if (this.awake.length <= MAX_AWAKE) return
    this.hearAll()
    const victim = this.awake.find((each) => each.id !== this.shownRoom)
    this.awake = this.awake.filter((each) => each !== victim)
    victim?.sleep()
  }

  /** Hears the rooms that are asleep. */
  private hearAll(): void {
    if (this.hearsAll) return
    this.hearsAll = true
    const hear = (update: Update): void => {
      const place = parseAddress(update.address)
      const live = place && 'roomId' in place ? this.rooms.get(place.roomId) : undefined
      if (live && !live.awake) live.hear(update)
    }
    for (const each of pattern.everyRoom(this.self.userId)) this.listenTo(each, hear)
  }

  /** Subscribes for as long as the session lasts. */
  listenTo(pattern: string, handler: (update: Update) => void): void {
    this.stops.push(this.connection.subscribe(pattern, handler))
  }

  /** An update of any room, from a subscription for all of them. */
  private hearRoom(update: Update): void {
    const place = parseAddress(update.address)
    if (place && 'roomId' in place) this.rooms.get(place.roomId)?.hear(update)
  }

  /** Another tab stored encryption state of a room, or was opened and may have left messages unsent. */
  private hearTab(message: string): void {
    if (message !== TAB_OPENED) {
      void this.rooms.get(message)?.sync()
      this.emit('keysStored', null)
    } else if (this.isAlone) this.emit('alone', null)
  }

  private beat(): void {
    const now = this.platform.clock.now()
    if (now - this.lastBeat > SLEEP_MS) this.connection.probe()
    this.lastBeat = now
    this.beats += 1
    // Rooms that are not on screen take turns: each beats every 20 seconds.
    for (const [place, room] of [...this.rooms.values()].entries()) {
      if (room.id === this.shownRoom || place % 2 === this.beats % 2) room.beat()
    }
    this.emit('beat', null)
  }

  private takeOnline(): void {
    this.emit('online', null)
    // The room on screen first; a person with hundreds of rooms must not wait for all of them.
    const shown = this.shownRoom === null ? undefined : this.rooms.get(this.shownRoom)
    shown?.announce(true)
    for (const room of this.rooms.values()) if (room !== shown) room.announce(false)
    // A relay that refuses these addresses leaves the device unknown; a lost connection tries again at the next one.
    this.device.publish().catch(() => undefined)
    // After the subscriptions, which the connection sends next.
    this.platform.clock.after(FIRST_BATCH, () => this.outbox.resumeAll())
  }

  private takeStatus(status: ConnectionStatus): void {
    if (status.phase !== 'online') for (const room of this.rooms.values()) room.connectionLost()
    this.emit('status', status)
    if (status.phase === 'refused') this.emit('signedOut', null)
  }
}

let current: Runtime | null = null

export function useRuntime(): Runtime {
  current ??= new Runtime(browserPlatform())
  return current
}

/** Puts another runtime in its place; for tests. */
export function setRuntime(runtime: Runtime): void {
  current = runtime
}

/**
 * The own part in the call of a room: the presence in it, a connection to every other session there (a mesh), and the
 * servers through which they reach each other. It knows no store and no component.
 */
import { address } from '@/protocol/addresses'
import type { IceGrant } from '@/protocol/auth'
import type { Clock } from '@/protocol/clock'
import type { Connection } from '@/protocol/connection'
import { Failure } from '@/protocol/errors'
import { asValue, parseSignal, type Signal } from '@/protocol/shapes'
import type { LocalMedia } from './media'
import { Peer, type OutgoingSignal, type TrackKind } from './peer'
import { MAX_CALLERS, type Present, type Roster } from './roster'

const PRESENCE_TTL_S = 60
/** Signals that arrive before the servers are known. */
const MAX_EARLY = 400
const ICE_RETRY_MS = 30_000
/** Credentials are not renewed more often than this, whatever a server says. */
const MIN_RENEW_MS = 10_000
/** What all video that is sent may take together, bits per second, and the least and the most for one connection. */
const VIDEO_BITRATE = 2_400_000
const MIN_BITRATE = 120_000
const MAX_BITRATE = 1_500_000

/** Why a call ended without being asked to. */
export type CallEnd = 'full' | 'refused'

export interface CallOptions {
  roomId: string
  connection: Connection
  clock: Clock
  self: () => { userId: string; name: string; color: string }
  iceServers: () => Promise<IceGrant | null>
  connect: (configuration: RTCConfiguration) => RTCPeerConnection
  media: LocalMedia
  /** It hears who is in the call for as long as the call lasts. */
  roster: Roster
  isBlocked: (userId: string) => boolean
  changed: () => void
  ended: (why: CallEnd) => void
}

/** How much video each of so many connections may send, bits per second. */
export const bitrateFor = (peers: number): number =>
  Math.round(Math.min(MAX_BITRATE, Math.max(MIN_BITRATE, VIDEO_BITRATE / Math.max(1, peers))))

export class Call {
  readonly peers = new Map<string, Peer>()
  sessionId = ''
  /** null: not known yet. */
  hasRelay: boolean | null = null
  private joinedAt = 0
  private active = true
  private configuration: RTCConfiguration | null = null
  /** Sessions of people who were removed from the room. */
  private readonly ejected = new Set<string>()
  private early: Signal[] = []
  /** The servers that the connections use. */
  private servers = '[]'
  private stopSignals: () => void = () => undefined
  private stopRenewal: () => void = () => undefined

  constructor(private readonly options: CallOptions) {}

  get roomId(): string {
    return this.options.roomId
  }

  /** Joins. Rejects with a {@link Failure} if the relay refuses it, or if the call is full. */
  async start(): Promise<void> {
    try {
      await this.enter()
    } catch (error) {
      this.close()
      throw error
    }
  }

  /** The relay knows this browser by another session id: it joins again. */
  async rejoin(): Promise<void> {
    const before = this.sessionId
    for (const peer of this.peers.values()) peer.close()
    this.peers.clear()
    this.configuration = null
    this.early = []
    this.options.changed()
    try {
      // The relay removes it when it notices that the old connection is gone, which may take longer.
      if (before !== '') void this.write(before, null).catch(() => undefined)
      await this.enter()
    } catch (error) {
      // Without a connection it is tried again when there is one.
      if (error instanceof Failure && error.kind === 'forbidden') this.end('refused')
    }
  }

  private async enter(): Promise<void> {
    const { connection, roster, roomId } = this.options
    const sessionId = connection.status.sessionId
    if (sessionId === null) throw new Failure('offline', 'not connected to the relay')
    this.sessionId = sessionId
    const stop = connection.subscribe(address.callSignal(roomId, sessionId), ({ value, kind }) => {
      if (kind === 'publish') this.hear(value)
    })
    this.stopSignals()
    this.stopSignals = stop
    // The relay answers in order: behind this, everybody in the call is known.
    await connection.get(address.caller(roomId, sessionId), { urgent: true })
    if (!this.active) throw new Failure('conflict', 'the call was left')
    const others = roster.present().filter((caller) => caller.sessionId !== sessionId)
    if (others.length >= MAX_CALLERS) throw new Failure('conflict', 'the call is full', { reason: 'callFull' })
    this.joinedAt ||= connection.serverNow()
    await this.announce()
    await this.fetchServers()
    if (!this.active || this.sessionId !== sessionId) return
    const { early } = this
    this.early = []
    this.update()
    for (const signal of early) this.take(signal)
  }

  // --- presence ---

  private presence(): object {
    const { self, clock, media } = this.options
    const { userId, name, color } = self()
    const flags = { audioEnabled: media.isHeard, videoEnabled: media.track('video') !== null, screen: media.isSharing }
    const times = { joinedAt: this.joinedAt, lastSeen: clock.now() }
    return { userId, name, avatarColor: color, ...flags, ...times, negotiates: true }
  }

  private write(sessionId: string, value: object | null): Promise<void> {
    const { connection, roomId } = this.options
    const options = { urgent: true, ...(value !== null && { ttlS: PRESENCE_TTL_S }) }
    return connection.set(address.caller(roomId, sessionId), value && asValue(value), options)
  }

  private async announce(): Promise<void> {
    await this.write(this.sessionId, this.presence())
  }

  /** Renews the presence; looks whether the others are still there. */
  beat(): void {
    if (!this.active || this.joinedAt === 0) return
    this.announce().catch((failure: Failure) => {
      if (failure.kind === 'forbidden') this.end('refused')
    })
    this.update()
    for (const [sessionId, peer] of this.peers) this.expectTracks(peer, this.options.roster.get(sessionId))
  }

  /** The original does not offer what it turns on later. It says so, and answers when it is asked. */
  private expectTracks(peer: Peer, caller: Present | undefined): void {
    if (caller?.audioEnabled) peer.expect('audio')
    if (caller?.videoEnabled) peer.expect('video')
  }

  // --- the others ---

  /** Connects to who is there, and to nobody else. */
  update(): void {
    if (!this.active || !this.configuration) return
    const { roster } = this.options
    const present = roster.present((sessionId) => this.peers.get(sessionId)?.state === 'connected')
    for (const sessionId of this.ejected) if (!roster.get(sessionId)) this.ejected.delete(sessionId)
    const place = present.findIndex(({ sessionId }) => sessionId === this.sessionId)
    if (place >= MAX_CALLERS) return this.end('full')
    const wanted = present.filter((caller) => this.isWanted(caller)).slice(0, MAX_CALLERS - 1)
    const ids = new Set(wanted.map(({ sessionId }) => sessionId))
    const before = this.peers.size
    for (const sessionId of [...this.peers.keys()]) if (!ids.has(sessionId)) this.drop(sessionId)
    for (const { sessionId } of wanted) if (!this.peers.has(sessionId)) this.add(sessionId)
    if (before !== this.peers.size) for (const peer of this.peers.values()) peer.updateBitrate()
    this.options.changed()
  }

  private isWanted({ sessionId, userId }: Present): boolean {
    if (sessionId === this.sessionId || this.ejected.has(sessionId)) return false
    return userId === null || !this.options.isBlocked(userId)
  }

  private add(sessionId: string): void {
    const { clock, media, roster, connect, changed } = this.options
    const peer = new Peer({
      // Both sides see the same order; the original's comparison is the same for the relay's ids.
      polite: this.sessionId < sessionId,
      negotiates: () => roster.get(sessionId)?.negotiates ?? false,
      connect: () => connect(this.configuration ?? {}),
      send: (signal) => this.send(sessionId, signal),
      clock,
      stream: media.stream,
      track: (kind: TrackKind) => media.track(kind),
      maxBitrate: () => bitrateFor(this.peers.size),
      changed,
    })
    this.peers.set(sessionId, peer)
  }

  private drop(sessionId: string): void {
    this.peers.get(sessionId)?.close()
    this.peers.delete(sessionId)
  }

  /** Somebody was removed from the room: they are out of the call at once, also if their program stays in it. */
  eject(userId: string): void {
    for (const { sessionId, userId: owner } of this.options.roster.all) {
      if (owner === userId && sessionId !== this.sessionId) this.ejected.add(sessionId)
    }
    this.update()
  }

  /** Somebody who was removed has come back into the room. */
  readmit(userId: string): void {
    const back = [...this.ejected].filter((sessionId) => this.options.roster.get(sessionId)?.userId === userId)
    for (const sessionId of back) this.ejected.delete(sessionId)
    if (back.length > 0) this.update()
  }

  // --- signals ---

  private send(sessionId: string, signal: OutgoingSignal): void {
    const { connection, roomId, self } = this.options
    const value = asValue({ ...signal, from: this.sessionId, userId: self().userId })
    // Without a connection to the relay it is lost: both sides negotiate again after the reconnect.
    connection.publish(address.callSignal(roomId, sessionId), value, { urgent: true }).catch(() => undefined)
  }

  private hear(value: unknown): void {
    const signal = parseSignal(value)
    if (!signal || !this.active) return
    if (this.configuration) this.take(signal)
    else if (this.early.length < MAX_EARLY) this.early.push(signal)
  }

  private take(signal: Signal): void {
    const caller = this.options.roster.get(signal.from)
    // Everybody in the call can read the session ids: the relay's stamps say whose they are.
    const isForged = caller?.userId && signal.userId !== null && signal.userId !== caller.userId
    if (!caller || isForged) return
    if (!this.peers.has(signal.from)) this.update()
    this.peers.get(signal.from)?.hear(signal)
  }

  // --- servers ---

  private async fetchServers(): Promise<void> {
    const { connection, clock } = this.options
    let renewInMs = ICE_RETRY_MS
    let servers: RTCIceServer[] = []
    try {
      const grant = await this.options.iceServers()
      servers = (grant?.servers ?? []).map(({ urls, username, credential }) =>
        username ? { urls, username, credential } : { urls },
      )
      this.hasRelay = servers.length > 0
      renewInMs = grant ? Math.max(MIN_RENEW_MS, (grant.expiresAtMs - connection.serverNow()) / 2) : Infinity
    } catch {
      // The call starts without, where people reach each other directly, and asks again.
      if (this.configuration) servers = this.configuration.iceServers ?? []
      else this.hasRelay = false
    }
    if (!this.active) return
    const isFirst = this.configuration === null
    const isSame = JSON.stringify(servers) === this.servers
    this.servers = JSON.stringify(servers)
    // One transport for everything: fewer candidates, fewer messages.
    this.configuration = { iceServers: servers, bundlePolicy: 'max-bundle' }
    if (!isFirst && !isSame) for (const peer of this.peers.values()) peer.renew(this.configuration)
    this.stopRenewal()
    if (renewInMs !== Infinity) this.stopRenewal = clock.after(renewInMs, () => void this.fetchServers())
    this.options.changed()
  }

  // --- own tracks ---

  /** What is sent has changed: the others get it, and are told. */
  updateTracks(): void {
    if (!this.active) return
    for (const peer of this.peers.values()) peer.updateTracks()
    if (this.joinedAt !== 0) this.beat()
  }

  // --- the end ---

  private end(why: CallEnd): void {
    if (!this.active) return
    this.leave()
    this.options.ended(why)
  }

  /** Leaves at once, also while the page is being closed. */
  leave(): void {
    if (!this.active) return
    if (this.sessionId !== '') {
      // Without an answer the presence expires.
      void this.write(this.sessionId, null).catch(() => undefined)
    }
    this.close()
  }

  private close(): void {
    this.active = false
    this.stopSignals()
    this.stopRenewal()
    for (const peer of this.peers.values()) peer.close()
    this.peers.clear()
    this.options.media.close()
  }
}

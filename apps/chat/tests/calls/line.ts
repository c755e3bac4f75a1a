/** A call alone, with a connection to the relay that a test plays. */
import { Call, type CallEnd } from '@/calls/call'
import { LocalMedia, type MediaSource } from '@/calls/media'
import { Roster } from '@/calls/roster'
import type { IceGrant } from '@/protocol/auth'
import type { Value } from '@/protocol/codec'
import type { Connection, Update } from '@/protocol/connection'
import type { Failure } from '@/protocol/errors'
import { FakeClock } from '../support/clock'
import { FakeNetwork, FakeStream, FakeTrack } from './webrtc'

export const ROOM = '00000000-0000-4000-8000-000000000001'
export const place = (sessionId: string): string => `/chat/room/${ROOM}/video/presence/${sessionId}`
export const mailbox = (sessionId: string): string => `/chat/room/${ROOM}/video/signal/${sessionId}`

export interface Sent {
  address: string
  value: unknown
}

/** What `Call` uses of a connection. */
export class FakeLine {
  status: { sessionId: string | null } = { sessionId: 's-5' }
  readonly sent: Sent[] = []
  /** What SETs fail with. */
  refusal: Failure | null = null
  /** Holds back the answer to GET. */
  gate: Promise<void> = Promise.resolve()
  private handlers: { address: string; handler: (update: Update) => void }[] = []

  constructor(private readonly clock: FakeClock) {}

  subscribe = (address: string, handler: (update: Update) => void): (() => void) => {
    const entry = { address, handler }
    this.handlers.push(entry)
    return () => (this.handlers = this.handlers.filter((other) => other !== entry))
  }
  get = async (): Promise<null> => {
    await this.gate
    return null
  }
  set = async (address: string, value: unknown): Promise<void> => {
    if (this.refusal && value !== null) throw this.refusal
    this.sent.push({ address, value })
  }
  publish = async (address: string, value: unknown): Promise<void> => {
    this.sent.push({ address, value })
  }
  serverNow = (): number => this.clock.now()

  get listening(): string[] {
    return this.handlers.map(({ address }) => address)
  }

  deliver(address: string, value: Value, kind: Update['kind'] = 'publish'): void {
    for (const each of [...this.handlers])
      if (each.address === address) each.handler({ address, value, kind, ageMs: null, atMs: null })
  }

  /** What was sent to an address, from the first one on. */
  to(address: string): unknown[] {
    return this.sent.filter((each) => each.address === address).map(({ value }) => value)
  }
}

/** The own side of a call in a room. */
export class OneCall {
  readonly clock = new FakeClock()
  readonly network = new FakeNetwork()
  readonly line = new FakeLine(this.clock)
  readonly roster = new Roster(this.clock, () => undefined)
  readonly ends: CallEnd[] = []
  readonly blocked = new Set<string>()
  grant: (() => Promise<IceGrant | null>) | null = null
  readonly media = new LocalMedia({
    source: Object.assign(new EventTarget(), {
      getUserMedia: async (wanted: MediaStreamConstraints) =>
        new FakeStream([new FakeTrack(wanted.audio ? 'audio' : 'video')]) as unknown as MediaStream,
      enumerateDevices: async () => [],
    }) as unknown as MediaSource,
    meter: () => ({ level: () => 0, close: () => undefined }),
    chosen: () => null,
    changed: () => this.call.updateTracks(),
  })
  readonly call: Call = new Call({
    roomId: ROOM,
    connection: this.line as unknown as Connection,
    clock: this.clock,
    self: () => ({ userId: 'ada', name: 'Ada', color: '#e63946' }),
    iceServers: () => (this.grant ? this.grant() : Promise.resolve(null)),
    connect: this.network.connect,
    media: this.media,
    roster: this.roster,
    isBlocked: (userId) => this.blocked.has(userId),
    changed: () => undefined,
    ended: (why) => this.ends.push(why),
  })

  /** Somebody is in the call, as the relay tells it. */
  see(sessionId: string, value: Value): void {
    this.roster.hear({ address: place(sessionId), value, kind: 'set', ageMs: null, atMs: null })
    this.call.update()
  }
}

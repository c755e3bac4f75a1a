/**
 * The connection to one other session of a call: carries out what the negotiation decides, sends the own tracks, and
 * mends the connection when the network drops. Operations run one after the other, so that the negotiation always knows
 * the state that WebRTC is in.
 */
import type { Clock } from '@/protocol/clock'
import type { IceCandidate, Signal } from '@/protocol/shapes'
import { Negotiation, type NegotiationEvent, type NegotiationStep } from './negotiation'

/** Time without packets after which a connection gets new ICE credentials. The original gives it up then. */
export const DROPPED_MS = 5_000
/** Time that new credentials have before the connection is made anew; the original needs it to give up the old one. */
const RESTART_MS = 12_000
const FOREIGN_REDIAL_MS = 1_500
/** Time without an answer after which an offer is made again. */
const OVERDUE_MS = 10_000
/** Time that a first connection has. */
const FIRST_CONNECT_MS = 25_000
const AFTER_ERROR_MS = 2_000

export type PeerState = 'connecting' | 'connected' | 'interrupted'
export type TrackKind = 'audio' | 'video'
const KINDS: readonly TrackKind[] = ['audio', 'video']

/** A signal without its sender, whom the call adds. */
export type OutgoingSignal =
  | { type: 'offer' | 'answer'; sdp: { type: string; sdp: string }; serial?: number }
  | { type: 'ice-candidate'; candidate: IceCandidate }

export interface PeerOptions {
  /** The side with the smaller session id. */
  polite: boolean
  /** The other side takes offers at any time and restarts ICE, as the original does not. */
  negotiates: () => boolean
  connect: () => RTCPeerConnection
  send: (signal: OutgoingSignal) => void
  clock: Clock
  /** The own stream, by which the other side knows that the tracks belong together. */
  stream: MediaStream
  track: (kind: TrackKind) => MediaStreamTrack | null
  /** Of the video sender, bits per second. */
  maxBitrate: () => number
  changed: () => void
}

const FINGERPRINT = /^a=fingerprint:(.+)$/im
const fingerprintOf = (sdp: string | undefined): string | null => FINGERPRINT.exec(sdp ?? '')?.[1]?.trim() ?? null

export class Peer {
  /** What the other side sends. */
  readonly stream = new MediaStream()
  state: PeerState = 'connecting'
  private connection: RTCPeerConnection
  private readonly negotiation: Negotiation
  private chain: Promise<void> = Promise.resolve()
  private closed = false
  private restarted = false
  private stopMending: () => void = () => undefined
  private stopOverdue: () => void = () => undefined

  constructor(private readonly options: PeerOptions) {
    this.negotiation = new Negotiation(options.polite, () => options.clock.now())
    this.connection = this.open(!options.polite)
    this.mendIn(FIRST_CONNECT_MS)
  }

  /** @param calls whether this side makes the first offer. */
  private open(calls: boolean): RTCPeerConnection {
    const connection = this.options.connect()
    const isCurrent = (): boolean => this.connection === connection && !this.closed
    connection.ontrack = ({ track }) => this.receive(track)
    connection.onicecandidate = ({ candidate }) => {
      if (candidate && isCurrent()) this.sendCandidate(candidate)
    }
    connection.onnegotiationneeded = () => {
      if (isCurrent()) this.tell({ type: 'needed', first: calls })
    }
    connection.onconnectionstatechange = () => {
      if (isCurrent()) this.follow(connection.connectionState)
    }
    if (calls) {
      for (const kind of KINDS) {
        connection.addTransceiver(kind, { direction: 'sendrecv', streams: [this.options.stream] })
      }
    }
    return connection
  }

  private receive(track: MediaStreamTrack): void {
    for (const other of this.stream.getTracks()) if (other.kind === track.kind) this.stream.removeTrack(other)
    this.stream.addTrack(track)
    this.options.changed()
  }

  private sendCandidate({ candidate, sdpMid, sdpMLineIndex, tcpType }: RTCIceCandidate): void {
    // Browsers listen on no TCP port: two active sides never meet.
    if (candidate !== '' && tcpType !== 'active')
      this.options.send({ type: 'ice-candidate', candidate: { candidate, sdpMid, sdpMLineIndex } })
  }

  /** A signal from the other side. */
  hear(signal: Signal): void {
    if (signal.type === 'ice-candidate') this.tell({ type: 'candidate', candidate: signal.candidate })
    else this.tell({ type: signal.type, sdp: signal.sdp, serial: signal.serial })
  }

  /** Asks for what the other side sends, if it says that it sends something that never came. */
  expect(kind: TrackKind): void {
    const isOpen = this.state === 'connected' && !this.negotiation.offering
    const missing = (): boolean => {
      const direction = this.transceiver(kind)?.currentDirection
      return direction !== 'sendrecv' && direction !== 'recvonly'
    }
    if (isOpen && !this.options.negotiates() && missing()) this.tell({ type: 'needed' })
  }

  /** Own tracks have changed. */
  updateTracks(): void {
    this.enqueue(() => this.attach())
  }

  updateBitrate(): void {
    this.enqueue(() => this.limit())
  }

  /** Uses other ICE servers, or credentials, from now on. */
  renew(configuration: RTCConfiguration): void {
    this.connection.setConfiguration(configuration)
    if (this.options.negotiates() && this.state !== 'connecting') this.connection.restartIce()
  }

  /** The loudest moment of what is being heard, 0 to 1. */
  level(): number {
    const receivers = this.connection.getReceivers().filter(({ track }) => track.kind === 'audio')
    const sources = receivers.flatMap((receiver) => receiver.getSynchronizationSources())
    return Math.max(0, ...sources.map(({ audioLevel }) => audioLevel ?? 0))
  }

  close(): void {
    this.closed = true
    this.stopMending()
    this.stopOverdue()
    this.connection.close()
  }

  // --- negotiating ---

  private tell(event: NegotiationEvent): void {
    this.enqueue(async () => {
      if (event.type === 'offer' || event.type === 'answer') this.renewFor(event)
      for (const step of this.negotiation.handle(event)) await this.carryOut(step)
      this.watchAnswer()
    })
  }

  private enqueue(operation: () => void | Promise<void>): void {
    this.chain = this.chain
      .then(() => (this.closed ? undefined : operation()))
      .catch(() => {
        // A description that does not fit what was agreed before, from another program perhaps: start again.
        if (!this.closed) this.mendIn(AFTER_ERROR_MS, true)
      })
  }

  /** The other side made its connection anew, which shows in the fingerprint of its certificate: so does this one. */
  private renewFor({ type, sdp }: { type: 'offer' | 'answer'; sdp: string }): void {
    const known = fingerprintOf(this.connection.remoteDescription?.sdp)
    if (known === null || known === fingerprintOf(sdp)) return
    this.replace(type === 'answer')
    // The other side mends it already: an own attempt now would end that one.
    this.mendIn(RESTART_MS)
  }

  private async carryOut(step: NegotiationStep): Promise<void> {
    const { connection } = this
    switch (step.type) {
      case 'offer':
        if (step.restart) connection.restartIce()
        await connection.setLocalDescription()
        this.sendDescription(step.serial)
        break
      case 'answer':
        await connection.setRemoteDescription({ type: 'offer', sdp: step.sdp })
        await this.attach()
        await connection.setLocalDescription()
        this.sendDescription(step.serial)
        break
      case 'accept':
        await connection.setRemoteDescription({ type: 'answer', sdp: step.sdp })
        await this.attach()
        break
      case 'candidate':
        // One of an earlier attempt, or of a kind that this browser does not know: others may do.
        await connection.addIceCandidate(step.candidate).catch(() => undefined)
        break
    }
  }

  private sendDescription(serial: number | null): void {
    const description = this.connection.localDescription
    if (description?.type !== 'offer' && description?.type !== 'answer') return
    const { type, sdp } = description
    this.options.send({ type, sdp: { type, sdp }, ...(serial !== null && { serial }) })
  }

  private watchAnswer(): void {
    this.stopOverdue()
    if (this.negotiation.offering)
      this.stopOverdue = this.options.clock.after(OVERDUE_MS, () => this.tell({ type: 'overdue' }))
  }

  // --- sending ---

  private transceiver(kind: TrackKind): RTCRtpTransceiver | undefined {
    const transceivers = this.connection.getTransceivers()
    return transceivers.find(({ direction, receiver }) => direction !== 'stopped' && receiver.track.kind === kind)
  }

  /** Sends the own tracks on what was agreed on; agrees on more only where there is a track for it. */
  private async attach(): Promise<void> {
    const { stream, track } = this.options
    for (const kind of KINDS) {
      const own = track(kind)
      const transceiver = this.transceiver(kind)
      if (transceiver) {
        if (transceiver.direction === 'recvonly' || transceiver.direction === 'inactive') {
          transceiver.direction = 'sendrecv'
          transceiver.sender.setStreams(stream)
        }
        await transceiver.sender.replaceTrack(own)
      } else if (own && this.connection.remoteDescription) {
        this.connection.addTransceiver(own, { direction: 'sendrecv', streams: [stream] })
      }
    }
    await this.limit()
  }

  private async limit(): Promise<void> {
    const sender = this.transceiver('video')?.sender
    const parameters = sender?.getParameters()
    const encoding = parameters?.encodings[0]
    const maxBitrate = this.options.maxBitrate()
    if (!sender?.track || !parameters || !encoding || encoding.maxBitrate === maxBitrate) return
    encoding.maxBitrate = maxBitrate
    await sender.setParameters(parameters)
  }

  // --- mending ---

  private follow(state: RTCPeerConnectionState): void {
    if (state === 'connected') {
      this.restarted = false
      this.stopMending()
      this.setState('connected')
      void this.updateBitrate()
    } else if (state === 'disconnected') {
      this.setState('interrupted')
      this.mendIn(DROPPED_MS)
    } else if (state === 'failed') {
      this.setState('interrupted')
      this.mendIn(this.options.negotiates() ? 0 : FOREIGN_REDIAL_MS)
    }
  }

  private setState(state: PeerState): void {
    if (this.state === state) return
    this.state = state
    this.options.changed()
  }

  private mendIn(delayMs: number, anew = false): void {
    this.stopMending()
    this.stopMending = this.options.clock.after(delayMs, () => this.enqueue(() => this.mend(anew)))
  }

  private mend(anew: boolean): void {
    const mayRestart = this.options.negotiates() && this.connection.remoteDescription !== null
    if (mayRestart && !this.restarted && !anew) {
      this.restarted = true
      this.connection.restartIce()
      // While an offer has no answer, the browser does not say that another one is needed.
      if (this.negotiation.offering) this.tell({ type: 'needed', restart: true })
    } else {
      // With the original, the side with the greater session id calls again.
      this.replace(!this.options.polite || this.options.negotiates())
    }
    this.mendIn(RESTART_MS)
  }

  /** Makes the connection anew. */
  private replace(calls: boolean): void {
    this.connection.close()
    this.negotiation.reset()
    this.stopOverdue()
    this.restarted = false
    this.connection = this.open(calls)
    this.setState('connecting')
  }
}

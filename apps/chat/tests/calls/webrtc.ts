/**
 * WebRTC as far as calls use it, in memory: connections with the states and refusals of the specification, and a network
 * between them that a test can cut. Two connections are connected when each has the other's last description.
 */
import { seeded } from '../random'

let serial = 0
const random = seeded(7)

/** Lets a random part of what waits go first, as operations of a browser take as long as they take. */
async function aWhile(): Promise<void> {
  for (let turns = Math.floor(random() * 4); turns >= 0; turns--) await Promise.resolve()
}

export class FakeTrack {
  readonly id = `track-${++serial}`
  enabled = true
  contentHint = ''
  stopped = false
  onended: (() => void) | null = null

  constructor(readonly kind: string) {}

  stop(): void {
    this.stopped = true
  }
}

export class FakeStream {
  readonly id = `stream-${++serial}`
  private tracks: FakeTrack[]

  constructor(tracks: FakeTrack[] = []) {
    this.tracks = tracks
  }

  getTracks(): FakeTrack[] {
    return [...this.tracks]
  }

  addTrack(track: FakeTrack): void {
    this.tracks.push(track)
  }

  removeTrack(track: FakeTrack): void {
    this.tracks = this.tracks.filter((other) => other !== track)
  }
}

class FakeSender {
  parameters = { encodings: [{}] as { maxBitrate?: number }[] }
  constructor(public track: FakeTrack | null) {}

  async replaceTrack(track: FakeTrack | null): Promise<void> {
    await aWhile()
    this.track = track
  }

  setStreams(): void {}

  getParameters(): FakeSender['parameters'] {
    return structuredClone(this.parameters)
  }

  async setParameters(parameters: FakeSender['parameters']): Promise<void> {
    this.parameters = parameters
  }
}

class FakeTransceiver {
  currentDirection: string | null = null
  readonly sender: FakeSender
  readonly receiver: { track: FakeTrack; getSynchronizationSources: () => { audioLevel: number }[] }

  constructor(
    kind: string,
    public direction: string,
    track: FakeTrack | null = null,
  ) {
    this.sender = new FakeSender(track)
    this.receiver = { track: new FakeTrack(kind), getSynchronizationSources: () => [{ audioLevel: 0.5 }] }
  }
}

interface Description {
  type: 'offer' | 'answer'
  sdp: string
}

/** What a description says: who wrote it, with which credentials, and which kinds of media it has. */
interface Content {
  id: string
  fingerprint: string
  ufrag: string
  media: { kind: string; direction: string }[]
  answers: string | null
}

const write = (content: Content): string =>
  `v=0\r\na=fingerprint:${content.fingerprint}\r\na=ice-ufrag:${content.ufrag}\r\nx=${JSON.stringify(content)}\r\n`
const read = (sdp: string): Content => JSON.parse(/^x=(.+)$/m.exec(sdp)?.[1] ?? '') as Content

const SENDS = ['sendrecv', 'sendonly']
const RECEIVES = ['sendrecv', 'recvonly']
const directionOf = (sends: boolean, receives: boolean): string =>
  sends ? (receives ? 'sendrecv' : 'sendonly') : receives ? 'recvonly' : 'inactive'

export class FakeNetwork {
  readonly connections: FakeConnection[] = []
  private isCut = false

  readonly connect = (configuration: RTCConfiguration = {}): RTCPeerConnection =>
    new FakeConnection(this, configuration) as unknown as RTCPeerConnection

  /** The connections that are not closed. */
  get open(): FakeConnection[] {
    return this.connections.filter(({ connectionState }) => connectionState !== 'closed')
  }

  get connected(): FakeConnection[] {
    return this.connections.filter(({ connectionState }) => connectionState === 'connected')
  }

  /** Nothing goes through any more; what is connected needs new credentials afterwards. */
  cut(): void {
    this.isCut = true
    for (const connection of this.connected) connection.become('disconnected')
  }

  heal(): void {
    this.isCut = false
    this.look()
  }

  /** Connects what fits together. */
  look(): void {
    if (this.isCut) return
    for (const one of this.open) {
      const other = this.open.find((each) => each !== one && one.fits(each) && each.fits(one))
      if (other) for (const each of [one, other]) each.become('connected')
    }
  }
}

export class FakeConnection {
  ontrack: ((event: { track: FakeTrack }) => void) | null = null
  onicecandidate: ((event: { candidate: object | null }) => void) | null = null
  onnegotiationneeded: (() => void) | null = null
  onconnectionstatechange: (() => void) | null = null
  connectionState = 'new'
  signalingState: 'stable' | 'have-local-offer' | 'have-remote-offer' | 'closed' = 'stable'
  localDescription: Description | null = null
  remoteDescription: Description | null = null
  readonly candidates: unknown[] = []
  private agreed: { local: Description | null; remote: Description | null } = { local: null, remote: null }
  private readonly fingerprint = `sha-256 F${++serial}`
  private ufrag = `U${++serial}`
  private lost: string | null = null
  private readonly transceivers: FakeTransceiver[] = []
  private isNeeded = false

  constructor(
    private readonly network: FakeNetwork,
    public configuration: RTCConfiguration,
  ) {
    network.connections.push(this)
  }

  setConfiguration(configuration: RTCConfiguration): void {
    this.configuration = configuration
  }

  addTransceiver(what: string | FakeTrack, { direction }: { direction: string }): FakeTransceiver {
    const track = typeof what === 'string' ? null : what
    const transceiver = new FakeTransceiver(typeof what === 'string' ? what : what.kind, direction, track)
    this.transceivers.push(transceiver)
    this.need()
    return transceiver
  }

  getTransceivers(): FakeTransceiver[] {
    return this.transceivers
  }

  getReceivers(): FakeTransceiver['receiver'][] {
    return this.transceivers.map(({ receiver }) => receiver)
  }

  restartIce(): void {
    this.ufrag = `U${++serial}`
    this.need()
  }

  private need(): void {
    this.isNeeded = true
    void aWhile().then(() => this.tellNeed())
  }

  private tellNeed(): void {
    if (this.isNeeded && this.signalingState === 'stable') this.onnegotiationneeded?.()
  }

  async setLocalDescription(): Promise<void> {
    this.isNeeded = false
    await aWhile()
    if (this.signalingState === 'closed') throw new DOMException('closed', 'InvalidStateError')
    const isAnswer = this.signalingState === 'have-remote-offer'
    const offered = isAnswer ? read(this.remoteDescription!.sdp) : null
    const media = offered
      ? offered.media.map(({ kind, direction }, place) => this.answerTo(kind, direction, place))
      : this.transceivers.map(({ receiver, direction }) => ({ kind: receiver.track.kind, direction }))
    const id = `D${++serial}`
    const content = { id, fingerprint: this.fingerprint, ufrag: this.ufrag, media, answers: offered?.id ?? null }
    this.localDescription = { type: isAnswer ? 'answer' : 'offer', sdp: write(content) }
    if (isAnswer) this.agree()
    else this.signalingState = 'have-local-offer'
    const candidate = `candidate:${this.ufrag}`
    void aWhile().then(() => this.onicecandidate?.({ candidate: { candidate, sdpMid: '0', sdpMLineIndex: 0 } }))
    void aWhile().then(() => this.onicecandidate?.({ candidate: null }))
  }

  private answerTo(kind: string, offered: string, place: number): { kind: string; direction: string } {
    const { direction } = this.transceivers[place]!
    const sends = SENDS.includes(direction) && RECEIVES.includes(offered)
    const receives = RECEIVES.includes(direction) && SENDS.includes(offered)
    this.transceivers[place]!.currentDirection = directionOf(sends, receives)
    return { kind, direction: directionOf(sends, receives) }
  }

  async setRemoteDescription(description: Description): Promise<void> {
    await aWhile()
    const content = read(description.sdp)
    const known = this.remoteDescription && read(this.remoteDescription.sdp).fingerprint
    if (known && known !== content.fingerprint) throw new DOMException('another certificate', 'InvalidAccessError')
    if (description.type === 'answer') {
      if (this.signalingState !== 'have-local-offer') throw new DOMException('no offer', 'InvalidStateError')
      if (content.answers !== read(this.localDescription!.sdp).id)
        throw new DOMException('other offer', 'OperationError')
      this.remoteDescription = description
      for (const [place, { direction }] of content.media.entries()) {
        const receives = SENDS.includes(direction)
        this.transceivers[place]!.currentDirection = directionOf(RECEIVES.includes(direction), receives)
      }
      this.agree()
    } else {
      if (this.signalingState === 'have-local-offer') this.localDescription = this.agreed.local
      this.remoteDescription = description
      this.signalingState = 'have-remote-offer'
      for (const { kind } of content.media.slice(this.transceivers.length))
        this.transceivers.push(new FakeTransceiver(kind, 'recvonly'))
    }
    for (const [place, { direction }] of content.media.entries())
      if (SENDS.includes(direction)) this.ontrack?.({ track: this.transceivers[place]!.receiver.track })
  }

  private agree(): void {
    this.signalingState = 'stable'
    this.agreed = { local: this.localDescription, remote: this.remoteDescription }
    const agreedMedia = read(this.localDescription!.sdp).media.length
    if (this.transceivers.length > agreedMedia || this.isNeeded) this.need()
    void aWhile().then(() => this.network.look())
  }

  async addIceCandidate(candidate: unknown): Promise<void> {
    await aWhile()
    if (!this.remoteDescription) throw new DOMException('no description', 'InvalidStateError')
    this.candidates.push(candidate)
  }

  close(): void {
    this.connectionState = 'closed'
    this.signalingState = 'closed'
  }

  become(state: string): void {
    if (this.connectionState === state || this.connectionState === 'closed') return
    if (state === 'disconnected') this.lost = this.pair
    this.connectionState = state
    this.onconnectionstatechange?.()
  }

  private get pair(): string {
    const { local, remote } = this.agreed
    return `${local ? read(local.sdp).ufrag : ''} ${remote ? read(remote.sdp).ufrag : ''}`
  }

  /** Whether this side has what the other wrote last, and credentials that were not lost. */
  fits(other: FakeConnection): boolean {
    const { local, remote } = this.agreed
    if (!local || !remote || this.signalingState !== 'stable' || this.lost === this.pair) return false
    return remote.sdp === other.agreed.local?.sdp
  }
}

/** Puts the stand-ins for streams where the code finds those of a browser. */
export function installStreams(): void {
  Object.assign(globalThis, { MediaStream: FakeStream })
}

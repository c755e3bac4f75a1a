/** The own microphone, camera and screen. Nothing is opened before somebody turns it on. */
import { Failure } from '@/protocol/errors'
import type { Meter } from './meter'
import type { TrackKind } from './peer'

export type DeviceKind = 'audioinput' | 'videoinput' | 'audiooutput'

export interface Device {
  readonly id: string
  readonly kind: DeviceKind
  /** '' until the person allowed a microphone or a camera. */
  readonly label: string
}

const CAMERA: MediaTrackConstraints = {
  width: { ideal: 960 },
  height: { ideal: 540 },
  frameRate: { ideal: 24, max: 30 },
}
const SCREEN: MediaTrackConstraints = { frameRate: { ideal: 15, max: 30 } }
const isKind = (kind: string): kind is DeviceKind =>
  kind === 'audioinput' || kind === 'videoinput' || kind === 'audiooutput'

function failureOf(error: unknown): Failure {
  const { name, message } = error as Error
  if (name === 'NotAllowedError' || name === 'SecurityError')
    return new Failure('forbidden', message, { reason: 'deviceDenied' })
  if (name === 'NotFoundError' || name === 'OverconstrainedError')
    return new Failure('missing', message, { reason: 'deviceMissing' })
  return new Failure('conflict', message, { reason: 'deviceBusy' })
}

/** The part of `navigator.mediaDevices` that is used. */
export type MediaSource = Pick<
  MediaDevices,
  'getUserMedia' | 'getDisplayMedia' | 'enumerateDevices' | 'addEventListener' | 'removeEventListener'
>

export interface MediaOptions {
  source: MediaSource
  meter: (track: MediaStreamTrack) => Meter
  /** The chosen device of a kind; null: the browser's choice. */
  chosen: (kind: DeviceKind) => string | null
  /** Tracks, devices or what is on has changed. */
  changed: () => void
}

export class LocalMedia {
  /** Empty: its id tells others that the tracks belong together. */
  readonly stream = new MediaStream()
  devices: readonly Device[] = []
  private microphone: MediaStreamTrack | null = null
  private camera: MediaStreamTrack | null = null
  private screen: MediaStreamTrack | null = null
  private meter: Meter | null = null
  private closed = false
  private readonly onDevices = (): void => void this.refresh()

  constructor(private readonly options: MediaOptions) {
    options.source.addEventListener('devicechange', this.onDevices)
  }

  get isHeard(): boolean {
    return this.microphone?.enabled ?? false
  }

  get hasCamera(): boolean {
    return this.camera !== null
  }

  get isSharing(): boolean {
    return this.screen !== null
  }

  /** What is sent: a shared screen takes the place of the camera. */
  track(kind: TrackKind): MediaStreamTrack | null {
    return kind === 'audio' ? this.microphone : (this.screen ?? this.camera)
  }

  /** How loud the own microphone is, 0 to 1. */
  level(): number {
    return this.isHeard ? (this.meter?.level() ?? 0) : 0
  }

  /** A microphone that was on stays open while it is muted, so that nothing is lost when it is on again. */
  async setMicrophone(on: boolean): Promise<void> {
    if (on && !this.microphone) this.useMicrophone(await this.open('audio'))
    if (this.microphone) this.microphone.enabled = on
    this.options.changed()
  }

  /** A camera that is off is closed, and its light is out. */
  async setCamera(on: boolean): Promise<void> {
    if (on && !this.camera) this.camera = await this.open('video')
    else if (!on) this.camera = this.stop(this.camera)
    this.options.changed()
  }

  /** Shares a screen, a window or a tab; false: the person chose none. */
  async share(): Promise<boolean> {
    let stream: MediaStream
    try {
      stream = await this.options.source.getDisplayMedia({ video: SCREEN, audio: false })
    } catch (error) {
      if ((error as Error).name === 'NotAllowedError') return false
      throw failureOf(error)
    }
    const track = this.keep(stream)
    this.stop(this.screen)
    this.screen = track
    track.contentHint = 'detail'
    this.options.changed()
    return true
  }

  stopSharing(): void {
    this.screen = this.stop(this.screen)
    this.options.changed()
  }

  /** Another device was chosen: what is on goes on with it. */
  async useChosen(kind: DeviceKind): Promise<void> {
    if (kind === 'audioinput' && this.microphone) {
      const { enabled } = this.microphone
      const next = await this.open('audio')
      next.enabled = enabled
      this.stop(this.microphone)
      this.useMicrophone(next)
    } else if (kind === 'videoinput' && this.camera) {
      // Some cameras cannot be opened twice.
      this.camera = this.stop(this.camera)
      this.camera = await this.open('video')
    }
    this.options.changed()
  }

  async refresh(): Promise<void> {
    const found = await this.options.source.enumerateDevices()
    if (this.closed) return
    this.devices = found.flatMap(({ deviceId, kind, label }) =>
      isKind(kind) && deviceId !== '' ? [{ id: deviceId, kind, label }] : [],
    )
    this.options.changed()
  }

  close(): void {
    this.closed = true
    this.options.source.removeEventListener('devicechange', this.onDevices)
    for (const track of [this.microphone, this.camera, this.screen]) this.stop(track)
    this.useMicrophone(null)
    this.camera = this.screen = null
  }

  private useMicrophone(track: MediaStreamTrack | null): void {
    this.meter?.close()
    this.microphone = track
    this.meter = track && this.options.meter(track)
  }

  private async open(kind: TrackKind): Promise<MediaStreamTrack> {
    const chosen = this.options.chosen(kind === 'audio' ? 'audioinput' : 'videoinput')
    const wanted: MediaTrackConstraints = kind === 'audio' ? {} : CAMERA
    // `ideal`: a device that is gone is no reason to have none.
    const constraints = { ...wanted, ...(chosen !== null && { deviceId: { ideal: chosen } }) }
    let stream: MediaStream
    try {
      stream = await this.options.source.getUserMedia({ [kind]: constraints })
    } catch (error) {
      throw failureOf(error)
    }
    const track = this.keep(stream)
    // The names of the devices are known from now on.
    void this.refresh()
    return track
  }

  /** The track of a stream that was opened; a call that ended meanwhile closes it again. */
  private keep(stream: MediaStream): MediaStreamTrack {
    const track = stream.getTracks()[0]
    if (!track || this.closed) {
      for (const each of stream.getTracks()) each.stop()
      throw new Failure('conflict', 'the call has ended', { reason: 'deviceBusy' })
    }
    track.onended = () => this.lose(track)
    return track
  }

  /** A device was unplugged, or the browser's own button ended the sharing. */
  private lose(track: MediaStreamTrack): void {
    if (this.microphone === track) this.useMicrophone(null)
    if (this.camera === track) this.camera = null
    if (this.screen === track) this.screen = null
    this.options.changed()
  }

  private stop(track: MediaStreamTrack | null): null {
    if (track) {
      track.onended = null
      track.stop()
    }
    return null
  }
}

import { beforeEach, describe, expect, it } from 'vitest'
import { LocalMedia, type DeviceKind, type MediaSource } from '@/calls/media'
import type { Failure } from '@/protocol/errors'
import { breathe } from '../support/clock'
import { FakeStream, FakeTrack, installStreams } from './webrtc'

installStreams()

/** The devices of a browser. */
class Devices extends EventTarget {
  readonly asked: MediaStreamConstraints[] = []
  readonly opened: FakeTrack[] = []
  /** What the next opening fails with. */
  fails: string | null = null
  empty = false
  listed: { deviceId: string; kind: string; label: string }[] = []
  /** Holds back what is opened until it is let go. */
  gate: Promise<void> = Promise.resolve()

  private async open(kind: string): Promise<MediaStream> {
    await this.gate
    if (this.fails !== null) throw new DOMException('no', this.fails)
    const track = new FakeTrack(kind)
    this.opened.push(track)
    return new FakeStream(this.empty ? [] : [track]) as unknown as MediaStream
  }

  getUserMedia(wanted: MediaStreamConstraints = {}): Promise<MediaStream> {
    this.asked.push(wanted)
    return this.open(wanted.audio ? 'audio' : 'video')
  }

  getDisplayMedia(): Promise<MediaStream> {
    return this.open('video')
  }

  async enumerateDevices(): Promise<MediaDeviceInfo[]> {
    return this.listed as unknown as MediaDeviceInfo[]
  }
}

let devices: Devices
let media: LocalMedia
let changes: number
let chosen: Partial<Record<DeviceKind, string>>
let meters: { level: number; closed: boolean }[]

beforeEach(() => {
  devices = new Devices()
  changes = 0
  chosen = {}
  meters = []
  media = new LocalMedia({
    source: devices as unknown as MediaSource,
    meter: () => {
      const meter = { level: 0.5, closed: false }
      meters.push(meter)
      return { level: () => meter.level, close: () => void (meter.closed = true) }
    },
    chosen: (kind) => chosen[kind] ?? null,
    changed: () => void (changes += 1),
  })
})

const reasonOf = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => null,
    (failure: Failure) => failure.reason,
  )

describe('the own microphone', () => {
  it('is opened when it is turned on, muted by turning it off, and as loud as it is only while it is on', async () => {
    expect([media.level(), media.isHeard]).toEqual([0, false])
    await media.setMicrophone(false)
    expect(devices.opened).toEqual([])
    await media.setMicrophone(true)
    expect([media.level(), media.isHeard, media.track('audio')]).toEqual([0.5, true, devices.opened[0]])
    await media.setMicrophone(false)
    expect([media.level(), media.isHeard, devices.opened[0]?.stopped]).toEqual([0, false, false])
    await media.setMicrophone(true)
    expect(devices.opened).toHaveLength(1)
  })

  it('that is unplugged is off, and can be turned on again', async () => {
    await media.setMicrophone(true)
    const before = changes
    devices.opened[0]?.onended?.()
    expect([media.isHeard, media.track('audio'), meters[0]?.closed, changes]).toEqual([false, null, true, before + 1])
    await media.setMicrophone(true)
    expect(devices.opened).toHaveLength(2)
  })

  it('stays as loud or as muted as it was when another one is chosen', async () => {
    await media.setMicrophone(true)
    await media.setMicrophone(false)
    chosen.audioinput = 'desk'
    await media.useChosen('audioinput')
    expect(devices.asked.at(-1)).toEqual({ audio: { deviceId: { ideal: 'desk' } } })
    expect([devices.opened[0]?.stopped, devices.opened[1]?.enabled, meters[0]?.closed]).toEqual([true, false, true])
  })
})

describe('the own camera', () => {
  it('is open only while it is on, and its light is out then', async () => {
    await media.setCamera(true)
    await media.setCamera(true)
    expect([devices.opened.length, media.hasCamera]).toEqual([1, true])
    await media.setCamera(false)
    expect([media.hasCamera, devices.opened[0]?.stopped]).toEqual([false, true])
    devices.opened[0]?.onended?.()
    expect(media.hasCamera).toBe(false)
  })

  it('is closed before another one is opened, since some cannot be opened twice', async () => {
    await media.setCamera(true)
    chosen.videoinput = 'front'
    await media.useChosen('videoinput')
    expect(devices.opened.map(({ stopped }) => stopped)).toEqual([true, false])
    expect(devices.asked.at(-1)).toMatchObject({ video: { deviceId: { ideal: 'front' } } })
    devices.opened[1]?.onended?.()
    expect(media.hasCamera).toBe(false)
  })

  it('and the microphone are not opened by a choice while they are off', async () => {
    for (const kind of ['audioinput', 'videoinput', 'audiooutput'] as const) await media.useChosen(kind)
    expect(devices.opened).toEqual([])
  })
})

describe('the own screen', () => {
  it('takes the place of the camera until the sharing is stopped', async () => {
    await media.setCamera(true)
    expect(await media.share()).toBe(true)
    const [camera, screen] = devices.opened
    expect([media.track('video'), media.isSharing, screen?.contentHint]).toEqual([screen, true, 'detail'])
    expect(await media.share()).toBe(true)
    expect(screen?.stopped).toBe(true)
    media.stopSharing()
    expect([media.track('video'), media.isSharing, devices.opened[2]?.stopped]).toEqual([camera, false, true])
  })

  it('is not shared where the person chose none, and it is said where it cannot be', async () => {
    devices.fails = 'NotAllowedError'
    expect(await media.share()).toBe(false)
    devices.fails = 'NotReadableError'
    expect(await reasonOf(media.share())).toBe('deviceBusy')
    expect(media.isSharing).toBe(false)
  })
})

describe('a device', () => {
  it.each([
    ['NotAllowedError', 'deviceDenied'],
    ['SecurityError', 'deviceDenied'],
    ['NotFoundError', 'deviceMissing'],
    ['OverconstrainedError', 'deviceMissing'],
    ['NotReadableError', 'deviceBusy'],
  ])('that cannot be used says why: %s', async (name, reason) => {
    devices.fails = name
    expect(await reasonOf(media.setCamera(true))).toBe(reason)
    expect(await reasonOf(media.setMicrophone(true))).toBe(reason)
    expect([media.hasCamera, media.isHeard]).toEqual([false, false])
  })

  it('that gives no track is none', async () => {
    devices.empty = true
    expect(await reasonOf(media.setMicrophone(true))).toBe('deviceBusy')
  })

  it('that opens after the call has ended is closed again', async () => {
    let open = (): void => undefined
    devices.gate = new Promise((resolve) => (open = resolve))
    const opening = reasonOf(media.setCamera(true))
    media.close()
    open()
    expect(await opening).toBe('deviceBusy')
    expect(devices.opened.map(({ stopped }) => stopped)).toEqual([true])
  })

  it('is listed by its name, and the list follows what is plugged in, until the end', async () => {
    devices.listed = [
      { deviceId: 'mic', kind: 'audioinput', label: 'Desk' },
      { deviceId: '', kind: 'videoinput', label: '' },
      { deviceId: 'odd', kind: 'other', label: 'Odd' },
    ]
    devices.dispatchEvent(new Event('devicechange'))
    await breathe(1)
    expect(media.devices).toEqual([{ id: 'mic', kind: 'audioinput', label: 'Desk' }])
    const late = media.refresh()
    media.close()
    devices.listed = []
    await late
    devices.dispatchEvent(new Event('devicechange'))
    await breathe(1)
    expect(media.devices).toHaveLength(1)
  })
})

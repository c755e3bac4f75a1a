import { beforeEach, describe, expect, it } from 'vitest'
import type { Value } from '@/protocol/codec'
import type { CallPlatform } from '@/stores/platform'
import { FakeNetwork, FakeStream, FakeTrack, installStreams } from '../calls/webrtc'
import { breathe } from '../support/clock'
import type { Tester } from '../support/person'
import { World } from './world'

installStreams()

let world: World
let network: FakeNetwork
let alice: Tester
let bob: Tester
let roomId: string

/** Devices that a test gives and takes. */
class Devices extends EventTarget {
  denies = false
  readonly opened: FakeTrack[] = []

  private open(kind: string): MediaStream {
    if (this.denies) throw new DOMException('no', 'NotAllowedError')
    const track = new FakeTrack(kind)
    this.opened.push(track)
    return new FakeStream([track]) as unknown as MediaStream
  }

  async getUserMedia(wanted: MediaStreamConstraints = {}): Promise<MediaStream> {
    return this.open(wanted.audio ? 'audio' : 'video')
  }

  async getDisplayMedia(): Promise<MediaStream> {
    return this.open('video')
  }

  async enumerateDevices(): Promise<MediaDeviceInfo[]> {
    const device = { deviceId: 'mic-1', kind: 'audioinput', label: 'Desk', groupId: '' }
    return [device, { ...device, deviceId: '' }, { ...device, kind: 'other' }] as unknown as MediaDeviceInfo[]
  }
}

const devices = new Map<string, Devices>()
let level = 0

function callsFor(name: string): CallPlatform {
  const media = new Devices()
  devices.set(name, media)
  return { media, meter: () => ({ level: () => level, close: () => undefined }), connect: network.connect }
}

async function arrive(name: string): Promise<Tester> {
  const tester = world.make(name, undefined, callsFor(name))
  await tester.start()
  await world.pass(500)
  return tester
}

const place = (sessionId: string): string => `/chat/room/${roomId}/video/presence/${sessionId}`
const presenceOf = (tester: Tester): Value | undefined => world.relay.value(place(sessionOf(tester)))
const sessionOf = (tester: Tester): string => tester.connection.sessionId ?? ''
const names = (tester: Tester): string[] => (tester.calls.current?.people ?? []).map(({ name }) => name)
const states = (tester: Tester): string[] => (tester.calls.current?.people ?? []).map(({ state }) => state)

async function join(...testers: Tester[]): Promise<void> {
  for (const tester of testers) await world.done(tester.calls.join(roomId))
  await world.pass(500)
}

/** Somebody in the call by another program, which answers nothing. */
function stranger(sessionId: string, userId: string, part: object = {}): void {
  const times = { joinedAt: world.clock.now(), lastSeen: world.clock.now() }
  world.relay.put(place(sessionId), { name: userId, avatarColor: '#aa33cc', userId, ...times, ...part })
}

beforeEach(async () => {
  network = new FakeNetwork()
  level = 0
  world = new World()
  alice = await arrive('Alice')
  bob = await arrive('Bob')
  roomId = await world.room(alice, [bob])
})

describe('a call', () => {
  it('is joined silent, and shown to the others, who connect', async () => {
    const stop = bob.calls.watch(roomId)
    await join(alice)
    expect(presenceOf(alice)).toMatchObject({
      userId: alice.userId,
      name: 'Alice',
      audioEnabled: false,
      videoEnabled: false,
      screen: false,
      negotiates: true,
    })
    expect(devices.get('Alice')?.opened).toEqual([])
    expect(bob.calls.callers(roomId)).toMatchObject([{ userId: alice.userId, name: 'Alice' }])
    await join(bob)
    expect([names(alice), names(bob)]).toEqual([
      ['Alice', 'Bob'],
      ['Bob', 'Alice'],
    ])
    expect([states(alice), states(bob)]).toEqual([
      ['connected', 'connected'],
      ['connected', 'connected'],
    ])
    stop()
  })

  it('tells the others what is on, and a shared screen takes the place of the camera', async () => {
    await join(alice, bob)
    await alice.calls.setMicrophone(true)
    await alice.calls.setCamera(true)
    await alice.calls.share()
    await world.pass(500)
    expect(bob.calls.current?.people[1]).toMatchObject({ heard: true, video: true, screen: true })
    const [microphone, camera, screen] = devices.get('Alice')?.opened ?? []
    const sent = network.open.flatMap((each) => each.getTransceivers().map(({ sender }) => sender.track))
    expect(sent).toEqual(expect.arrayContaining([microphone, screen]))
    // The browser's own button.
    screen?.onended?.()
    await alice.calls.setMicrophone(false)
    await world.pass(500)
    expect(bob.calls.current?.people[1]).toMatchObject({ heard: false, video: true, screen: false })
    expect([microphone?.stopped, microphone?.enabled]).toEqual([false, false])
    await alice.calls.setCamera(false)
    expect(camera?.stopped).toBe(true)
    expect(alice.calls.current).toMatchObject({ microphone: false, camera: false, sharing: false })
  })

  it('goes on with another device that is chosen', async () => {
    await join(alice)
    await alice.calls.setMicrophone(true)
    await world.done(alice.calls.choose('audioinput', 'mic-1'))
    const [first, second] = devices.get('Alice')?.opened ?? []
    expect([first?.stopped, second?.stopped]).toEqual([true, false])
    expect(alice.calls.chosen('audioinput')).toBe('mic-1')
    expect(alice.calls.current?.devices).toEqual([{ id: 'mic-1', kind: 'audioinput', label: 'Desk' }])
    await world.done(alice.calls.choose('audioinput', null))
    expect(alice.calls.chosen('audioinput')).toBe(null)
  })

  it('says why a device cannot be used, and takes a screen that nobody chose as no error', async () => {
    await join(alice)
    devices.get('Alice')!.denies = true
    await expect(alice.calls.setCamera(true)).rejects.toMatchObject({ reason: 'deviceDenied' })
    await alice.calls.share()
    expect(alice.calls.current?.sharing).toBe(false)
  })

  it('marks who speaks, for a moment longer than they do', async () => {
    await join(alice)
    await alice.calls.setMicrophone(true)
    level = 0.5
    await world.pass(300)
    expect(alice.calls.isSpeaking(sessionOf(alice))).toBe(true)
    level = 0
    await world.pass(200)
    expect(alice.calls.isSpeaking(sessionOf(alice))).toBe(true)
    await world.pass(800)
    expect(alice.calls.isSpeaking(sessionOf(alice))).toBe(false)
  })

  it('is left at once: by the button, by leaving the room, and when the page closes', async () => {
    for (const leave of [
      () => alice.calls.leave(),
      () => void alice.rooms.leave(roomId),
      () => alice.listeners.close(),
    ]) {
      await world.done(alice.rooms.join(roomId))
      await join(alice)
      await alice.calls.setMicrophone(true)
      expect(presenceOf(alice)).toBeDefined()
      leave()
      await world.pass(300)
      expect(presenceOf(alice)).toBeUndefined()
      expect(alice.calls.current).toBe(null)
      expect(devices.get('Alice')?.opened.every(({ stopped }) => stopped)).toBe(true)
    }
  })

  it('that is left while it is being joined is not joined', async () => {
    const joining = alice.calls.join(roomId)
    alice.calls.leave()
    await world.done(joining)
    await world.pass(1_000)
    expect(presenceOf(alice)).toBeUndefined()
    expect(alice.calls.current).toBe(null)
  })

  it('takes eight people, and those with the earlier places when two come at once', async () => {
    for (let n = 0; n < 7; n++) stranger(`s-${n}`, `user-${n}`, { joinedAt: n })
    await join(alice)
    expect(alice.calls.current?.people).toHaveLength(8)
    await expect(world.done(bob.calls.join(roomId))).rejects.toMatchObject({ reason: 'callFull' })
    expect(presenceOf(bob)).toBeUndefined()
    stranger('s-8', 'user-8', { joinedAt: 8 })
    await world.pass(300)
    expect(alice.calls.current).toBe(null)
    expect(alice.notifications.notices.map(({ key }) => key)).toContain('reasons.callFull')
  })

  it('is not joined where the relay refuses it, and ends where it refuses it later', async () => {
    const refusing = (message: { type: string; address?: string; value?: unknown }) =>
      message.type === 'SET' && message.address?.includes('/video/') && message.value !== null
        ? { code: 403, message: 'no' }
        : null
    world.relay.policy = refusing as never
    await expect(world.done(alice.calls.join(roomId))).rejects.toMatchObject({ kind: 'forbidden' })
    expect(alice.calls.current).toBe(null)
    world.relay.policy = () => null
    await join(alice)
    world.relay.policy = refusing as never
    for (let passed = 0; passed < 11 && alice.calls.current; passed++) await world.pass(1_000)
    expect(alice.calls.current).toBe(null)
    expect(alice.notifications.notices.map(({ key }) => key)).toContain('calls.refused')
  })

  it('goes on under another session id after a reconnect', async () => {
    await join(alice, bob)
    const before = sessionOf(alice)
    world.relay.restart()
    await world.pass(5_000)
    expect(sessionOf(alice)).not.toBe(before)
    expect(world.relay.value(place(before))).toBeUndefined()
    expect([states(alice), states(bob)]).toEqual([
      ['connected', 'connected'],
      ['connected', 'connected'],
    ])
  })

  it('forgets who has said nothing for long, but nobody who is connected', async () => {
    await join(alice, bob)
    stranger('s-9', 'olga')
    await world.pass(300)
    expect(names(alice)).toHaveLength(3)
    await world.pass(40_000)
    expect(names(alice)).toEqual(['Alice', 'Bob'])
  })
})

describe('nobody is connected', () => {
  it('who is blocked, from the moment on, until they are no more', async () => {
    await join(alice, bob)
    await world.done(alice.blocks.block(bob.userId, 'Bob'))
    await world.pass(300)
    expect(names(alice)).toEqual(['Alice'])
    expect(alice.calls.callers(roomId).map(({ name }) => name)).toEqual(['Alice'])
    await world.done(alice.blocks.unblock(bob.userId))
    await world.pass(30_000)
    expect(states(alice)).toEqual(['connected', 'connected'])
  })

  it('who is banned or removed from the room, also if their program stays in the call', async () => {
    await join(alice)
    for (const address of [`bans/olga`, `presence/olga`]) {
      const base = `/chat/room/${roomId}`
      world.relay.put(`${base}/presence/olga`, { name: 'Olga', avatarColor: '#aa33cc', joinedAt: 1 })
      stranger('s-9', 'olga')
      await world.pass(300)
      expect(alice.calls.current?.people).toHaveLength(2)
      world.relay.put(`${base}/${address}`, address.startsWith('bans') ? { bannedBy: alice.userId } : null)
      await world.pass(300)
      expect(alice.calls.current?.people).toHaveLength(1)
      stranger('s-9', 'olga')
      await world.pass(300)
      expect(alice.calls.current?.people).toHaveLength(1)
      world.relay.put(`${base}/bans/olga`, null)
      world.relay.put(place('s-9'), null)
      await world.pass(300)
    }
  })

  it('who moderators remove: their places are deleted, too', async () => {
    await join(alice, bob)
    await world.done(alice.members.kick(roomId, bob.userId))
    await world.pass(300)
    expect(presenceOf(bob)).toBeUndefined()
    expect(bob.calls.current).toBe(null)
    expect(names(alice)).toEqual(['Alice'])
  })

  it('by a signal in somebody else’s name', async () => {
    await join(alice, bob)
    const agreed = network.open.map(({ remoteDescription }) => remoteDescription)
    const signal = { from: sessionOf(bob), type: 'offer', sdp: { type: 'offer', sdp: 'v=0' }, userId: 'olga' }
    world.relay.emit(`/chat/room/${roomId}/video/signal/${sessionOf(alice)}`, signal)
    await world.pass(500)
    expect(network.open.map(({ remoteDescription }) => remoteDescription)).toEqual(agreed)
    expect(states(alice)).toEqual(['connected', 'connected'])
  })
})

describe('a direct message', () => {
  it('rings, for the one who is elsewhere', async () => {
    const dm = `dm-${alice.userId}-${bob.userId}`
    const users = { [alice.userId]: 'Alice', [bob.userId]: 'Bob' }
    world.relay.put(`/chat/room/${dm}/meta`, { name: 'DM', type: 'dm', isPublic: false, dmUsers: users })
    await world.done(alice.rooms.join(dm))
    await world.done(bob.rooms.join(dm))
    await world.pass(1_000)
    roomId = dm
    await join(alice)
    const ringing = bob.notifications.notices.filter(({ key }) => key === 'calls.ringing')
    expect(ringing).toMatchObject([{ roomId: dm, params: { name: 'Alice' } }])
    expect(alice.notifications.notices.filter(({ key }) => key === 'calls.ringing')).toEqual([])
    await breathe()
  })
})

describe('the servers', () => {
  it('are renewed at half of their life time, with new ICE credentials', async () => {
    let asked = 0
    const carol = world.make('Carol', undefined, callsFor('Carol'), async (url) => {
      if (!url.endsWith('/auth/turn')) return new Response('{}', { status: 404 })
      asked += 1
      const server = { urls: ['turn:turn.test'], username: `user-${asked}`, credential: 'secret' }
      const expires = Math.round(world.clock.now() / 1000) + 600
      return Response.json({ ice_servers: [server], expires_at: expires })
    })
    await carol.start()
    await world.done(carol.rooms.join(roomId))
    await join(alice, carol)
    expect([carol.calls.current?.hasRelay, alice.calls.current?.hasRelay]).toEqual([true, false])
    const ownConnections = () => network.open.filter(({ configuration }) => configuration.iceServers?.length)
    const [connection] = ownConnections()
    expect(connection?.configuration.iceServers).toMatchObject([{ urls: ['turn:turn.test'], username: 'user-1' }])
    const before = connection?.localDescription
    await world.clock.pass(301_000, 1_000)
    expect(ownConnections()).toEqual([connection])
    expect(connection?.configuration.iceServers).toMatchObject([{ username: 'user-2' }])
    expect(connection?.localDescription).not.toBe(before)
    expect(states(carol)).toEqual(['connected', 'connected'])
  })
})

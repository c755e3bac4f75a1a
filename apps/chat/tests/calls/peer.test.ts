import fc from 'fast-check'
import { beforeEach, describe, expect, it } from 'vitest'
import { Peer, type OutgoingSignal, type PeerOptions } from '@/calls/peer'
import { parseSignal, type Signal } from '@/protocol/shapes'
import { breathe, FakeClock } from '../support/clock'
import { FakeNetwork, FakeStream, FakeTrack, installStreams, type FakeConnection } from './webrtc'

installStreams()

let clock: FakeClock
let network: FakeNetwork

/** Two peers, and what is on the way between them. */
class Pair {
  readonly ways: [Signal[], Signal[]] = [[], []]
  readonly tracks: [Partial<Record<string, FakeTrack>>, Partial<Record<string, FakeTrack>>] = [{}, {}]
  readonly peers: [Peer, Peer]
  /** Whether messages arrive by themselves. */
  flows = true

  constructor(readonly negotiates: [boolean, boolean] = [true, true]) {
    this.peers = [this.make(0), this.make(1)]
  }

  private make(place: 0 | 1): Peer {
    const options: PeerOptions = {
      polite: place === 0,
      negotiates: () => this.negotiates[place === 0 ? 1 : 0],
      connect: () => network.connect(),
      send: (signal) => this.send(place, signal),
      clock,
      stream: new FakeStream() as unknown as MediaStream,
      track: (kind) => (this.tracks[place][kind] ?? null) as unknown as MediaStreamTrack | null,
      maxBitrate: () => 500_000,
      changed: () => undefined,
    }
    return new Peer(options)
  }

  startAgain(place: 0 | 1): void {
    this.peers[place].close()
    this.peers[place] = this.make(place)
  }

  private send(place: 0 | 1, signal: OutgoingSignal): void {
    // As it comes out of the relay.
    const heard = parseSignal({ ...signal, from: `s-${place}` })
    if (heard) this.ways[place].push(heard)
    if (this.flows) queueMicrotask(() => this.deliver(place))
  }

  deliver(place: 0 | 1): void {
    const signal = this.ways[place].shift()
    if (signal) this.peers[place === 0 ? 1 : 0].hear(signal)
  }

  async settle(): Promise<void> {
    for (let quiet = 0; quiet < 3; quiet++) {
      while (this.ways[0].length + this.ways[1].length > 0) {
        quiet = 0
        this.deliver(0)
        this.deliver(1)
        await breathe(1)
      }
      await breathe(2)
    }
  }

  get states(): string[] {
    return this.peers.map(({ state }) => state)
  }
}

/** What a connection sends of a kind. */
const sent = (connection: FakeConnection, kind: string): FakeTrack | null | undefined =>
  connection.getTransceivers().find(({ receiver }) => receiver.track.kind === kind)?.sender.track

beforeEach(() => {
  clock = new FakeClock()
  network = new FakeNetwork()
})

describe('two peers', () => {
  it('connect, with both kinds both ways from the beginning', async () => {
    const pair = new Pair()
    await pair.settle()
    expect(pair.states).toEqual(['connected', 'connected'])
    for (const connection of network.open)
      expect(connection.getTransceivers().map(({ currentDirection }) => currentDirection)).toEqual([
        'sendrecv',
        'sendrecv',
      ])
    for (const peer of pair.peers) expect(peer.stream.getTracks()).toHaveLength(2)
    expect(pair.peers[0].level()).toBe(0.5)
  })

  it('send what is turned on later without agreeing on it again', async () => {
    const pair = new Pair()
    await pair.settle()
    const descriptions = network.open.map(({ localDescription }) => localDescription)
    const camera = new FakeTrack('video')
    pair.tracks[0]['video'] = camera
    pair.peers[0].updateTracks()
    await pair.settle()
    expect(network.open.map((connection) => sent(connection, 'video'))).toContain(camera)
    expect(network.open.map(({ localDescription }) => localDescription)).toEqual(descriptions)
    const senders = network.open.map((connection) => connection.getTransceivers()[1]!.sender)
    expect(senders.find(({ track }) => track === camera)?.parameters.encodings).toEqual([{ maxBitrate: 500_000 }])
  })

  it('send no candidates of TCP, to which no browser listens', () => {
    const pair = new Pair()
    pair.flows = false
    const [, caller] = network.connections
    caller!.onicecandidate?.({
      candidate: { candidate: 'candidate:1', sdpMid: '0', sdpMLineIndex: 0, tcpType: 'active' },
    })
    expect(pair.ways[1]).toEqual([])
  })

  it('connect again with new credentials when nothing has come for five seconds', async () => {
    const pair = new Pair()
    await pair.settle()
    const before = [...network.open]
    network.cut()
    expect(pair.states).toEqual(['interrupted', 'interrupted'])
    network.heal()
    await pair.settle()
    expect(pair.states).toEqual(['interrupted', 'interrupted'])
    clock.advance(5_000)
    await pair.settle()
    expect(pair.states).toEqual(['connected', 'connected'])
    expect(network.open).toEqual(before)
  })

  it('make the connection anew when new credentials do not help', async () => {
    const pair = new Pair()
    await pair.settle()
    const before = [...network.open]
    network.cut()
    clock.advance(5_000)
    await pair.settle()
    clock.advance(12_000)
    await pair.settle()
    network.heal()
    for (let passed = 0; passed < 40 && network.connected.length < 2; passed++) {
      clock.advance(1_000)
      await pair.settle()
    }
    expect(pair.states).toEqual(['connected', 'connected'])
    expect(network.open.some((connection) => before.includes(connection))).toBe(false)
    expect(network.open).toHaveLength(2)
  })

  it('connect again at once, by new credentials, where the browser gives up', async () => {
    const pair = new Pair()
    await pair.settle()
    const before = [...network.open]
    for (const connection of before) connection.become('failed')
    expect(pair.states).toEqual(['interrupted', 'interrupted'])
    clock.advance(0)
    await pair.settle()
    expect(pair.states).toEqual(['connected', 'connected'])
    expect(network.open).toEqual(before)
  })

  it('get new credentials also while an offer has no answer', async () => {
    const pair = new Pair()
    await pair.settle()
    pair.flows = false
    // Offered, and not heard by the other side yet.
    pair.peers[1].renew({})
    await breathe(2)
    network.cut()
    clock.advance(5_000)
    await breathe(2)
    network.heal()
    pair.flows = true
    await pair.settle()
    expect(pair.states).toEqual(['connected', 'connected'])
  })

  it('care for no state but those that say something', async () => {
    const pair = new Pair()
    await pair.settle()
    const [, , closed] = [...network.connections, network.connect() as unknown as FakeConnection]
    network.open[0]?.become('connecting')
    expect(pair.states).toEqual(['connected', 'connected'])
    for (const peer of pair.peers) peer.close()
    closed?.become('failed')
    expect(clock.waiting).toBe(0)
  })

  it('take the other’s new connection, in an offer and in an answer', async () => {
    for (const place of [0, 1] as const) {
      const pair = new Pair()
      await pair.settle()
      // The other program started again. The impolite one offers; the polite one answers an offer for the old one.
      pair.startAgain(place)
      network.cut()
      network.heal()
      clock.advance(5_000)
      await pair.settle()
      expect(pair.states).toEqual(['connected', 'connected'])
      for (const peer of pair.peers) peer.close()
    }
  })

  it('connect after errors, by starting again', async () => {
    const pair = new Pair()
    await pair.settle()
    pair.peers[0].hear({ type: 'offer', from: 's-1', userId: null, sdp: 'nonsense', serial: null })
    await pair.settle()
    for (let passed = 0; passed < 40 && network.connected.length < 2; passed++) {
      clock.advance(1_000)
      await pair.settle()
    }
    expect(network.connected).toHaveLength(2)
  })

  it('make an offer again that nobody has answered', async () => {
    const pair = new Pair()
    pair.flows = false
    await breathe()
    // Lost on the way.
    pair.ways[1].length = 0
    await breathe()
    clock.advance(10_000)
    pair.flows = true
    await pair.settle()
    expect(pair.states).toEqual(['connected', 'connected'])
  })

  it('do nothing after they were closed', async () => {
    const pair = new Pair()
    await pair.settle()
    for (const peer of pair.peers) peer.close()
    clock.advance(60_000)
    await pair.settle()
    expect(network.open).toEqual([])
    expect(clock.waiting).toBe(0)
  })

  it('connect whatever happens on the way, once it stops happening', async () => {
    const step = fc.constantFrom(
      'deliver0',
      'deliver1',
      'again0',
      'again1',
      'renew0',
      'renew1',
      'track0',
      'track1',
      'wait',
    )
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
        clock = new FakeClock()
        network = new FakeNetwork()
        const pair = new Pair()
        pair.flows = false
        for (const each of steps) {
          const place = each.endsWith('1') ? 1 : 0
          const next = pair.ways[place][0]
          if (each.startsWith('deliver')) pair.deliver(place)
          else if (each.startsWith('again') && next) pair.peers[place === 0 ? 1 : 0].hear(next)
          else if (each.startsWith('renew')) pair.peers[place].renew({})
          else if (each.startsWith('track')) {
            pair.tracks[place]['audio'] = new FakeTrack('audio')
            pair.peers[place].updateTracks()
          } else await breathe(2)
          await breathe(1)
        }
        await pair.settle()
        for (let passed = 0; passed < 60 && network.connected.length < 2; passed++) {
          clock.advance(1_000)
          await pair.settle()
        }
        expect(pair.states).toEqual(['connected', 'connected'])
        const tracks = network.connected.map((connection) => sent(connection, 'audio') ?? null)
        for (const { audio } of pair.tracks) if (audio) expect(tracks).toContain(audio)
        for (const peer of pair.peers) peer.close()
      }),
      { numRuns: 60 },
    )
  })
})

describe('with the original', () => {
  it('waits for its call when it has the greater session id, and asks for what it turned on later', async () => {
    // The second side is the original: it negotiates nothing.
    const pair = new Pair([true, false])
    await pair.settle()
    expect(pair.states).toEqual(['connected', 'connected'])
    const [own] = network.open
    own!.getTransceivers()[0]!.currentDirection = 'sendonly'
    const before = own!.localDescription
    pair.peers[0].expect('audio')
    await pair.settle()
    expect(own!.localDescription).not.toBe(before)
    const agreed = own!.localDescription
    pair.peers[0].expect('audio')
    await pair.settle()
    expect(own!.localDescription).toBe(agreed)
  })

  it('makes a connection that has failed anew, a moment later, when the original has given up the old one', async () => {
    const pair = new Pair([false, false])
    await pair.settle()
    const before = [...network.open]
    for (const connection of before) connection.become('failed')
    clock.advance(1_000)
    await pair.settle()
    expect(network.open).toEqual(expect.arrayContaining([before[1]]))
    clock.advance(500)
    await pair.settle()
    for (let passed = 0; passed < 30 && network.connected.length < 2; passed++) {
      clock.advance(1_000)
      await pair.settle()
    }
    expect(network.connected).toHaveLength(2)
    expect(network.open.some((connection) => connection === before[1])).toBe(false)
  })

  it('makes a broken connection anew instead of restarting it', async () => {
    const pair = new Pair([false, true])
    await pair.settle()
    const before = [...network.open]
    network.cut()
    network.heal()
    clock.advance(5_000)
    await pair.settle()
    expect(pair.states[1]).toBe('connected')
    expect(network.open.some((connection) => before.includes(connection))).toBe(false)
  })
})

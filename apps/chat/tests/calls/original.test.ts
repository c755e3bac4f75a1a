/**
 * The contract with the original app: each shape that it writes and reads in a call, in both directions, and a whole call
 * with a stand-in that does what the original does and no more.
 */
import { beforeEach, describe, expect, it } from 'vitest'
import type { Value } from '@/protocol/codec'
import { parseCaller, parseSignal } from '@/protocol/shapes'
import { breathe } from '../support/clock'
import { OneCall, mailbox, place } from './line'
import { FakeTrack, installStreams, type FakeConnection } from './webrtc'

installStreams()

const CANDIDATE = { candidate: 'candidate:1 1 udp 2122260223 192.0.2.1 54400 typ host', sdpMid: '0', sdpMLineIndex: 0 }

describe('what the original writes', () => {
  it('is read: an offer and an answer, without a number and without a user', () => {
    for (const type of ['offer', 'answer'] as const) {
      const written = { from: 's-9', type, sdp: { type, sdp: 'v=0\r\n' } }
      expect(parseSignal(written)).toEqual({ from: 's-9', userId: null, type, sdp: 'v=0\r\n', serial: null })
    }
  })

  it('is read: a candidate, as the browser names its place or does not', () => {
    for (const [part, mid, index] of [
      [{}, '0', 0],
      [{ sdpMid: null }, null, 0],
      [{ sdpMid: null, sdpMLineIndex: null }, null, null],
      [{ sdpMLineIndex: 1 }, '0', 1],
    ] as const) {
      const written = { from: 's-9', type: 'ice-candidate', candidate: { ...CANDIDATE, ...part } }
      const candidate = { candidate: CANDIDATE.candidate, sdpMid: mid, sdpMLineIndex: index }
      expect(parseSignal(written)).toEqual({ from: 's-9', userId: null, type: 'ice-candidate', candidate })
    }
  })

  it('is read: a presence, which says neither who it is nor that it negotiates', () => {
    const written = {
      name: 'Olga',
      avatarColor: '#e63946',
      audioEnabled: true,
      videoEnabled: false,
      joinedAt: 5,
      lastSeen: 6,
    }
    expect(parseCaller(written)).toEqual({
      userId: null,
      name: 'Olga',
      avatarColor: '#e63946',
      audioEnabled: true,
      videoEnabled: false,
      screen: false,
      negotiates: false,
      joinedAt: 5,
    })
    expect(parseCaller(null)).toBe(null)
  })

  it('is not taken for what it is not', () => {
    for (const written of [
      null,
      'offer',
      { type: 'offer', sdp: { type: 'offer', sdp: 'v=0' } },
      { from: 7, type: 'offer', sdp: { type: 'offer', sdp: 'v=0' } },
      { from: 's-9', type: 'offer', sdp: 'v=0' },
      { from: 's-9', type: 'offer', sdp: { type: 'answer', sdp: 'v=0' } },
      { from: 's-9', type: 'offer', sdp: { type: 'offer', sdp: '' } },
      { from: 's-9', type: 'ice-candidate' },
      { from: 's-9', type: 'ice-candidate', candidate: { sdpMid: '0' } },
      { from: 's-9', type: 'hang-up' },
    ])
      expect(parseSignal(written)).toBe(null)
  })
})

let one: OneCall
let olga: Original

/** What the original does in a call, on the connections of a browser: no negotiation, and no offer of what comes later. */
class Original {
  connection: FakeConnection | null = null
  private early: unknown[] = []
  readonly answered: string[] = []
  readonly faults: unknown[] = []
  private heard = 0

  constructor(
    readonly sessionId: string,
    private readonly peer: string,
  ) {}

  get calls(): boolean {
    return this.sessionId.localeCompare(this.peer) > 0
  }

  enter(part: object = {}): void {
    const times = { joinedAt: one.clock.now(), lastSeen: one.clock.now() }
    const flags = { audioEnabled: false, videoEnabled: false, ...part }
    one.see(this.sessionId, { name: 'Olga', avatarColor: '#e63946', ...flags, ...times } as Value)
  }

  /** @param microphone what it has on already; then it offers that alone. */
  async see(microphone: FakeTrack | null = null): Promise<void> {
    if (this.connection || !this.calls) return
    const connection = this.make()
    if (microphone) connection.addTransceiver(microphone, { direction: 'sendrecv' })
    else for (const kind of ['audio', 'video']) connection.addTransceiver(kind, { direction: 'recvonly' })
    await this.offer()
  }

  lose(): void {
    this.connection?.close()
    this.connection = null
  }

  async turnOn(kind: string): Promise<FakeTrack> {
    const track = new FakeTrack(kind)
    const { connection } = this
    const free = connection?.getTransceivers().find(({ receiver, sender }) => {
      return receiver.track.kind === kind && sender.track === null
    })
    if (free) {
      free.sender.track = track
      free.direction = 'sendrecv'
    } else connection?.addTransceiver(track, { direction: 'sendrecv' })
    if (this.calls) await this.offer()
    this.enter({ audioEnabled: kind === 'audio', videoEnabled: kind === 'video' })
    return track
  }

  private make(): FakeConnection {
    const connection = one.network.connect() as unknown as FakeConnection
    this.connection = connection
    connection.onicecandidate = ({ candidate }) => {
      if (candidate) this.emit({ type: 'ice-candidate', candidate })
    }
    return connection
  }

  private emit(signal: object): void {
    one.line.deliver(mailbox(this.peer), { from: this.sessionId, ...signal } as unknown as Value)
  }

  private async offer(): Promise<void> {
    await this.connection?.setLocalDescription()
    const { type, sdp } = this.connection!.localDescription!
    this.emit({ type, sdp: { type, sdp } })
  }

  /** Reads what was sent to it since the last time, as the original does: by these names, and no others. */
  async listen(): Promise<void> {
    const signals = one.line.to(mailbox(this.sessionId)) as Record<string, unknown>[]
    for (; this.heard < signals.length; this.heard++) {
      const { from, type, sdp, candidate } = signals[this.heard]!
      expect(from).toBe(this.peer)
      try {
        if (type === 'offer') {
          const connection = this.connection ?? this.make()
          await connection.setRemoteDescription(sdp as never)
          await this.addEarly()
          await connection.setLocalDescription()
          const answer = connection.localDescription!
          this.answered.push(answer.sdp)
          this.emit({ type: answer.type, sdp: answer })
        } else if (type === 'answer') {
          await this.connection?.setRemoteDescription(sdp as never)
          await this.addEarly()
        } else if (this.connection?.remoteDescription) await this.connection.addIceCandidate(candidate)
        else this.early.push(candidate)
      } catch (error) {
        this.faults.push(error)
      }
    }
  }

  private async addEarly(): Promise<void> {
    for (const candidate of this.early.splice(0)) await this.connection?.addIceCandidate(candidate)
  }
}

async function settle(): Promise<void> {
  for (let quiet = 0; quiet < 6; quiet++) {
    await breathe(1)
    await olga.listen()
  }
}

async function meet(session: string): Promise<void> {
  one = new OneCall()
  olga = new Original(session, 's-5')
  await one.call.start()
  olga.enter()
  await olga.see()
  await settle()
}

beforeEach(() => {
  one = new OneCall()
})

describe('what the original reads', () => {
  it('is written: a presence with its fields, and more beside them', async () => {
    await one.call.start()
    const [value] = one.line.to(place('s-5')) as Record<string, unknown>[]
    expect(value).toMatchObject({ name: 'Ada', avatarColor: '#e63946', audioEnabled: false, videoEnabled: false })
    expect([typeof value?.['joinedAt'], typeof value?.['lastSeen']]).toEqual(['number', 'number'])
    one.call.leave()
    expect(one.line.to(place('s-5')).at(-1)).toBe(null)
  })

  it('is written: offers, answers and candidates by its names, with nothing in their place', async () => {
    const kinds = new Set<unknown>()
    for (const session of ['s-1', 's-9']) {
      await meet(session)
      for (const signal of one.line.to(mailbox(session)) as Record<string, unknown>[]) {
        const { from, type, sdp, candidate, userId, serial, ...rest } = signal
        kinds.add(type)
        expect([from, userId, Object.keys(rest)]).toEqual(['s-5', 'ada', []])
        if (type === 'ice-candidate') {
          expect([Object.keys(candidate as object), sdp, serial]).toEqual([
            ['candidate', 'sdpMid', 'sdpMLineIndex'],
            undefined,
            undefined,
          ])
        } else {
          expect(candidate).toBe(undefined)
          expect(sdp).toEqual({ type, sdp: expect.any(String) as string })
        }
      }
    }
    expect([...kinds].sort()).toEqual(['answer', 'ice-candidate', 'offer'])
  })
})

describe('the original with its microphone on', () => {
  it('offers sound alone, and is offered the pictures that are sent here', async () => {
    one = new OneCall()
    olga = new Original('s-9', 's-5')
    await one.call.start()
    await one.media.setCamera(true)
    olga.enter({ audioEnabled: true })
    await olga.see(new FakeTrack('audio'))
    await settle()
    const own = one.network.open.find((each) => each !== olga.connection)
    const sent = own?.getTransceivers().find(({ sender }) => sender.track?.kind === 'video')
    expect(['sendonly', 'sendrecv']).toContain(sent?.currentDirection)
    expect([one.call.peers.get('s-9')?.state, olga.faults]).toEqual(['connected', []])
  })
})

describe.each([
  ['calls', 's-9'],
  ['is called', 's-1'],
])('a call in which the original %s', (_what, session) => {
  const state = (): string | undefined => one.call.peers.get(session)?.state

  it('connects, with its offer or ours, and neither side is given a description that it did not ask for', async () => {
    await meet(session)
    expect([state(), olga.connection?.connectionState, olga.faults]).toEqual(['connected', 'connected', []])
    expect(olga.answered.length > 0).toBe(!olga.calls)
  })

  it('gets what it turns on later, also where it does not offer it', async () => {
    await meet(session)
    for (const kind of ['audio', 'video'] as const) {
      await olga.turnOn(kind)
      await settle()
      // Where it is called it says that it sends something, and is asked for it with the next beat.
      one.call.beat()
      await settle()
      const transceiver = one.network.open
        .find((each) => each !== olga.connection)
        ?.getTransceivers()
        .find(({ receiver }) => receiver.track.kind === kind)
      expect(['sendrecv', 'recvonly']).toContain(transceiver?.currentDirection)
    }
    expect([state(), olga.faults]).toEqual(['connected', []])
  })

  it('sends it what is turned on here', async () => {
    await meet(session)
    await one.media.setMicrophone(true)
    await one.media.setCamera(true)
    await settle()
    const own = one.network.open.find((each) => each !== olga.connection)
    expect(own?.getTransceivers().map(({ sender }) => sender.track?.kind)).toEqual(['audio', 'video'])
    expect(one.line.to(place('s-5')).at(-1)).toMatchObject({ audioEnabled: true, videoEnabled: true })
    expect([state(), olga.faults]).toEqual(['connected', []])
  })

  it('is made anew where the original gives the connection up, by the side that calls', async () => {
    await meet(session)
    one.network.cut()
    await one.clock.pass(5_000, 1_000)
    olga.lose()
    one.network.heal()
    for (let seconds = 0; seconds < 40 && state() !== 'connected'; seconds++) {
      await one.clock.pass(1_000, 500)
      // Every ten seconds the presence comes again, and with it the original's call.
      if (seconds % 10 === 0) {
        olga.enter()
        await olga.see()
      }
      await settle()
    }
    expect(state()).toBe('connected')
  })

  it('ends when its presence does', async () => {
    await meet(session)
    one.see(session, null)
    expect(one.call.peers.size).toBe(0)
    expect(one.network.open).toEqual([olga.connection])
  })
})

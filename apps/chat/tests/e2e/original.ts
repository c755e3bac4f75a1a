/**
 * Somebody in a call with the original app, as far as calls go: its signals by its own library, and WebRTC in a page of
 * a browser that does what the original does and no more. The side with the greater session id calls. There is no
 * negotiation beyond that, and what the side that was called turns on later is not offered.
 */
import { Clasp, ClaspBuilder, type Value } from '@clasp-to/core'
import type { Browser, Page } from 'playwright-core'
import { WebSocket } from 'ws'

const BEAT_MS = 10_000

/** What runs in the page. */
interface Calls {
  see(peer: string): Promise<void>
  lose(peer: string): void
  hear(signal: Signal): Promise<void>
  turnOn(kind: 'audio' | 'video'): Promise<void>
  received(): Promise<{ frames: number; energy: number }>
}

interface Signal {
  from: string
  type: string
  sdp?: RTCSessionDescriptionInit
  candidate?: RTCIceCandidateInit
}

declare global {
  interface Window {
    calls: Calls
    emitSignal: (peer: string, text: string) => void
  }
}

/** Runs in the page. */
function installCalls(own: string): void {
  interface Entry {
    connection: RTCPeerConnection
    isCaller: boolean
    early: RTCIceCandidateInit[]
  }
  const connections = new Map<string, Entry>()
  const local = new MediaStream()

  const emit = (peer: string, signal: object): void => window.emitSignal(peer, JSON.stringify({ from: own, ...signal }))

  function make(peer: string, isCaller: boolean): Entry {
    const entry = { connection: new RTCPeerConnection(), isCaller, early: [] as RTCIceCandidateInit[] }
    const { connection } = entry
    connections.set(peer, entry)
    connection.onicecandidate = ({ candidate }) => {
      if (!candidate) return
      const { candidate: text, sdpMid, sdpMLineIndex } = candidate
      emit(peer, { type: 'ice-candidate', candidate: { candidate: text, sdpMid, sdpMLineIndex } })
    }
    connection.onconnectionstatechange = () => {
      if (connection.connectionState === 'failed') window.calls.lose(peer)
      if (connection.connectionState !== 'disconnected') return
      setTimeout(() => {
        if (connection.connectionState === 'disconnected') window.calls.lose(peer)
      }, 5_000)
    }
    connection.ontrack = ({ streams }) => {
      // Sound is decoded only where it is played.
      const player = document.createElement('video')
      player.autoplay = true
      player.srcObject = streams[0] ?? null
      document.body.append(player)
    }
    for (const track of local.getTracks()) connection.addTrack(track, local)
    if (isCaller && local.getTracks().length === 0) {
      connection.addTransceiver('audio', { direction: 'recvonly' })
      connection.addTransceiver('video', { direction: 'recvonly' })
    }
    return entry
  }

  async function offer(peer: string): Promise<void> {
    const { connection } = connections.get(peer)!
    const description = await connection.createOffer()
    await connection.setLocalDescription(description)
    emit(peer, { type: 'offer', sdp: { type: description.type, sdp: description.sdp } })
  }

  async function addEarly(peer: string): Promise<void> {
    const entry = connections.get(peer)!
    for (const candidate of entry.early.splice(0)) await entry.connection.addIceCandidate(candidate)
  }

  window.calls = {
    async see(peer) {
      if (connections.has(peer) || own.localeCompare(peer) <= 0) return
      make(peer, true)
      await offer(peer)
    },
    lose(peer) {
      connections.get(peer)?.connection.close()
      connections.delete(peer)
    },
    async hear({ from, type, sdp, candidate }) {
      if (type === 'offer') {
        const { connection } = connections.get(from) ?? make(from, false)
        await connection.setRemoteDescription(sdp!)
        await addEarly(from)
        const answer = await connection.createAnswer()
        await connection.setLocalDescription(answer)
        emit(from, { type: 'answer', sdp: { type: answer.type, sdp: answer.sdp } })
      } else if (type === 'answer') {
        await connections.get(from)?.connection.setRemoteDescription(sdp!)
        await addEarly(from)
      } else {
        const entry = connections.get(from)
        if (entry?.connection.remoteDescription) await entry.connection.addIceCandidate(candidate)
        else if (candidate) entry?.early.push(candidate)
      }
    },
    async received() {
      const totals = { frames: 0, energy: 0 }
      for (const { connection } of connections.values()) {
        for (const report of (await connection.getStats()).values()) {
          totals.frames += report.framesDecoded ?? 0
          totals.energy += report.type === 'inbound-rtp' ? (report.totalAudioEnergy ?? 0) : 0
        }
      }
      return totals
    },
    async turnOn(kind) {
      // As a person would, who presses one button after the other.
      while ([...connections.values()].some(({ connection }) => connection.signalingState !== 'stable'))
        await new Promise((resolve) => setTimeout(resolve, 50))
      const stream = await navigator.mediaDevices.getUserMedia({ [kind]: true })
      for (const track of stream.getTracks()) {
        local.addTrack(track)
        for (const { connection } of connections.values()) connection.addTrack(track, local)
      }
      for (const [peer, { isCaller }] of connections) if (isCaller) await offer(peer)
    },
  }
}

export class Original {
  private readonly flags = { audioEnabled: false, videoEnabled: false }
  private readonly joinedAt = Date.now()
  private beat: NodeJS.Timeout | null = null
  /** What went wrong in the page. */
  readonly faults: string[] = []
  /** One signal after the other. */
  private chain: Promise<unknown> = Promise.resolve()

  private constructor(
    private readonly client: Clasp,
    readonly page: Page,
    private readonly roomId: string,
    readonly sessionId: string,
    readonly userId: string,
  ) {}

  /** @param isRight chooses among the session ids that the relay gives. */
  static async arrive(
    browser: Browser,
    urls: { origin: string; socket: string },
    roomId: string,
    isRight: (sessionId: string) => boolean,
  ): Promise<Original> {
    ;(globalThis as { WebSocket?: unknown }).WebSocket ??= WebSocket
    const userId = crypto.randomUUID()
    const body = JSON.stringify({ name: 'Olga', user_id: userId })
    const headers = { 'Content-Type': 'application/json' }
    const response = await fetch(`${urls.origin}/auth/guest`, { method: 'POST', headers, body })
    const { token } = (await response.json()) as { token: string }
    for (;;) {
      const client = await new ClaspBuilder(urls.socket).withName('Olga').withToken(token).connect()
      const { session } = client
      if (session === null || !isRight(session)) {
        await client.close()
        continue
      }
      const context = await browser.newContext()
      const page = await context.newPage()
      await page.goto(urls.origin)
      const original = new Original(client, page, roomId, session, userId)
      await page.exposeFunction('emitSignal', (peer: string, text: string) => original.emit(peer, text))
      await page.evaluate(installCalls, session)
      return original
    }
  }

  private address(rest: string): string {
    return `/chat/room/${this.roomId}/video/${rest}`
  }

  private emit(peer: string, text: string): void {
    this.client.emit(this.address(`signal/${peer}`), JSON.parse(text) as Value)
  }

  join(): void {
    this.client.on(this.address('presence/*'), (value, from) => {
      const peer = from.split('/').at(-1) as string
      const what = value === null ? 'lose' : 'see'
      if (peer !== this.sessionId)
        this.run(() => this.page.evaluate(([does, who]) => window.calls[does](who), [what, peer] as const))
    })
    this.client.on(this.address(`signal/${this.sessionId}`), (value) => {
      const signal = value as unknown as Signal
      this.run(() => this.page.evaluate((heard) => window.calls.hear(heard), signal))
    })
    this.announce()
    this.beat = setInterval(() => this.announce(), BEAT_MS)
  }

  private run(does: () => Promise<void>): void {
    this.chain = this.chain.then(does).catch((error: Error) => this.faults.push(error.message))
  }

  private announce(): void {
    const value = { name: 'Olga', avatarColor: '#aa33cc', ...this.flags, joinedAt: this.joinedAt, lastSeen: Date.now() }
    this.client.set(this.address(`presence/${this.sessionId}`), value)
  }

  async turnOn(): Promise<void> {
    for (const kind of ['audio', 'video'] as const) {
      await this.page.evaluate((each) => window.calls.turnOn(each), kind)
      this.flags[`${kind}Enabled`] = true
      this.announce()
    }
  }

  /** Whether the page has received pictures and sound. */
  seesAndHears(): Promise<boolean> {
    return this.page.evaluate(async () => {
      const totals = await window.calls.received()
      return totals.frames > 0 && totals.energy > 0
    })
  }

  /** The session id of somebody in the call. */
  caller(): Promise<string> {
    return new Promise((resolve) => {
      this.client.on(this.address('presence/*'), (value, from) => {
        if (value !== null) resolve(from.split('/').at(-1) as string)
      })
    })
  }

  /** Enters the room, as somebody who reads there, too. */
  enterRoom(): void {
    const value = { name: 'Olga', avatarColor: '#aa33cc', joinedAt: Date.now(), lastSeen: Date.now() }
    this.client.set(`/chat/room/${this.roomId}/presence/${this.userId}`, value)
  }

  async leave(): Promise<void> {
    if (this.beat) {
      clearInterval(this.beat)
      this.client.set(this.address(`presence/${this.sessionId}`), null)
    }
    await this.client.close()
    await this.page.context().close()
  }
}

/** Many people in a room, as far as others see them, through a few connections that may write everything. */
import { readFile } from 'node:fs/promises'
import { WebSocket } from 'ws'
import { systemClock } from '@/protocol/clock'
import { Connection, type SocketLike } from '@/protocol/connection'
import type { Relay } from './relay'

const PATIENCE_MS = 60_000
/** As often as the app says that somebody is there. */
const BEAT_MS = 10_000
/** A beat is spread over so many steps. */
const STEPS = 50
/** A connection sends no faster than a relay takes what a person sends. */
const PEOPLE_PER_CONNECTION = 200

export const connect = (url: string): SocketLike => new WebSocket(url, 'clasp') as unknown as SocketLike

export class Crowd {
  private timer: ReturnType<typeof setInterval> | null = null
  private step = 0

  private constructor(
    private readonly connections: readonly Connection[],
    private readonly roomId: string,
    private readonly size: number,
  ) {}

  /** Resolves when all of them are there. */
  static async enter(relay: Relay, roomId: string, size: number): Promise<Crowd> {
    const token = (await readFile(relay.tokenFile, 'utf8')).trim()
    const dial = (): Connection =>
      new Connection({
        url: relay.socket,
        makeSocket: connect,
        clock: systemClock,
        random: Math.random,
        name: () => 'Crowd',
        token: () => token,
        renewToken: () => Promise.resolve(false),
      })
    const connections = Array.from({ length: Math.ceil(size / PEOPLE_PER_CONNECTION) }, dial)
    for (const connection of connections) connection.start()
    const until = Date.now() + PATIENCE_MS
    while (connections.some(({ online }) => !online) && Date.now() < until)
      await new Promise((resolve) => setTimeout(resolve, 50))
    const crowd = new Crowd(connections, roomId, size)
    await crowd.beat()
    return crowd
  }

  private say(number: number): Promise<unknown> {
    const name = String(number).padStart(3, '0')
    const value = { name: `Guest ${name}`, avatarColor: '#336699', joinedAt: 1, status: 'online' }
    const connection = this.connections[number % this.connections.length]
    if (!connection) return Promise.resolve()
    return connection.set(`/chat/room/${this.roomId}/presence/crowd-${name}`, value)
  }

  /** A heartbeat of everybody. */
  async beat(): Promise<void> {
    await Promise.all(Array.from({ length: this.size }, (_, number) => this.say(number)))
  }

  /** From now on their hearts beat, each at a time of its own. */
  live(): void {
    this.timer ??= setInterval(() => {
      this.step += 1
      // A relay that is being stopped takes no more of them.
      for (let number = this.step % STEPS; number < this.size; number += STEPS) this.say(number).catch(() => undefined)
    }, BEAT_MS / STEPS)
  }

  leave(): void {
    if (this.timer) clearInterval(this.timer)
    for (const connection of this.connections) connection.stop()
  }
}

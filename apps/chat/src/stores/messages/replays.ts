/**
 * Reads what a relay has kept of the rooms. A relay that keeps nothing says so at the first question, and is asked again
 * at the next connection only.
 */
import { address } from '@/protocol/addresses'
import type { ReplayedEvent } from '@/protocol/connection'
import { Failure } from '@/protocol/errors'
import { parseMessage, type RoomMessage } from '@/protocol/shapes'
import type { Runtime } from '../runtime'

const PAGE = 100
/** The most pages of one room: what the chat's policy keeps. */
const MAX_PAGES = 10

const isSame = (one: RoomMessage, other: RoomMessage | null): boolean =>
  one.kind === other?.kind &&
  one.msgId === other.msgId &&
  one.timestamp === other.timestamp &&
  one.fromId === other.fromId

export class Replays {
  /** The session of a relay that keeps nothing. */
  private keepsNothing: string | null = null

  constructor(
    private readonly runtime: Runtime,
    private readonly take: (roomId: string, events: readonly ReplayedEvent[]) => Promise<void>,
  ) {}

  clear(): void {
    this.keepsNothing = null
  }

  /**
   * Takes the events of a room that are newer than the newest one here, the newest page first, so that they show early.
   *
   * Resolves with whether that is all that is missing: the relay has kept the one that is here, too.
   */
  async catchUp(roomId: string): Promise<boolean> {
    const { connection, storage } = this.runtime
    const { sessionId } = connection.status
    const [newest] = await storage.messages.newestEvents(roomId, 0, 1)
    let to: bigint | undefined
    for (let page = 0; page < MAX_PAGES; page += 1) {
      if (this.keepsNothing === sessionId) return false
      try {
        const { events, complete, next } = await connection.replay(address.messages(roomId), PAGE, to)
        await this.take(roomId, events)
        if (newest && events.some(({ value }) => isSame(newest.event, parseMessage(value)))) return true
        if (complete) return false
        to = next
      } catch (error) {
        // The members are asked instead, for one reason or another.
        if (error instanceof Failure && error.kind === 'server') this.keepsNothing = sessionId
        return false
      }
    }
    return false
  }
}

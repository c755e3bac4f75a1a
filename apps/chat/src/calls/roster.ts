/** Who is in the call of a room, as their presences say. */
import { parseAddress } from '@/protocol/addresses'
import type { Clock } from '@/protocol/clock'
import type { Update } from '@/protocol/connection'
import { parseCaller, type Caller } from '@/protocol/shapes'

/** A presence that was not renewed for this long is stale, as in the original. */
const STALE_MS = 25_000
/** How many people one call connects: each sends to every other. */
export const MAX_CALLERS = 8

export interface Present extends Caller {
  sessionId: string
  /** Of the last renewal, by the own clock. */
  seenAt: number
}

export class Roster {
  private readonly callers = new Map<string, Present>()

  constructor(
    private readonly clock: Clock,
    private readonly changed: () => void,
  ) {}

  /** By the time of joining; those with the same time by their session ids, so that everybody has the same order. */
  get all(): readonly Present[] {
    return [...this.callers.values()].sort(
      (one, other) => one.joinedAt - other.joinedAt || (one.sessionId < other.sessionId ? -1 : 1),
    )
  }

  /** Those in the call; `alive`: sessions that are connected, however long their presence is silent. */
  present(alive: (sessionId: string) => boolean = () => false): readonly Present[] {
    const since = this.clock.now() - STALE_MS
    return this.all.filter(({ sessionId, seenAt }) => seenAt > since || alive(sessionId))
  }

  get(sessionId: string): Present | undefined {
    return this.callers.get(sessionId)
  }

  hear({ address, value, ageMs }: Update): void {
    const place = parseAddress(address)
    if (place?.kind !== 'caller') return
    const { sessionId } = place
    const caller = parseCaller(value)
    if (!caller) this.callers.delete(sessionId)
    else {
      const before = this.callers.get(sessionId)
      // The original writes the present time with every renewal.
      const joinedAt = before && !caller.negotiates ? before.joinedAt : caller.joinedAt
      this.callers.set(sessionId, { ...caller, joinedAt, sessionId, seenAt: this.clock.now() - (ageMs ?? 0) })
    }
    this.changed()
  }

  clear(): void {
    this.callers.clear()
    this.changed()
  }
}

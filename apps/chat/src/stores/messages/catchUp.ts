/**
 * When to request the missed history of a room: from the relay at once, and from the members where the relay has not kept
 * all of it: shortly after entering it, and again as long as nobody answers, since
 * those who could answer may be reconnecting themselves. {@link HistoryExchange} knows how to request it.
 */
import type { Clock } from '@/protocol/clock'
import { STALE_MS } from '../live/liveRoom'

/** After entering a room: the key may arrive within this time. */
const FIRST_MS = 1_500
/** After each request that nobody answered. */
const AGAIN_MS = [3_000, 10_000, 30_000]
/** After somebody appeared: they have to enter the room first. */
const APPEARED_MS = 2_000
/** The most newcomers to ask during one stay in a room. */
const MAX_APPEARED = 5

interface Stay {
  since: Promise<number>
  answered: boolean
  tries: number
  appeared: number
  asking: boolean
  /** Somebody appeared during a request. */
  another: boolean
  /** Time of the last presence by user, ms. */
  seen: Map<string, number>
  /** When the next try is due, ms; Infinity: none is planned. */
  dueAt: number
  stop: () => void
}

export interface CatchUpContext {
  clock: Clock
  inside: (roomId: string) => boolean
  /** The time from which messages may be missing, ms, after an absence since `leftAtMs`. */
  since: (roomId: string, leftAtMs: number) => Promise<number>
  /** Reads what the relay has kept and is missing here; resolves with whether that is all. */
  replay: (roomId: string) => Promise<boolean>
  /** Requests the history; resolves with whether somebody answered. */
  ask: (roomId: string, sinceMs: number) => Promise<boolean>
  /** Cancels the requests in a room. */
  cancel: (roomId: string) => void
  /** The other users present. */
  othersIn: (roomId: string) => readonly string[]
  /** The first request of a stay begins or ends. */
  catchingUp: (roomId: string, busy: boolean) => void
}

export class CatchUp {
  /** By room: the present stay in it. */
  private readonly stays = new Map<string, Stay>()
  /** By room: when the last stay in it ended, ms. */
  private readonly leftAt = new Map<string, number>()

  constructor(private readonly context: CatchUpContext) {}

  clear(): void {
    for (const roomId of [...this.stays.keys()]) this.left(roomId)
    this.leftAt.clear()
  }

  entered(roomId: string): void {
    this.left(roomId)
    const { clock, since, othersIn } = this.context
    const seen = new Map(othersIn(roomId).map((userId) => [userId, clock.now()]))
    const stay: Stay = {
      // Computed now: what arrives from now on says nothing about what was missed before.
      since: since(roomId, this.leftAt.get(roomId) ?? Infinity),
      answered: false,
      tries: 0,
      appeared: 0,
      asking: false,
      another: false,
      seen,
      dueAt: Infinity,
      stop: () => undefined,
    }
    this.stays.set(roomId, stay)
    this.context.catchingUp(roomId, true)
    void this.replay(roomId, stay)
  }

  /** The relay first: what it has kept needs nobody present. */
  private async replay(roomId: string, stay: Stay): Promise<void> {
    const { clock, replay, catchingUp } = this.context
    const enteredAt = clock.now()
    stay.answered = await replay(roomId)
    if (this.stays.get(roomId) !== stay) return
    if (stay.answered) catchingUp(roomId, false)
    else this.plan(roomId, stay, Math.max(0, FIRST_MS - (clock.now() - enteredAt)))
  }

  /** The stay ended, by leaving or by losing the connection: pending requests get no answer. */
  left(roomId: string): void {
    const stay = this.stays.get(roomId)
    if (!stay) return
    stay.stop()
    this.stays.delete(roomId)
    this.leftAt.set(roomId, this.context.clock.now())
    this.context.cancel(roomId)
    this.context.catchingUp(roomId, false)
  }

  /** Somebody else is present, and may just have arrived. */
  saw(roomId: string, userId: string): void {
    const stay = this.stays.get(roomId)
    if (!stay || stay.answered) return
    const now = this.context.clock.now()
    const fresh = now - (stay.seen.get(userId) ?? -Infinity) >= STALE_MS
    stay.seen.set(userId, now)
    if (!fresh || stay.appeared >= MAX_APPEARED) return
    if (stay.asking) stay.another = true
    else if (stay.dueAt > now + APPEARED_MS) this.askNewcomer(roomId, stay)
  }

  private askNewcomer(roomId: string, stay: Stay): void {
    stay.appeared += 1
    stay.another = false
    this.plan(roomId, stay, APPEARED_MS)
  }

  private plan(roomId: string, stay: Stay, delayMs: number): void {
    const { clock } = this.context
    stay.stop()
    stay.dueAt = clock.now() + delayMs
    stay.stop = clock.after(delayMs, () => void this.attempt(roomId, stay))
  }

  private async attempt(roomId: string, stay: Stay): Promise<void> {
    const { inside, ask, othersIn } = this.context
    stay.dueAt = Infinity
    const sinceMs = await stay.since
    if (this.stays.get(roomId) !== stay) return
    if (!inside(roomId)) return this.left(roomId)
    // Right after entering, the list of those present may be incomplete: the first request goes out in any case.
    if (stay.tries === 0 || othersIn(roomId).length > 0) {
      stay.asking = true
      const answered = await ask(roomId, sinceMs)
      stay.asking = false
      if (this.stays.get(roomId) !== stay) return
      stay.answered = answered
      if (answered) return this.context.catchingUp(roomId, false)
    }
    this.context.catchingUp(roomId, false)
    const againMs = AGAIN_MS[stay.tries]
    stay.tries += 1
    if (stay.another) this.askNewcomer(roomId, stay)
    else if (againMs !== undefined) this.plan(roomId, stay, againMs)
  }
}

/**
 * Queue of own messages: queued → sent → confirmed, or failed with a reason. One lane per room keeps their order. A
 * message stays queued while there is no connection, and waits while the room key is missing.
 */
import type { Connection } from './connection'
import type { Value } from './codec'
import { Failure } from './errors'

/** `waiting`: for the room's key. */
export type DeliveryState = 'queued' | 'waiting' | 'sent' | 'confirmed' | 'failed'

export interface Letter {
  id: string
  /** The room id; the letters of a lane are sent in order, one at a time. */
  lane: string
  address: string
  /**
   * Encrypts and signs the message right before sending. Rejects with `waitingForKey` if the room key is missing.
   * `guard` tells whether the result may still be sent.
   */
  seal: () => Promise<{ value: Value; guard: () => boolean }>
}

export type StateListener = (id: string, state: DeliveryState, failure: Failure | null) => void

/** A key rotation while a message is being sent makes it encrypt again; more repetitions than this mean an error. */
const MAX_RESEALS = 3

export class Outbox {
  private readonly lanes = new Map<string, Letter[]>()
  private readonly busy = new Set<string>()
  private readonly failed = new Map<string, Letter>()

  constructor(
    private readonly connection: Pick<Connection, 'online' | 'publish'>,
    private readonly tell: StateListener,
  ) {}

  /** Whether a letter is queued or being sent. */
  has(id: string): boolean {
    return [...this.lanes.values()].some((letters) => letters.some((letter) => letter.id === id))
  }

  add(letter: Letter): void {
    const lane = this.lanes.get(letter.lane) ?? []
    this.lanes.set(letter.lane, [...lane, letter])
    this.tell(letter.id, 'queued', null)
    this.resume(letter.lane)
  }

  /** Queues a failed letter again; false: there is none with this id. */
  retry(id: string): boolean {
    const letter = this.failed.get(id)
    if (!letter) return false
    this.failed.delete(id)
    this.add(letter)
    return true
  }

  /** Removes a letter that is not confirmed. */
  discard(id: string): void {
    this.failed.delete(id)
    for (const [lane, letters] of this.lanes) {
      this.lanes.set(
        lane,
        letters.filter((letter) => letter.id !== id),
      )
    }
  }

  clear(): void {
    this.lanes.clear()
    this.failed.clear()
  }

  /** Resumes a lane, after its room key has arrived. */
  resume(lane: string): void {
    if (this.busy.has(lane)) return
    this.busy.add(lane)
    void this.run(lane).finally(() => this.busy.delete(lane))
  }

  /** Resumes all lanes, after a reconnect. */
  resumeAll(): void {
    for (const lane of this.lanes.keys()) this.resume(lane)
  }

  private async run(lane: string): Promise<void> {
    for (let letter = this.first(lane); letter && this.connection.online; letter = this.first(lane)) {
      const failure = await this.deliver(letter, 0)
      if (failure?.kind === 'offline') {
        this.tell(letter.id, 'queued', null)
        return
      }
      if (failure?.kind === 'waitingForKey') {
        this.tell(letter.id, 'waiting', null)
        return
      }
      this.finish(lane, letter, failure)
    }
  }

  private first(lane: string): Letter | undefined {
    return this.lanes.get(lane)?.[0]
  }

  private finish(lane: string, letter: Letter, failure: Failure | null): void {
    const letters = this.lanes.get(lane) ?? []
    // Discarded while it was being sent.
    if (!letters.includes(letter)) return
    this.lanes.set(
      lane,
      letters.filter((other) => other !== letter),
    )
    if (failure) this.failed.set(letter.id, letter)
    this.tell(letter.id, failure ? 'failed' : 'confirmed', failure)
  }

  private async deliver(letter: Letter, reseals: number): Promise<Failure | null> {
    try {
      const { value, guard } = await letter.seal()
      const onSent = (): void => this.tell(letter.id, 'sent', null)
      await this.connection.publish(letter.address, value, { guard, onSent, urgent: true })
      return null
    } catch (error) {
      if (!(error instanceof Failure)) return new Failure('invalid', (error as Error).message)
      if (error.kind === 'conflict' && reseals < MAX_RESEALS) return this.deliver(letter, reseals + 1)
      return error
    }
  }
}

/**
 * Decides how two sides of a connection agree on it ("perfect negotiation", W3C WebRTC 1.0 §10.7): both may make offers
 * at any time. Where two offers cross, the impolite side ignores the other's, and the polite side gives its own up and
 * makes another one after it has answered.
 *
 * It is a state machine without WebRTC in it: it takes what happened and gives the steps to carry out, in order. The
 * caller carries out all steps of an event before it passes the next one.
 *
 * The original app never makes an offer that crosses another, except when both make their first offer. So the polite side
 * makes no offer before it has answered one: with the original, the side with the greater session id calls.
 */
import type { IceCandidate } from '@/protocol/shapes'

export type NegotiationEvent =
  /** Something changed that the other side has to agree to. `first`: also if no offer came from there yet. */
  | { type: 'needed'; first?: boolean; restart?: boolean }
  | { type: 'offer'; sdp: string; serial: number | null }
  | { type: 'answer'; sdp: string; serial: number | null }
  | { type: 'candidate'; candidate: IceCandidate }
  /** No answer has come for long. */
  | { type: 'overdue' }

export type NegotiationStep =
  /** Make an offer, apply it and send it. `restart`: with new ICE credentials. */
  | { type: 'offer'; serial: number; restart: boolean }
  /** Apply an offer, which rolls an own one back; make the answer, apply it and send it. */
  | { type: 'answer'; sdp: string; serial: number | null }
  /** Apply the answer to the last own offer. */
  | { type: 'accept'; sdp: string }
  | { type: 'candidate'; candidate: IceCandidate }

export class Negotiation {
  /** `new`: nothing was agreed on yet; `offering`: the last own offer has no answer. */
  private state: 'new' | 'stable' | 'offering' = 'new'
  /** A remote description was applied: candidates can be. */
  private hasRemote = false
  private waiting: IceCandidate[] = []
  private isNeeded = false
  private needsRestart = false
  /** The last offer from the other side was ignored, and so are its candidates. */
  private isIgnoring = false
  private offered = 0
  private heard = 0

  /**
   * @param polite whether this side gives way.
   * @param now ms: offers are numbered by it, so that later ones have greater numbers also from another object.
   */
  constructor(
    readonly polite: boolean,
    private readonly now: () => number,
  ) {}

  /** An own offer has no answer yet. */
  get offering(): boolean {
    return this.state === 'offering'
  }

  /** Nothing is left to be agreed on. */
  get settled(): boolean {
    return this.state !== 'offering' && !this.isNeeded
  }

  /** Starts again with another connection. */
  reset(): void {
    this.state = 'new'
    this.hasRemote = false
    this.waiting = []
    this.isNeeded = this.needsRestart = this.isIgnoring = false
  }

  handle(event: NegotiationEvent): NegotiationStep[] {
    switch (event.type) {
      case 'needed':
        return this.need(event.first ?? false, event.restart ?? false)
      case 'offer':
        return this.takeOffer(event.sdp, event.serial)
      case 'answer':
        return this.takeAnswer(event.sdp, event.serial)
      case 'candidate':
        return this.takeCandidate(event.candidate)
      case 'overdue':
        return this.offering ? [this.offer()] : []
    }
  }

  private need(first: boolean, restart: boolean): NegotiationStep[] {
    this.isNeeded = true
    this.needsRestart ||= restart
    const mayStart = this.state === 'stable' || (this.state === 'new' && (first || !this.polite))
    return mayStart ? [this.offer()] : []
  }

  private offer(): NegotiationStep {
    const restart = this.needsRestart
    this.state = 'offering'
    this.isNeeded = this.needsRestart = false
    this.offered = Math.max(this.offered + 1, this.now())
    return { type: 'offer', serial: this.offered, restart }
  }

  private takeOffer(sdp: string, serial: number | null): NegotiationStep[] {
    // The connection to the relay repeats what may have been lost: it has been answered already, or is too old.
    if (serial !== null && serial <= this.heard) return []
    if (serial !== null) this.heard = serial
    const crossed = this.offering
    this.isIgnoring = crossed && !this.polite
    if (this.isIgnoring) return []
    // What the own offer was for may not be in the other one.
    if (crossed) this.isNeeded = true
    this.state = 'stable'
    const steps: NegotiationStep[] = [{ type: 'answer', sdp, serial }, ...this.takeWaiting()]
    return this.isNeeded ? [...steps, this.offer()] : steps
  }

  private takeAnswer(sdp: string, serial: number | null): NegotiationStep[] {
    // It answers an offer that was given up, or another one than the last.
    if (!this.offering || (serial !== null && serial !== this.offered)) return []
    this.state = 'stable'
    this.isIgnoring = false
    const steps: NegotiationStep[] = [{ type: 'accept', sdp }, ...this.takeWaiting()]
    return this.isNeeded ? [...steps, this.offer()] : steps
  }

  private takeCandidate(candidate: IceCandidate): NegotiationStep[] {
    if (this.isIgnoring) return []
    if (this.hasRemote) return [{ type: 'candidate', candidate }]
    this.waiting.push(candidate)
    return []
  }

  private takeWaiting(): NegotiationStep[] {
    const candidates = this.waiting
    this.waiting = []
    this.hasRemote = true
    return candidates.map((candidate) => ({ type: 'candidate', candidate }))
  }
}

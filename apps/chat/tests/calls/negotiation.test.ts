import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Negotiation, type NegotiationEvent, type NegotiationStep } from '@/calls/negotiation'

type Message =
  | { type: 'offer'; sdp: string; serial: number | null }
  | { type: 'answer'; sdp: string; serial: number | null }
  | { type: 'candidate'; candidate: { candidate: string; sdpMid: null; sdpMLineIndex: null } }

let clock = 0

/** One side: the machine, and a connection as WebRTC defines it, which refuses what it may not do. */
class Side {
  readonly machine: Negotiation
  readonly outgoing: Message[] = []
  local = ''
  remote = ''
  pending = ''
  /** Candidates that were applied, each with the remote description that was there. */
  readonly added = new Set<string>()
  /** What this side wants agreed, and what the last agreement says of it. */
  wish = 0
  agreed = 0

  constructor(
    readonly name: string,
    polite: boolean,
    private readonly writesSerials = true,
  ) {
    this.machine = new Negotiation(polite, () => clock++)
  }

  tell(event: NegotiationEvent): void {
    for (const step of this.machine.handle(event)) this.carryOut(step)
  }

  private carryOut(step: NegotiationStep): void {
    if (step.type === 'offer') {
      this.pending = `offer ${this.name} ${step.serial} wish ${this.wish}`
      this.send('offer', this.pending, step.serial)
    } else if (step.type === 'answer') {
      this.pending = ''
      this.remote = step.sdp
      this.local = `answer to [${step.sdp}] wish ${this.wish}`
      this.agreed = this.wish
      this.send('answer', this.local, step.serial)
    } else if (step.type === 'accept') {
      // WebRTC refuses an answer without an offer; one to another offer connects nothing.
      expect(this.pending).not.toBe('')
      expect(step.sdp).toContain(`[${this.pending}]`)
      this.local = this.pending
      this.agreed = Number(/wish (\d+)$/.exec(this.pending)?.[1])
      this.pending = ''
      this.remote = step.sdp
    } else {
      expect(this.remote).not.toBe('')
      this.added.add(step.candidate.candidate)
    }
  }

  private send(type: 'offer' | 'answer', sdp: string, serial: number | null): void {
    this.outgoing.push({ type, sdp, serial: this.writesSerials ? serial : null })
    const candidate = { candidate: `candidate of ${sdp}`, sdpMid: null, sdpMLineIndex: null }
    this.outgoing.push({ type: 'candidate', candidate })
  }
}

type Action = { who: 0 | 1; what: 'need' | 'restart' | 'deliver' | 'again' | 'overdue' }
const action: fc.Arbitrary<Action> = fc.record({
  who: fc.constantFrom(0 as const, 1 as const),
  what: fc.constantFrom('need', 'restart', 'deliver', 'deliver', 'deliver', 'again', 'overdue'),
})

function deliver(from: Side, to: Side): void {
  const message = from.outgoing.shift()
  if (message) to.tell(message)
}

function act([first, second]: [Side, Side], { who, what }: Action): void {
  const self = who === 0 ? first : second
  const other = who === 0 ? second : first
  const next = other.outgoing[0]
  if (what === 'need' || what === 'restart') {
    self.wish += 1
    self.tell({ type: 'needed', restart: what === 'restart' })
  } else if (what === 'deliver') deliver(other, self)
  else if (what === 'overdue') self.tell({ type: 'overdue' })
  // The relay's answer was lost, so that the message comes twice.
  else if (next) self.tell(next)
}

function settle(sides: [Side, Side]): void {
  const [first, second] = sides
  for (let rounds = 0; first.outgoing.length + second.outgoing.length > 0; rounds++) {
    expect(rounds).toBeLessThan(1_000)
    deliver(first, second)
    deliver(second, first)
  }
}

function expectAgreement([first, second]: [Side, Side]): void {
  for (const side of [first, second]) {
    expect(side.machine.settled).toBe(true)
    expect(side.agreed).toBe(side.wish)
  }
  expect([first.local, first.remote]).toEqual([second.remote, second.local])
  if (first.local === '') return
  expect(first.added).toContain(`candidate of ${second.local}`)
  expect(second.added).toContain(`candidate of ${first.local}`)
}

describe('the negotiation', () => {
  it('converges, in whatever order offers, answers and candidates come, and however often', () => {
    fc.assert(
      fc.property(fc.array(action, { maxLength: 60 }), (actions) => {
        const sides: [Side, Side] = [new Side('polite', true), new Side('impolite', false)]
        for (const each of actions) act(sides, each)
        // A polite side waits for the first offer, which the impolite side makes as soon as it sees the other.
        sides[1].tell({ type: 'needed' })
        settle(sides)
        expectAgreement(sides)
      }),
      { numRuns: 500 },
    )
  })

  it('converges when messages are lost, once no more are, since an offer without an answer is made again', () => {
    const lossy = fc.record({ loses: fc.boolean(), action })
    fc.assert(
      fc.property(fc.array(lossy, { maxLength: 60 }), (actions) => {
        const sides: [Side, Side] = [new Side('polite', true), new Side('impolite', false)]
        for (const { loses, action: each } of actions) {
          if (loses) sides[each.who].outgoing.shift()
          else act(sides, each)
        }
        sides[1].tell({ type: 'needed' })
        settle(sides)
        for (let rounds = 0; rounds < 2; rounds++) {
          for (const side of sides) side.tell({ type: 'overdue' })
          settle(sides)
        }
        for (const side of sides) side.tell({ type: 'needed', restart: true })
        settle(sides)
        expectAgreement(sides)
      }),
      { numRuns: 300 },
    )
  })

  it('makes no first offer on the polite side unless asked to', () => {
    const polite = new Side('polite', true)
    polite.tell({ type: 'needed' })
    expect(polite.outgoing).toEqual([])
    polite.tell({ type: 'needed', first: true })
    expect(polite.outgoing[0]).toMatchObject({ type: 'offer' })
  })

  it('takes offers and answers without a number, as the original writes them', () => {
    const sides: [Side, Side] = [new Side('ours', true), new Side('original', false, false)]
    sides[1].tell({ type: 'needed' })
    settle(sides)
    sides[0].tell({ type: 'needed' })
    settle(sides)
    expectAgreement(sides)
    expect(sides[0].local).toMatch(/^offer ours/)
  })

  it('drops the candidates of an offer that it ignores, and takes those of the answer', () => {
    const sides: [Side, Side] = [new Side('polite', true), new Side('impolite', false)]
    sides[1].tell({ type: 'needed' })
    settle(sides)
    for (const side of sides) side.tell({ type: 'needed' })
    const given = sides[0].outgoing[0] as { sdp: string }
    settle(sides)
    expectAgreement(sides)
    expect(sides[1].added).not.toContain(`candidate of ${given.sdp}`)
  })

  it('says with an offer whether new credentials are needed, also if it had to wait', () => {
    const machine = new Negotiation(false, () => 5)
    expect(machine.handle({ type: 'needed' })).toEqual([{ type: 'offer', serial: 5, restart: false }])
    expect(machine.handle({ type: 'needed', restart: true })).toEqual([])
    expect(machine.settled).toBe(false)
    expect(machine.handle({ type: 'answer', sdp: 'a', serial: 5 })).toEqual([
      { type: 'accept', sdp: 'a' },
      { type: 'offer', serial: 6, restart: true },
    ])
  })

  it('forgets everything but the numbers for another connection', () => {
    const machine = new Negotiation(true, () => 1)
    machine.handle({ type: 'offer', sdp: 'x', serial: 9 })
    machine.handle({ type: 'needed' })
    machine.reset()
    expect(machine.offering).toBe(false)
    expect(machine.handle({ type: 'answer', sdp: 'late', serial: 1 })).toEqual([])
    expect(machine.handle({ type: 'offer', sdp: 'x', serial: 9 })).toEqual([])
    expect(machine.handle({ type: 'needed', first: true })).toEqual([{ type: 'offer', serial: 2, restart: false }])
  })
})

/** A room with several parties whose machines talk through a model of the relay, in any order that a test wants. */
import { identityOf, newIdentityPairs, type Identity } from '@/crypto/identity'
import { RoomCrypto, type CryptoEffect, type CryptoEvent, type RoomCryptoRecord } from '@/crypto/roomCrypto'
import { parseKeyex, type PublicJwk } from '@/protocol/shapes'

export interface Party {
  id: string
  identity: Identity
  machine: RoomCrypto
  online: boolean
  record: RoomCryptoRecord | null
  state: string
  changes: CryptoEffect[]
}

export interface Meta {
  encrypted: boolean
  creatorId: string | null
  passwordSalt: string | null
}

interface Delivery {
  to: string
  event: CryptoEvent
}

const identities = new Map<string, Promise<Identity>>()

/** The identity of a name; the same in all tests, since making keys takes time. */
export function identity(id: string): Promise<Identity> {
  const known = identities.get(id) ?? newIdentityPairs().then((pairs) => identityOf(id, pairs))
  identities.set(id, known)
  return known
}

export class Room {
  readonly parties = new Map<string, Party>()
  /** Whose keys no account vouches for. */
  readonly doubted = new Set<string>()
  readonly keyexes: { from: string; to: string; keyId: string }[] = []
  meta: Meta | null
  private pubkeys = new Map<string, PublicJwk>()
  private admins = new Set<string>()
  private bans = new Set<string>()
  private proofs = new Set<string>()
  private members = new Set<string>()
  private queue: Delivery[] = []
  private timers: (Delivery & { delayMs: number })[] = []

  constructor(
    private readonly random: () => number,
    meta: Partial<Meta> = {},
  ) {
    this.meta = { encrypted: true, creatorId: 'creator', passwordSalt: null, ...meta }
  }

  async add(id: string, record: RoomCryptoRecord | null = null): Promise<Party> {
    const own = await identity(id)
    const machine = await RoomCrypto.load(own, this.random, record)
    const party: Party = { id, identity: own, machine, online: false, record, state: '', changes: [] }
    this.parties.set(id, party)
    return party
  }

  party(id: string): Party {
    return this.parties.get(id)!
  }

  /** Enters the room: what is stored arrives as a snapshot, the presence is seen by all. */
  async enter(id: string): Promise<void> {
    const party = this.parties.get(id) ?? (await this.add(id))
    party.online = true
    this.members.add(id)
    this.tell(id, { type: 'meta', meta: this.meta })
    for (const userId of this.admins) this.tell(id, { type: 'admin', userId, admin: true })
    for (const userId of this.bans) this.tell(id, { type: 'ban', userId, banned: true })
    for (const userId of this.proofs) this.tell(id, { type: 'proof', userId, given: true })
    for (const userId of this.members) this.tell(id, { type: 'member', userId, member: true })
    for (const other of this.parties.values()) {
      if (other.online) this.tell(id, { type: 'presence', userId: other.id, present: true })
    }
    for (const [userId, publicKey] of this.pubkeys) this.tell(id, { type: 'pubkey', userId, publicKey, live: false })
    this.tellAll({ type: 'presence', userId: id, present: true })
    this.tellAll({ type: 'member', userId: id, member: true })
    this.tell(id, { type: 'complete' })
  }

  /** Closes the page. */
  drop(id: string): void {
    this.party(id).online = false
    this.queue = this.queue.filter((delivery) => delivery.to !== id)
    this.timers = this.timers.filter((timer) => timer.to !== id)
    this.tellAll({ type: 'presence', userId: id, present: false })
    void this.party(id).machine.handle({ type: 'disconnected' })
  }

  /** Leaves the room for good. */
  leave(id: string): void {
    this.members.delete(id)
    this.drop(id)
    this.tellAll({ type: 'member', userId: id, member: false })
  }

  setAdmin(userId: string): void {
    this.admins.add(userId)
    this.tellAll({ type: 'admin', userId, admin: true })
  }

  setBan(userId: string): void {
    this.bans.add(userId)
    this.tellAll({ type: 'ban', userId, banned: true })
  }

  setProof(userId: string, given: boolean): void {
    if (given) this.proofs.add(userId)
    else this.proofs.delete(userId)
    this.tellAll({ type: 'proof', userId, given })
  }

  setMeta(meta: Partial<Meta>): void {
    this.meta = { ...this.meta!, ...meta }
    this.tellAll({ type: 'meta', meta: this.meta })
  }

  beat(): void {
    for (const party of this.parties.values()) {
      if (party.online) this.tellAll({ type: 'presence', userId: party.id, present: true })
    }
  }

  tell(to: string, event: CryptoEvent): void {
    this.queue.push({ to, event })
  }

  tellAll(event: CryptoEvent): void {
    for (const party of this.parties.values()) if (party.online) this.tell(party.id, event)
  }

  /** Gives a machine an event at once and carries out what it wants. */
  async act(id: string, event: CryptoEvent): Promise<CryptoEffect[]> {
    const effects = await this.party(id).machine.handle(event)
    for (const effect of effects) this.carryOut(this.party(id), effect)
    return effects
  }

  private carryOut(party: Party, effect: CryptoEffect): void {
    if (effect.type === 'publishPubkey') {
      this.pubkeys.set(party.id, effect.value.publicKey)
      this.tellAll({ type: 'pubkey', userId: party.id, publicKey: effect.value.publicKey, live: true })
    } else if (effect.type === 'sendKeyex') {
      this.keyexes.push({ from: party.id, to: effect.peer, keyId: effect.value.keyId })
      const keyex = parseKeyex(effect.value)!
      if (this.parties.get(effect.peer)?.online)
        this.tell(effect.peer, { type: 'keyex', keyex, doubtful: this.doubted.has(party.id) })
    } else if (effect.type === 'store') {
      party.record = structuredClone(effect.record)
    } else if (effect.type === 'timer') {
      const event: CryptoEvent = { type: 'timer', name: effect.name }
      this.timers.push({ to: party.id, event, delayMs: effect.delayMs })
    } else if (effect.type === 'state') {
      party.state = effect.state
    } else {
      party.changes.push(effect)
    }
  }

  /** One step: a delivery, or, when none is left (or by chance), the next timer. Order holds only per receiver. */
  async step(): Promise<boolean> {
    const receivers = [...new Set(this.queue.map((delivery) => delivery.to))]
    if (receivers.length === 0 && this.timers.length === 0) return false
    const fireTimer = receivers.length === 0 || (this.timers.length > 0 && this.random() < 0.1)
    if (fireTimer) {
      this.timers.sort((one, other) => one.delayMs - other.delayMs)
      const timer = this.timers.shift()!
      await this.act(timer.to, timer.event)
      return true
    }
    const to = receivers[Math.floor(this.random() * receivers.length)]!
    const at = this.queue.findIndex((delivery) => delivery.to === to)
    const [delivery] = this.queue.splice(at, 1)
    await this.act(to, delivery!.event)
    return true
  }

  /** Until nothing happens any more. Asking goes on for ever where nobody answers, so steps are bounded. */
  async settle(maxSteps = 400): Promise<void> {
    for (let steps = 0; steps < maxSteps && (await this.step()); steps++);
  }

  /** Whether everybody online reads what each of them writes. */
  async allUnderstand(): Promise<boolean> {
    const online = [...this.parties.values()].filter((party) => party.online)
    for (const writer of online) {
      const { closed } = await writer.machine.close([`from ${writer.id}`])
      const sealed = closed[0]!
      if ('clear' in sealed) return false
      for (const reader of online) {
        if ((await reader.machine.open(sealed, sealed.keyId)) !== `from ${writer.id}`) return false
      }
    }
    return true
  }

  async keyOf(id: string): Promise<string> {
    const { closed } = await this.party(id).machine.close(['x'])
    return (closed[0] as { keyId: string }).keyId
  }
}

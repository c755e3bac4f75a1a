/**
 * Hands the keys of an account to a new device, at `/chat/user/{userId}/link/{id}`. The new device asks; another one that
 * has the account key answers, and sends the keys after somebody has typed the code there that the new one shows.
 */
import {
  commitmentOf,
  linkCode,
  linkKey,
  newLinkPair,
  newNonce,
  openParts,
  sealParts,
  type LinkPair,
} from '@/crypto/link'
import { address, parseAddress, pattern } from '@/protocol/addresses'
import type { Update } from '@/protocol/connection'
import { Failure } from '@/protocol/errors'
import {
  asValue,
  parseLinkAnswer,
  parseLinkRequest,
  parsePart,
  type LinkRequest,
  type PublicJwk,
} from '@/protocol/shapes'
import { writeBundle } from '@/storage/keyBundle'
import type { Runtime } from '../runtime'
import { takeBundle } from './keyHandover'

/** How long a link is open; the relay removes it then. */
export const LINK_TTL_S = 120
/** What a link may carry: as many parts as its addresses have numbers. */
const MAX_CHARS = 90 * 30_000
const ID_DIGITS = 16

/** This device asks for the keys. */
interface Asking {
  id: string
  pair: LinkPair
  nonce: string
  commit: string
  /** The key of the device that answered first. */
  answer: PublicJwk | null
}

/** Another device asks this one. */
interface Offer {
  request: LinkRequest
  /** The own key of this link, once somebody chose to hand the keys over. */
  pair: LinkPair | null
}

export interface LinkEvents {
  /** The own request: the code once another device has answered; null: it is over. */
  onAsking: (state: { code: string | null } | null, failure: Failure | null) => void
  /** Devices that ask this one. */
  onOffers: (offers: readonly { id: string; name: string; ready: boolean }[]) => void
}

export class DeviceLink {
  private asking: Asking | null = null
  private stopWaiting: () => void = () => undefined
  private readonly offers = new Map<string, Offer>()

  constructor(
    private readonly runtime: Runtime,
    private readonly events: LinkEvents,
  ) {}

  begin(): void {
    this.runtime.listenTo(pattern.links(this.runtime.self.userId), (update) => void this.hear(update))
  }

  end(): void {
    this.finish(null)
    this.offers.clear()
    this.tellOffers()
  }

  // --- the new device ---

  async ask(): Promise<void> {
    const pair = await newLinkPair()
    const nonce = newNonce()
    const id = this.newId()
    const commit = await commitmentOf(id, { key: pair.publicKey, nonce })
    this.finish(null)
    this.asking = { id, pair, nonce, commit, answer: null }
    this.events.onAsking({ code: null }, null)
    this.stopWaiting = this.runtime.platform.clock.after(LINK_TTL_S * 1000, () =>
      this.finish(new Failure('timeout', 'nobody answered the link', { reason: 'linkOver' })),
    )
    await this.write(id, this.requestOf(this.asking))
  }

  cancel(): void {
    const { asking } = this
    this.finish(null)
    // Without a connection it ends by itself.
    if (asking) this.write(asking.id, null).catch(() => undefined)
  }

  private requestOf({ commit, pair, nonce, answer }: Asking): object {
    const { platform, identity } = this.runtime
    const head = { name: platform.deviceName, deviceId: identity.deviceId, commit }
    return answer ? { ...head, key: pair.publicKey, nonce } : head
  }

  private async takeAnswer(value: unknown): Promise<void> {
    const { asking } = this
    const said = parseLinkAnswer(value)
    if (!asking) return
    if (!said) {
      // The person typed another code, or closed the dialog there.
      if (asking.answer) this.finish(new Failure('invalid', 'the link was refused', { reason: 'linkOver' }))
      return
    }
    if (!asking.answer) {
      asking.answer = said.key
      const code = await linkCode(asking.id, { key: asking.pair.publicKey, nonce: asking.nonce }, said.key)
      await this.write(asking.id, this.requestOf(asking))
      if (this.asking === asking) this.events.onAsking({ code }, null)
    } else if (said.parts !== null && said.key.x === asking.answer.x) {
      await this.takeKeys(asking, said.key, said.parts)
    }
  }

  private async takeKeys(asking: Asking, other: PublicJwk, count: number): Promise<void> {
    const { connection, self } = this.runtime
    const key = await linkKey(asking.id, asking.pair, other)
    const places = Array.from({ length: count }, (_, at) => address.link(self.userId, `${asking.id}-${at}`))
    const parts = (await Promise.all(places.map((place) => connection.get(place)))).map(parsePart)
    const sealed = parts.filter((part) => part !== null)
    const text = key && sealed.length === count ? await openParts(key, asking.id, sealed) : null
    if (text === null) throw new Failure('invalid', 'the keys of the link cannot be read', { reason: 'linkOver' })
    await takeBundle(this.runtime, text)
    this.finish(null)
    await Promise.all([asking.id, `${asking.id}-answer`].map((each) => this.write(each, null)))
  }

  private finish(failure: Failure | null): void {
    this.stopWaiting()
    this.asking = null
    this.events.onAsking(null, failure)
  }

  // --- the device that has the keys ---

  /** Answers a device: it shows a code then, which belongs into {@link handOver}. */
  async answer(id: string): Promise<void> {
    const offer = this.offers.get(id)
    if (!offer) throw new Failure('missing', `no link ${id}`, { reason: 'linkOver' })
    offer.pair = await newLinkPair()
    await this.write(`${id}-answer`, { key: offer.pair.publicKey })
  }

  /** Sends the keys if the code is the one that the other device shows; after a wrong one the link is over. */
  async handOver(id: string, code: string): Promise<void> {
    const offer = this.offers.get(id)
    const account = await this.runtime.device.accountPair()
    if (!offer?.pair || !offer.request.reveal || !account)
      throw new Failure('missing', `link ${id} is not ready`, { reason: 'linkOver' })
    const { reveal, commit } = offer.request
    const { pair } = offer
    this.forget(id)
    const key = await linkKey(id, pair, reveal.key)
    const right =
      key !== null &&
      (await commitmentOf(id, reveal)) === commit &&
      (await linkCode(id, reveal, pair.publicKey)) === code.replace(/\D/g, '')
    if (!right) {
      await this.write(`${id}-answer`, null)
      throw new Failure('invalid', 'wrong code', { reason: 'wrongCode' })
    }
    const text = await writeBundle(this.runtime.storage, account, MAX_CHARS)
    const parts = await sealParts(key, id, text)
    await Promise.all(parts.map((part, at) => this.write(`${id}-${at}`, part)))
    await this.write(`${id}-answer`, { key: pair.publicKey, parts: parts.length })
  }

  private forget(id: string): void {
    this.offers.delete(id)
    this.tellOffers()
  }

  private takeRequest(id: string, value: unknown): void {
    const request = parseLinkRequest(value)
    if (!request) return this.forget(id)
    if (request.deviceId === this.runtime.identity.deviceId) return
    const known = this.offers.get(id)
    // What was committed to does not change.
    if (known && known.request.commit !== request.commit) return this.forget(id)
    this.offers.set(id, { request, pair: known?.pair ?? null })
    this.tellOffers()
  }

  private tellOffers(): void {
    const shown = [...this.offers].map(([id, { request, pair }]) => {
      return { id, name: request.name, ready: request.reveal !== null && pair !== null }
    })
    this.events.onOffers(shown)
  }

  // --- both ---

  private async hear({ address: from, value }: Update): Promise<void> {
    const place = parseAddress(from)
    if (place?.kind !== 'link' || !this.runtime.begun) return
    const [id, part] = place.key.split('-') as [string, string?]
    if (part === undefined) return this.takeRequest(id, value)
    if (part !== 'answer' || id !== this.asking?.id) return
    try {
      await this.takeAnswer(value)
    } catch (error) {
      this.finish(error as Failure)
    }
  }

  private write(key: string, value: object | null): Promise<void> {
    const { connection, self } = this.runtime
    const where = address.link(self.userId, key)
    return connection.set(where, value && asValue(value), value === null ? {} : { ttlS: LINK_TTL_S })
  }

  private newId(): string {
    return this.runtime.platform.newId().replaceAll('-', '').slice(0, ID_DIGITS)
  }
}

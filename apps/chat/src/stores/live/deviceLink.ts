/**
 * Hands the keys of an account to a new device, at `/chat/user/{userId}/link/{id}`. The new device asks; another one that
 * has the account key answers, and sends the keys after somebody has typed the code there that the new one shows; the new
 * one takes them after somebody has typed the code that the other one shows. Whoever of
 * the two scans the QR code of the other types none.
 */
import {
  commitmentOf,
  linkCode,
  linkKey,
  newLinkPair,
  newNonce,
  newSecret,
  openParts,
  sealParts,
  type LinkPair,
  type Reveal,
} from '@/crypto/link'
import { address, parseAddress, pattern } from '@/protocol/addresses'
import type { Update } from '@/protocol/connection'
import { Failure } from '@/protocol/errors'
import {
  asValue,
  parseLinkAnswer,
  parseLinkRequest,
  parsePart,
  type LinkAnswer,
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
/** How long to wait for the other device after an answer, ms. */
const REVEAL_MS = 15_000

/** This device asks for the keys. */
interface Asking {
  id: string
  pair: LinkPair
  nonce: string
  commit: string
  /** What the QR code says. */
  secret: string
  /** The key of the device that answered first. */
  answer: PublicJwk | null
  /** The code that the other device found, too. */
  code: string | null
  /** The keys, until the code of the other device is typed here: the relay might have sent its own. */
  received: string | null
}

/** What a QR code says. */
export interface Invitation {
  id: string
  secret: string
}

/** Another device asks this one. */
interface Offer {
  request: LinkRequest
  /** The own key of this link, once somebody chose to hand the keys over. */
  pair: LinkPair | null
  /** Called when the other device has revealed its key. */
  onReveal: () => void
}

/** A device that asks this one; `ready`: it shows its code. */
export interface LinkOffer {
  id: string
  name: string
  ready: boolean
}

/** The own request; `code` once another device has answered, `received` once the keys wait for its code. */
export interface AskingState {
  id: string
  secret: string
  code: string | null
  received: boolean
}

export interface LinkEvents {
  /** null: it is over. */
  onAsking: (state: AskingState | null, failure: Failure | null) => void
  /** Devices that ask this one. */
  onOffers: (offers: readonly LinkOffer[]) => void
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

  /** @param invitation what the QR code of a device says that has the keys; without one, this device shows its own. */
  async ask(invitation: Invitation | null = null): Promise<void> {
    const pair = await newLinkPair()
    const nonce = newNonce()
    const { id, secret } = invitation ?? this.newInvitation()
    const commit = await commitmentOf(id, { key: pair.publicKey, nonce })
    this.finish(null)
    this.asking = { id, pair, nonce, commit, secret, answer: null, code: null, received: null }
    this.tellAsking()
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

  private tellAsking(): void {
    const { asking } = this
    if (!asking) return
    const { id, secret, code, received } = asking
    this.events.onAsking({ id, secret, code, received: received !== null }, null)
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
      const code = await this.codeOf(asking, 'there')
      await this.write(asking.id, this.requestOf(asking))
      asking.code = code
      this.tellAsking()
    } else if (said.parts !== null && said.key.x === asking.answer.x) {
      await this.takeKeys(asking, said, said.parts)
    }
  }

  private codeOf({ id, pair, nonce, answer }: Asking, way: 'there' | 'back'): Promise<string> {
    return linkCode(way, id, { key: pair.publicKey, nonce }, answer as PublicJwk)
  }

  private async takeKeys(asking: Asking, { key: other, scanned }: LinkAnswer, count: number): Promise<void> {
    const { connection, self } = this.runtime
    const key = await linkKey(asking.id, asking.pair, other, scanned ? asking.secret : null)
    const places = Array.from({ length: count }, (_, at) => address.link(self.userId, `${asking.id}-${at}`))
    const parts = (await Promise.all(places.map((place) => connection.get(place)))).map(parsePart)
    const sealed = parts.filter((part) => part !== null)
    const text = key && sealed.length === count ? await openParts(key, asking.id, sealed) : null
    if (text === null) throw new Failure('invalid', 'the keys of the link cannot be read', { reason: 'linkOver' })
    // Only who has seen the QR code could encrypt them with its secret.
    if (scanned) return this.take(asking, text)
    asking.received = text
    this.tellAsking()
  }

  /** Takes the keys that have been received, if the code is that of the device which sent them. */
  async confirmKeys(code: string): Promise<void> {
    const { asking } = this
    if (!asking?.received) throw new Failure('missing', 'no keys have been received', { reason: 'linkOver' })
    if ((await this.codeOf(asking, 'back')) === code.replace(/\D/g, '')) return this.take(asking, asking.received)
    this.finish(new Failure('invalid', 'wrong code', { reason: 'wrongCode' }))
    await this.write(asking.id, null)
  }

  private async take(asking: Asking, text: string): Promise<void> {
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

  /**
   * Sends the keys if the code is the one that the other device shows; after a wrong one the link is over. Resolves with
   * the code that is to be typed there.
   */
  async handOver(id: string, code: string): Promise<string> {
    const { reveal, pair, key } = await this.ready(id, null)
    const right = (await linkCode('there', id, reveal, pair.publicKey)) === code.replace(/\D/g, '')
    if (!right) return this.refuse(id)
    await this.sendKeys(id, pair, key, false)
    return linkCode('back', id, reveal, pair.publicKey)
  }

  /** Sends the keys to the device whose QR code was scanned here, or that scanned the one here: only that can read them. */
  async handOverScanned(id: string, secret: string): Promise<void> {
    await this.answer(id)
    const offer = this.offers.get(id)
    if (offer && !offer.request.reveal) await this.revealed(offer)
    const { pair, key } = await this.ready(id, secret)
    await this.sendKeys(id, pair, key, true)
  }

  private revealed(offer: Offer): Promise<void> {
    return new Promise((resolve) => {
      const stop = this.runtime.platform.clock.after(REVEAL_MS, resolve)
      offer.onReveal = () => {
        stop()
        resolve()
      }
    })
  }

  /** The link, which has one try from now on; rejects if the other device has not kept to what it committed to. */
  private async ready(id: string, secret: string | null): Promise<{ reveal: Reveal; pair: LinkPair; key: CryptoKey }> {
    const offer = this.offers.get(id)
    if (!offer?.pair || !offer.request.reveal)
      throw new Failure('missing', `link ${id} is not ready`, { reason: 'linkOver' })
    const { pair } = offer
    const { reveal, commit } = offer.request
    this.forget(id)
    const key = await linkKey(id, pair, reveal.key, secret)
    if (key === null || (await commitmentOf(id, reveal)) !== commit) return this.refuse(id)
    return { reveal, pair, key }
  }

  private async refuse(id: string): Promise<never> {
    await this.write(`${id}-answer`, null)
    throw new Failure('invalid', 'wrong code', { reason: 'wrongCode' })
  }

  private async sendKeys(id: string, pair: LinkPair, key: CryptoKey, scanned: boolean): Promise<void> {
    const account = await this.runtime.device.accountPair()
    if (!account) throw new Failure('missing', 'no account key', { reason: 'linkOver' })
    const text = await writeBundle(this.runtime.storage, account, MAX_CHARS)
    const parts = await sealParts(key, id, text)
    await Promise.all(parts.map((part, at) => this.write(`${id}-${at}`, part)))
    await this.write(`${id}-answer`, { key: pair.publicKey, parts: parts.length, ...(scanned && { scanned }) })
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
    const onReveal = known?.onReveal ?? (() => undefined)
    this.offers.set(id, { request, pair: known?.pair ?? null, onReveal })
    if (request.reveal) onReveal()
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

  /** What a QR code says: the id of a link, and a secret that nobody knows who has not seen it. */
  newInvitation(): Invitation {
    const id = this.runtime.platform.newId().replaceAll('-', '').slice(0, ID_DIGITS)
    return { id, secret: newSecret() }
  }
}

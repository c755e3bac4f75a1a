/** Client of the relay's auth API. It rejects with a {@link Failure}. */
import { Failure, type FailureKind } from './errors'
import { requestJson, type Fetch, type Json, type Method } from './http'
import { isUserId } from './addresses'

export interface Grant {
  token: string
  userId: string
  username: string
}

export interface Account {
  userId: string
  username: string
  guest: boolean
  /** ms since the Unix epoch. */
  expiresAtMs: number
}

/** A sign-in of this user. */
export interface AuthSession {
  id: string
  /** What the device called itself; may be empty. */
  device: string
  /** ms since the Unix epoch. */
  createdAtMs: number
  lastSeenMs: number
  current: boolean
}

/** Servers for calls, with credentials that expire. */
export interface IceGrant {
  servers: { urls: string[]; username: string; credential: string }[]
  /** ms since the Unix epoch. */
  expiresAtMs: number
}

const TOKEN = /^[\x21-\x7e]{1,4000}$/

function parseGrant(body: Json): Grant | null {
  const { token, user_id: userId, username } = body
  if (typeof token !== 'string' || !TOKEN.test(token)) return null
  if (typeof userId !== 'string' || !isUserId(userId) || typeof username !== 'string') return null
  return { token, userId, username: username.slice(0, 64) }
}

function parseAccount(body: Json): Account | null {
  const { user_id: userId, username, guest, expires_at: expiresAt } = body
  if (typeof userId !== 'string' || !isUserId(userId) || typeof username !== 'string') return null
  if (typeof expiresAt !== 'number') return null
  return { userId, username: username.slice(0, 64), guest: guest === true, expiresAtMs: expiresAt * 1000 }
}

function parseSession(value: unknown): AuthSession | null {
  if (typeof value !== 'object' || value === null) return null
  const { id, device, created_at: createdAt, last_seen: lastSeen, current } = value as Json
  if (typeof id !== 'string' || !/^[0-9a-f]{1,64}$/.test(id)) return null
  if (typeof createdAt !== 'number' || typeof lastSeen !== 'number') return null
  const name = typeof device === 'string' ? device.slice(0, 64) : ''
  return { id, device: name, createdAtMs: createdAt * 1000, lastSeenMs: lastSeen * 1000, current: current === true }
}

const ICE_URL = /^(?:stuns?|turns?):[^\s?]{1,300}(?:\?transport=(?:udp|tcp))?$/

function parseIceServer(value: unknown): IceGrant['servers'][number] | null {
  if (typeof value !== 'object' || value === null) return null
  const { urls, username, credential } = value as Json
  if (!Array.isArray(urls) || !urls.every((url) => typeof url === 'string' && ICE_URL.test(url))) return null
  const secret = typeof username === 'string' && typeof credential === 'string' ? { username, credential } : null
  return urls.length > 0 ? { urls, ...(secret ?? { username: '', credential: '' }) } : null
}

/** The text of a 409 about the id contains `identity`; that of a 409 about the name does not. */
const conflictKind = (sentence: string): FailureKind => (/identity/i.test(sentence) ? 'identityTaken' : 'nameTaken')

function kindOf(status: number, sentence: string, unauthorized: FailureKind): FailureKind {
  if (status === 400 || status === 413) return 'invalid'
  if (status === 401) return unauthorized
  if (status === 404) return 'missing'
  if (status === 409) return conflictKind(sentence)
  return status === 429 ? 'tooMany' : 'server'
}

const unexpected = (): Failure => new Failure('server', 'The auth API sent an unexpected response.')

export class AuthApi {
  /**
   * @param base the URL prefix before `/auth/…`; '' for the page's own origin.
   * @param device what this browser is called in the list of sessions.
   */
  constructor(
    private readonly base: string,
    private readonly fetch: Fetch,
    private readonly device: string,
  ) {}

  /** A token for a guest. The previous token, even if expired, proves that the id belongs to the caller. */
  guest(name: string, userId: string, token: string | null): Promise<Grant> {
    return this.grant('guest', { name, user_id: userId, device: this.device }, token, 'signedOut')
  }

  register(username: string, password: string, userId: string, token: string | null): Promise<Grant> {
    const body = { username, password, user_id: userId, device: this.device }
    return this.grant('register', body, token, 'signedOut')
  }

  login(username: string, password: string): Promise<Grant> {
    return this.grant('login', { username, password, device: this.device }, null, 'credentials')
  }

  refresh(token: string): Promise<Grant> {
    return this.grant('refresh', { device: this.device }, token, 'signedOut')
  }

  async logout(token: string): Promise<void> {
    await this.call('POST', 'logout', {}, token, 'signedOut')
  }

  async changePassword(token: string, oldPassword: string, newPassword: string): Promise<void> {
    await this.call('POST', 'password', { old: oldPassword, new: newPassword }, token, 'credentials')
  }

  /** The sign-ins of the user, the latest first. */
  async sessions(token: string): Promise<AuthSession[]> {
    const list = await this.call('GET', 'sessions', null, token, 'signedOut')
    if (!Array.isArray(list)) throw unexpected()
    return list.map(parseSession).filter((session) => session !== null)
  }

  async endSession(token: string, id: string): Promise<void> {
    await this.call('DELETE', `sessions/${encodeURIComponent(id)}`, null, token, 'signedOut')
  }

  /** The key that a browser subscribes with, in base64url; null where the relay sends no push messages. */
  async pushKey(): Promise<string | null> {
    try {
      const { public_key: key } = (await this.call('GET', 'push', null, null, 'signedOut')) as Json
      return typeof key === 'string' && /^[\w-]{80,100}$/.test(key) ? key : null
    } catch (error) {
      if (error instanceof Failure && error.kind === 'missing') return null
      throw error
    }
  }

  /** Has a browser told while no page is open; `subscription` is what it gives for JSON. */
  async subscribePush(token: string, subscription: object): Promise<void> {
    await this.call('POST', 'push', subscription, token, 'signedOut')
  }

  async unsubscribePush(token: string, endpoint: string): Promise<void> {
    await this.call('DELETE', 'push', { endpoint }, token, 'signedOut')
  }

  async me(token: string): Promise<Account> {
    const account = parseAccount((await this.call('GET', 'me', null, token, 'signedOut')) as Json)
    if (!account) throw unexpected()
    return account
  }

  /** The servers through which calls reach people behind firewalls; null: there are none. */
  async iceServers(token: string): Promise<IceGrant | null> {
    let body: Json
    try {
      body = (await this.call('GET', 'turn', null, token, 'signedOut')) as Json
    } catch (error) {
      // Older relays do not know the address.
      if (error instanceof Failure && error.kind === 'missing') return null
      throw error
    }
    const { ice_servers: listed, expires_at: expiresAt } = body
    const servers = Array.isArray(listed) ? listed.map(parseIceServer).filter((server) => server !== null) : []
    if (servers.length === 0) return null
    if (typeof expiresAt !== 'number') throw unexpected()
    return { servers, expiresAtMs: expiresAt * 1000 }
  }

  private async grant(path: string, body: object, token: string | null, unauthorized: FailureKind): Promise<Grant> {
    const grant = parseGrant((await this.call('POST', path, body, token, unauthorized)) as Json)
    if (!grant) throw unexpected()
    return grant
  }

  private async call(
    method: Method,
    path: string,
    body: object | null,
    token: string | null,
    unauthorized: FailureKind,
  ): Promise<Json | readonly unknown[]> {
    const answer = await requestJson(this.fetch, `${this.base}/auth/${path}`, { method, body, token })
    if (answer.ok) return answer.body
    const { status, sentence, retryAfterS } = answer
    throw new Failure(kindOf(status, sentence, unauthorized), sentence, { detail: sentence, retryAfterS })
  }
}

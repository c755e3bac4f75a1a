/** Client of the relay's auth API. It rejects with a {@link Failure}. */
import { Failure, type FailureKind } from './errors'
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

type Fetch = (url: string, init: RequestInit) => Promise<Response>
type Json = Readonly<Record<string, unknown>>

const TOKEN = /^[\x21-\x7e]{1,4000}$/
const TIMEOUT_MS = 15_000

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

function retryAfterS(response: Response): number | null {
  const seconds = Number(response.headers.get('Retry-After') ?? NaN)
  return Number.isFinite(seconds) && seconds >= 0 ? Math.ceil(seconds) : null
}

async function readJson(response: Response): Promise<Json | readonly unknown[]> {
  try {
    const body: unknown = await response.json()
    return typeof body === 'object' && body !== null ? (body as Json | readonly unknown[]) : {}
  } catch {
    // Not JSON, e.g. a proxy's error page: the status has to do.
    return {}
  }
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
    method: 'GET' | 'POST' | 'DELETE',
    path: string,
    body: object | null,
    token: string | null,
    unauthorized: FailureKind,
  ): Promise<Json | readonly unknown[]> {
    const headers: Record<string, string> = {}
    if (body) headers['Content-Type'] = 'application/json'
    if (token) headers['Authorization'] = `Bearer ${token}`
    const init = {
      method,
      headers,
      credentials: 'omit',
      cache: 'no-store',
      signal: AbortSignal.timeout(TIMEOUT_MS),
    } as const
    let response: Response
    try {
      response = await this.fetch(`${this.base}/auth/${path}`, body ? { ...init, body: JSON.stringify(body) } : init)
    } catch (error) {
      throw new Failure('network', (error as Error).message)
    }
    const answer = await readJson(response)
    if (response.ok) return answer
    const { error: said } = answer as Json
    const sentence = typeof said === 'string' ? said.slice(0, 500) : `HTTP ${response.status}`
    const kind = kindOf(response.status, sentence, unauthorized)
    throw new Failure(kind, sentence, { detail: sentence, retryAfterS: retryAfterS(response) })
  }
}

/** Client of the relay's API for administrators (`/api/admin`, docs/openapi.yaml). It rejects with a {@link Failure}. */
import { Failure, type FailureKind } from '@/protocol/errors'
import { requestJson, type Fetch, type Json, type Method } from '@/protocol/http'
import type { ConsoleGrant, Page, Who } from './shapes'

type Query = Readonly<Record<string, string | number | null | undefined>>

const KINDS: Readonly<Record<number, FailureKind>> = {
  400: 'invalid',
  401: 'signedOut',
  403: 'forbidden',
  404: 'missing',
  409: 'conflict',
  412: 'conflict',
  413: 'tooLarge',
  429: 'tooMany',
}

const unexpected = (): Failure => new Failure('server', 'The relay sent an unexpected response.')

/** Ids that would name another call: browsers resolve dots in a path, encoded ones, too. */
const NO_SEGMENT = /^\.{0,2}$/

/**
 * A path with parameters, each percent-encoded: `path\`people/${id}\``.
 *
 * @throws {Failure} where a parameter cannot stand in a path; ids are whatever a client has written.
 */
export function path(parts: TemplateStringsArray, ...values: readonly string[]): string {
  const wrong = values.find((value) => NO_SEGMENT.test(value))
  if (wrong !== undefined) throw new Failure('invalid', 'no id', { detail: `“${wrong}” is no id.` })
  return parts.reduce((text, part, index) => text + encodeURIComponent(values[index - 1] ?? '') + part)
}

/** The query string of what is given; '' without anything. */
export function queryOf(query: Query): string {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== '')
  return given.length ? `?${new URLSearchParams(given.map(([name, value]) => [name, String(value)]))}` : ''
}

export class AdminApi {
  /**
   * @param base the URL prefix before `/auth/…` and `/api/…`; '' for the page's own origin.
   * @param onEnded called when the relay no longer knows the token.
   */
  constructor(
    private readonly base: string,
    private readonly fetch: Fetch,
    private readonly token: () => string | null,
    private readonly onEnded: () => void,
  ) {}

  /** A console token for an administrator's account. */
  async signIn(username: string, password: string): Promise<ConsoleGrant> {
    const answer = await this.ask('POST', '/auth/admin', { username, password }, null)
    if (!answer.ok) throw this.failureOf(answer, 'credentials')
    const { token, username: name } = answer.body as Json
    if (typeof token !== 'string' || typeof name !== 'string') throw unexpected()
    return { token, username: name }
  }

  /** Whose a token is. */
  async describe(token: string): Promise<Who> {
    const answer = await this.ask('GET', '/api/admin/me', null, token)
    if (!answer.ok) throw this.failureOf(answer, 'credentials')
    const { username, user_id, kind, expires_at } = answer.body as Json
    if (typeof username !== 'string' || typeof user_id !== 'string') throw unexpected()
    return {
      username,
      userId: user_id,
      isToken: kind === 'token',
      expiresAt: typeof expires_at === 'number' ? expires_at : null,
    }
  }

  /** Sets a new password with the secret of a one-time link; returns the user's name. */
  async resetPassword(secret: string, password: string): Promise<string> {
    const answer = await this.ask('POST', '/auth/reset', { secret, password }, null)
    if (!answer.ok) throw this.failureOf(answer, 'missing')
    return String((answer.body as Json)['username'] ?? '')
  }

  get<T>(path: string, query: Query = {}): Promise<T> {
    return this.call<T>('GET', `${path}${queryOf(query)}`, null)
  }

  post<T = unknown>(path: string, body: object = {}): Promise<T> {
    return this.call<T>('POST', path, body)
  }

  put<T = unknown>(path: string, body: object): Promise<T> {
    return this.call<T>('PUT', path, body)
  }

  delete(path: string, query: Query = {}): Promise<unknown> {
    return this.call('DELETE', `${path}${queryOf(query)}`, null)
  }

  /** A part of a list; `after` is the `next` of the part before. */
  async page<T>(path: string, query: Query = {}): Promise<Page<T>> {
    const { items, next } = await this.get<{ items?: unknown; next?: unknown }>(path, query)
    if (!Array.isArray(items)) throw unexpected()
    return { items: items as T[], next: typeof next === 'string' ? next : null }
  }

  /** The URL of a call, for streams. */
  urlOf(path: string, query: Query = {}): string {
    return `${this.base}/api/admin/${path}${queryOf(query)}`
  }

  /** A file that the API makes, as it is. */
  async file(path: string): Promise<Blob> {
    let response: Response
    try {
      const headers = { Authorization: `Bearer ${this.token() ?? ''}` }
      response = await this.fetch(this.urlOf(path), { headers, credentials: 'omit', cache: 'no-store' })
    } catch (error) {
      throw new Failure('network', (error as Error).message)
    }
    if (!response.ok) {
      throw this.failureOf({ status: response.status, sentence: `HTTP ${response.status}`, retryAfterS: null })
    }
    return response.blob()
  }

  private async call<T>(method: Method, path: string, body: object | null): Promise<T> {
    const answer = await this.ask(method, `/api/admin/${path}`, body, this.token())
    if (!answer.ok) throw this.failureOf(answer)
    return answer.body as T
  }

  private ask(method: Method, path: string, body: object | null, token: string | null) {
    return requestJson(this.fetch, `${this.base}${path}`, { method, body, token })
  }

  private failureOf(
    { status, sentence, retryAfterS }: { status: number; sentence: string; retryAfterS: number | null },
    unauthorized: FailureKind = 'signedOut',
  ): Failure {
    const kind = status === 401 ? unauthorized : (KINDS[status] ?? 'server')
    if (kind === 'signedOut') this.onEnded()
    return new Failure(kind, sentence, { detail: sentence, retryAfterS })
  }
}

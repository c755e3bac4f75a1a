/** Requests to the relay's HTTP API, with JSON in both directions. */
import { Failure } from './errors'

export type Fetch = (url: string, init: RequestInit) => Promise<Response>
export type Json = Readonly<Record<string, unknown>>
export type Method = 'GET' | 'POST' | 'PUT' | 'DELETE'

const TIMEOUT_MS = 15_000
const MOST_CHARACTERS = 500

export interface JsonAnswer {
  /** Whether it was done. */
  ok: boolean
  status: number
  /** {} where the answer is not JSON, e.g. a proxy's error page: the status has to do. */
  body: Json | readonly unknown[]
  /** What the server says about a refusal. */
  sentence: string
  retryAfterS: number | null
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
    return {}
  }
}

/**
 * Sends a request without cookies, and reads the answer.
 *
 * @throws {Failure} of kind `network` when the server cannot be reached.
 */
export async function requestJson(
  fetch: Fetch,
  url: string,
  { method, body, token }: { method: Method; body: object | null; token: string | null },
): Promise<JsonAnswer> {
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
    response = await fetch(url, body ? { ...init, body: JSON.stringify(body) } : init)
  } catch (error) {
    throw new Failure('network', (error as Error).message)
  }
  const answer = await readJson(response)
  const { error: said } = answer as Json
  const sentence = typeof said === 'string' ? said.slice(0, MOST_CHARACTERS) : `HTTP ${response.status}`
  return { ok: response.ok, status: response.status, body: answer, sentence, retryAfterS: retryAfterS(response) }
}

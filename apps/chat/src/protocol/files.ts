/** Client of the relay's files. It rejects with a {@link Failure}, or with an AbortError. */
import { Failure } from './errors'

/** The bounds of this relay, in bytes and days; 0 for none. */
export interface FileBounds {
  maxFile: number
  perUser: number
  perGuest: number
  days: number
}

export interface Transfer {
  signal: AbortSignal
  /** Called with the bytes that are through. */
  progress: (bytes: number) => void
}

export interface Sent {
  status: number
  text: string
  retryAfterS: number | null
}

/** POSTs bytes and tells the progress, which `fetch` does not. */
export type PostBytes = (url: string, token: string, bytes: Blob, transfer: Transfer) => Promise<Sent>

type Fetch = (url: string, init: RequestInit) => Promise<Response>

const FILE_ID = /^[0-9a-f]{32}$/
const TIMEOUT_MS = 15_000
/** A 429 for longer is about a share that is full, not about a rate. */
const LONG_S = 60

const unexpected = (): Failure => new Failure('server', 'The relay sent an unexpected response.')

function sentenceOf(text: string, status: number): string {
  try {
    const { error } = JSON.parse(text) as { error?: unknown }
    if (typeof error === 'string') return error.slice(0, 500)
  } catch {
    // Not JSON, e.g. a proxy's error page: the status has to do.
  }
  return `HTTP ${status}`
}

function failureOf({ status, text, retryAfterS }: Sent): Failure {
  const detail = sentenceOf(text, status)
  const options = { detail, retryAfterS }
  if (status === 401) return new Failure('signedOut', detail, options)
  if (status === 403) return new Failure('forbidden', detail, options)
  if (status === 404) return new Failure('missing', detail, { ...options, reason: 'fileGone' })
  if (status === 413) return new Failure('tooLarge', detail, { ...options, reason: 'fileTooBig' })
  if (status === 429 && (retryAfterS ?? 0) >= LONG_S)
    return new Failure('tooLarge', detail, { ...options, reason: 'filesFull' })
  if (status === 429) return new Failure('tooMany', detail, options)
  if (status === 507) return new Failure('server', detail, { ...options, reason: 'relayFull' })
  // Something on the way, or a relay that is busy: it may work later.
  return new Failure(status >= 502 && status <= 504 ? 'network' : 'server', detail, options)
}

const seconds = (value: string | null): number | null =>
  value !== null && /^\d{1,9}$/.test(value) ? Number(value) : null

export class FilesApi {
  /** @param base the URL prefix before `/files`; '' for the page's own origin. */
  constructor(
    private readonly base: string,
    private readonly fetch: Fetch,
    private readonly post: PostBytes,
  ) {}

  /** What this relay takes; null: no files. */
  async bounds(): Promise<FileBounds | null> {
    const response = await this.ask(`${this.base}/auth/config`, { signal: AbortSignal.timeout(TIMEOUT_MS) })
    if (!response.ok) return null
    const body = (await response.json().catch(() => null)) as { files?: Record<string, unknown> | null } | null
    const told = body?.files
    if (!told) return null
    const number = (key: string): number => (typeof told[key] === 'number' ? told[key] : 0)
    const [maxFile, perUser] = [number('max_file'), number('per_user')]
    return { maxFile, perUser, perGuest: number('per_guest'), days: number('days') }
  }

  /** Stores bytes; resolves with the id of the file. */
  async upload(token: string, bytes: Blob, transfer: Transfer): Promise<string> {
    const sent = await this.post(`${this.base}/files`, token, bytes, transfer)
    if (sent.status !== 201) throw failureOf(sent)
    try {
      const { id } = JSON.parse(sent.text) as { id?: unknown }
      if (typeof id === 'string' && FILE_ID.test(id)) return id
    } catch {
      // As below.
    }
    throw unexpected()
  }

  async download(token: string, id: string, { signal, progress }: Transfer): Promise<ArrayBuffer> {
    const response = await this.ask(`${this.base}/files/${id}`, { headers: this.bearer(token), signal })
    if (!response.ok) throw failureOf(await this.told(response))
    const parts: Uint8Array<ArrayBuffer>[] = []
    let bytes = 0
    try {
      const reader = (response.body as ReadableStream<Uint8Array<ArrayBuffer>>).getReader()
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        parts.push(part.value)
        bytes += part.value.length
        progress(bytes)
      }
    } catch (error) {
      throw networkFailure(error)
    }
    return new Blob(parts).arrayBuffer()
  }

  async remove(token: string, id: string): Promise<void> {
    const init = { method: 'DELETE', headers: this.bearer(token), signal: AbortSignal.timeout(TIMEOUT_MS) }
    const response = await this.ask(`${this.base}/files/${id}`, init)
    if (!response.ok) throw failureOf(await this.told(response))
  }

  private readonly bearer = (token: string): Record<string, string> => ({ Authorization: `Bearer ${token}` })

  private async told(response: Response): Promise<Sent> {
    const { status, headers } = response
    return { status, text: await response.text(), retryAfterS: seconds(headers.get('Retry-After')) }
  }

  private async ask(url: string, init: RequestInit): Promise<Response> {
    try {
      return await this.fetch(url, { credentials: 'omit', cache: 'no-store', ...init })
    } catch (error) {
      throw networkFailure(error)
    }
  }
}

/** What a request that broke off is told as; that it was given up stays an AbortError. */
function networkFailure(error: unknown): unknown {
  if (error instanceof DOMException && error.name === 'AbortError') return error
  return new Failure('network', (error as Error).message)
}

/** {@link PostBytes} of browsers. */
export const postBytes: PostBytes = (url, token, bytes, { signal, progress }) =>
  new Promise((resolve, reject) => {
    const request = new XMLHttpRequest()
    request.open('POST', url)
    request.setRequestHeader('Authorization', `Bearer ${token}`)
    request.setRequestHeader('Content-Type', 'application/octet-stream')
    request.upload.onprogress = ({ loaded }) => progress(loaded)
    request.onload = () => {
      const retryAfterS = seconds(request.getResponseHeader('Retry-After'))
      resolve({ status: request.status, text: request.responseText, retryAfterS })
    }
    request.onerror = () => reject(new Failure('network', 'the connection broke off'))
    request.onabort = () => reject(new DOMException('given up', 'AbortError'))
    signal.addEventListener('abort', () => request.abort(), { once: true })
    request.send(bytes)
  })

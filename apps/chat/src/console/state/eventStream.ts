/** Server-Sent Events over fetch: unlike EventSource it sends a header, and it reads only as fast as the page draws. */
import { Failure } from '@/protocol/errors'
import type { Fetch } from '@/protocol/http'

export interface StreamEvent {
  readonly event: string
  readonly data: string
}

/** Takes a stream of Server-Sent Events apart, wherever its chunks end. */
export class StreamParser {
  private rest = ''
  private event = ''
  private data: string[] = []

  push(text: string): StreamEvent[] {
    const lines = (this.rest + text).split('\n')
    this.rest = lines.pop() ?? ''
    const events: StreamEvent[] = []
    for (const line of lines) {
      const event = this.take(line.endsWith('\r') ? line.slice(0, -1) : line)
      if (event) events.push(event)
    }
    return events
  }

  private take(line: string): StreamEvent | null {
    if (line === '') {
      const event = { event: this.event || 'message', data: this.data.join('\n') }
      const isEvent = this.data.length > 0
      this.event = ''
      this.data = []
      return isEvent ? event : null
    }
    const colon = line.indexOf(':')
    const name = colon < 0 ? line : line.slice(0, colon)
    const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '')
    if (name === 'event') this.event = value
    else if (name === 'data') this.data.push(value)
    return null
  }
}

export interface FollowOptions {
  fetch: Fetch
  url: string
  token: string
  signal: AbortSignal
  /** Called with the events of one chunk. */
  take: (events: readonly StreamEvent[]) => void
  /** Resolves when the page is ready for more: what is not read waits at the relay, which keeps the newest values. */
  ready: () => Promise<void>
}

/**
 * Reads a stream to its end.
 *
 * @throws {Failure} when it is refused (`signedOut`, `forbidden`, `invalid`, `tooMany`, `server`), or cannot be reached or
 *   breaks off (`network`).
 */
export async function follow({ fetch, url, token, signal, take, ready }: FollowOptions): Promise<void> {
  let response: Response
  try {
    const headers = { Authorization: `Bearer ${token}`, Accept: 'text/event-stream' }
    response = await fetch(url, { headers, credentials: 'omit', cache: 'no-store', signal })
  } catch (error) {
    throw new Failure('network', (error as Error).message)
  }
  if (!response.ok || !response.body) throw await refusalOf(response)
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
  const parser = new StreamParser()
  try {
    for (;;) {
      const { done, value } = await reader.read()
      if (done) return
      take(parser.push(value))
      await ready()
    }
  } catch (error) {
    throw new Failure('network', (error as Error).message)
  }
}

const KINDS = { 400: 'invalid', 401: 'signedOut', 403: 'forbidden', 404: 'missing', 429: 'tooMany' } as const

async function refusalOf(response: Response): Promise<Failure> {
  const text = await response.text().catch(() => '')
  let detail = `HTTP ${response.status}`
  try {
    const { error } = JSON.parse(text) as { error?: unknown }
    if (typeof error === 'string') detail = error.slice(0, 500)
  } catch {
    // A proxy's error page: the status has to do.
  }
  return new Failure(KINDS[response.status as keyof typeof KINDS] ?? 'server', detail, { detail })
}

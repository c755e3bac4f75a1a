/** The files of a relay, in memory. */
import type { PostBytes } from '@/protocol/files'
import type { Platform } from '@/stores/platform'
import { Failure } from '@/protocol/errors'

export class FakeFiles {
  /** By id. */
  readonly kept = new Map<string, Uint8Array<ArrayBuffer>>()
  bounds: object | null = { max_file: 1000, per_user: 5000, per_guest: 5000, days: 90 }
  /** What becomes of the next uploads; after them all succeed. */
  readonly answers: ('cut' | 'hang' | { status: number; error: string })[] = []
  private count = 0

  get doors(): { fetch: Platform['fetch']; postBytes: PostBytes } {
    return { fetch: (url, init) => this.fetch(url, init), postBytes: this.post }
  }

  private readonly post: PostBytes = async (_url, _token, bytes, { signal, progress }) => {
    const data = new Uint8Array(await bytes.arrayBuffer())
    progress(data.length / 2)
    const answer = this.answers.shift()
    if (answer === 'cut') throw new Failure('network', 'cut')
    if (answer === 'hang')
      await new Promise((_, reject) =>
        signal.addEventListener('abort', () => reject(new DOMException('given up', 'AbortError'))),
      )
    else if (answer) return { status: answer.status, text: JSON.stringify({ error: answer.error }), retryAfterS: 3600 }
    progress(data.length)
    this.count += 1
    const id = this.count.toString(16).padStart(32, '0')
    this.kept.set(id, data)
    return { status: 201, text: JSON.stringify({ id, size: data.length }), retryAfterS: null }
  }

  private async fetch(url: string, init: RequestInit): Promise<Response> {
    if (url.endsWith('/auth/config')) return Response.json({ files: this.bounds })
    const id = url.split('/files/')[1]
    if (id === undefined) throw new TypeError('no network')
    const data = this.kept.get(id)
    if (!data) return Response.json({ error: 'gone' }, { status: 404 })
    if (init.method === 'DELETE') this.kept.delete(id)
    return init.method === 'DELETE' ? Response.json({}) : new Response(data)
  }
}

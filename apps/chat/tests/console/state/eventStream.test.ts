import { createServer, type RequestListener, type Server } from 'node:http'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import fc from 'fast-check'
import { afterEach, describe, expect, it } from 'vitest'
import { follow, StreamParser, type StreamEvent } from '@/console/state/eventStream'
import { LiveFeed, type FeedStatus } from '@/console/state/liveFeed'
import { LiveState, type Taken } from '@/console/state/liveState'
import { systemClock } from '@/protocol/clock'
import type { Failure } from '@/protocol/errors'

const TEXT =
  'event: set\ndata: {"address":"/a"}\nid: 7\n\n: still here\n\nevent: live\r\ndata: {}\r\n\r\ndata:1\ndata: 2\n\nnothing\n\n'
const EVENTS: StreamEvent[] = [
  { event: 'set', data: '{"address":"/a"}' },
  { event: 'live', data: '{}' },
  { event: 'message', data: '1\n2' },
]

describe('a stream of events', () => {
  it('is the same wherever its chunks end', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(TEXT.length)), (cuts) => {
        const parser = new StreamParser()
        const places = [0, ...cuts.sort((one, other) => one - other), TEXT.length]
        const events = places.slice(1).flatMap((end, index) => parser.push(TEXT.slice(places[index], end)))
        expect(events).toEqual(EVENTS)
      }),
    )
  })
})

describe('a relay that streams', () => {
  let server: Server

  async function serve(listener: RequestListener): Promise<string> {
    server = createServer(listener).listen(0, '127.0.0.1')
    await once(server, 'listening')
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}/stream`
  }
  afterEach(() => server.closeAllConnections())

  function watch(url: string, stopAt: (status: FeedStatus) => boolean) {
    const live = new LiveState(() => Date.now())
    const heard: Taken[] = []
    const statuses: FeedStatus[] = []
    const done = new Promise<void>((resolve) => {
      const feed = new LiveFeed(live, {
        fetch: (to, init) => fetch(to, init),
        clock: { ...systemClock, after: (_, callback) => systemClock.after(1, callback) },
        token: () => 'secret',
        urlOf: (pattern) => `${url}?pattern=${pattern}`,
        ready: () => Promise.resolve(),
        onUpdate: (update) => heard.push(update),
        onStatus(status) {
          statuses.push(status)
          if (!stopAt(status)) return
          feed.stop()
          resolve()
        },
      })
      feed.start('/**')
    })
    return { live, heard, statuses, done }
  }

  it('is followed with the token in the header, and again after it broke off', async () => {
    const seen: string[] = []
    const url = await serve((request, response) => {
      seen.push(`${request.url} ${request.headers.authorization}`)
      response.writeHead(200, { 'Content-Type': 'text/event-stream' })
      response.write(
        `event: set\ndata: {"address":"/a","value":${seen.length},"revision":1}\n\nevent: live\ndata: {}\n\n`,
      )
      if (seen.length === 1) response.end('event: set\ndata: {"address":"/gone","value":{"$bytes":"AQ=="}}\n\n')
    })
    let lives = 0
    const { live, heard, statuses, done } = watch(url, ({ phase }) => phase === 'live' && ++lives === 2)
    await done
    expect(seen).toEqual(['/stream?pattern=/** Bearer secret', '/stream?pattern=/** Bearer secret'])
    expect(heard.map(({ address, kind, value }) => [address, kind, value])).toEqual([
      ['/a', 'snapshot', 1],
      ['/gone', 'set', new Uint8Array([1])],
      ['/a', 'snapshot', 2],
    ])
    // What was deleted meanwhile is not shown for ever.
    expect(live.tree.rows().map(({ path }) => path)).toEqual(['/a'])
    expect(statuses.map(({ phase }) => phase)).toEqual([
      ...['idle', 'connecting', 'live', 'waiting', 'connecting', 'live', 'idle'],
    ])
  })

  it('is not asked again when it refuses', async () => {
    let asked = 0
    const url = await serve((_, response) => {
      asked += 1
      response.writeHead(403).end('{"error": "Not for you."}')
    })
    const { statuses, done } = watch(url, ({ phase }) => phase === 'refused')
    await done
    await new Promise((resolve) => setTimeout(resolve, 20))
    expect(asked).toBe(1)
    expect(statuses.find(({ phase }) => phase === 'refused')?.failure).toMatchObject({
      kind: 'forbidden',
      detail: 'Not for you.',
    })
  })

  it('says why it ends the stream', async () => {
    const url = await serve((_, response) => {
      response.writeHead(200)
      response.end('event: problem\ndata: {"code": 302, "error": "The token has expired."}\n\n')
    })
    const { statuses, done } = watch(url, ({ phase }) => phase === 'refused')
    await done
    expect(statuses.at(-2)?.failure).toMatchObject({ kind: 'signedOut', detail: 'The token has expired.' })
  })

  it('may be a proxy that answers with a page, or nothing at all', async () => {
    const url = await serve((_, response) => response.writeHead(502).end('<html>'))
    const signal = new AbortController().signal
    const tell = (to: string): Promise<Failure | null> =>
      follow({ fetch, url: to, token: 't', signal, take: () => undefined, ready: () => Promise.resolve() }).then(
        () => null,
        (failure: Failure) => failure,
      )
    expect(await tell(url)).toMatchObject({ kind: 'server', detail: 'HTTP 502' })
    server.close()
    server.closeAllConnections()
    expect(await tell('http://127.0.0.1:1/')).toMatchObject({ kind: 'network' })
  })
})

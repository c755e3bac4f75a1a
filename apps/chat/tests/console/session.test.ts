import { describe, expect, it } from 'vitest'
import { path, queryOf } from '@/console/api'
import { makeConsole } from '@/console/session'
import { systemClock } from '@/protocol/clock'
import type { Failure } from '@/protocol/errors'

interface Call {
  method: string
  url: string
  bearer: string | null
  body: unknown
}

class Tab {
  readonly items = new Map<string, string>()
  refuses = false
  open = () => {
    if (this.refuses) throw new DOMException('no storage here')
    return {
      getItem: (key: string) => this.items.get(key) ?? null,
      setItem: (key: string, value: string) => void this.items.set(key, value),
      removeItem: (key: string) => void this.items.delete(key),
    }
  }
}

const ME = { user_id: 'u-1', username: 'boss', kind: 'console', expires_at: 2_000_000_000 }

function consoleWith(answer: (call: Call) => { status?: number; body?: unknown; headers?: Record<string, string> }) {
  const calls: Call[] = []
  const tab = new Tab()
  const make = () =>
    makeConsole({
      base: '',
      clock: systemClock,
      storage: tab.open,
      async fetch(url, init) {
        const headers = init.headers as Record<string, string>
        const bearer = headers['Authorization']?.replace('Bearer ', '') ?? null
        const body: unknown = typeof init.body === 'string' ? JSON.parse(init.body) : null
        const call = { method: init.method ?? 'GET', url, bearer, body }
        calls.push(call)
        const { status = 200, body: said = {}, headers: sent = {} } = answer(call)
        if (status === 0) throw new TypeError('connection refused')
        return new Response(typeof said === 'string' ? said : JSON.stringify(said), { status, headers: sent })
      },
    })
  return { calls, tab, make }
}

const failed = (promise: Promise<unknown>): Promise<Failure | null> =>
  promise.then(
    () => null,
    (failure: Failure) => failure,
  )
const signedIn = ({ url }: Call) => ({ body: url === '/auth/admin' ? { token: 'cpca_1', username: 'boss' } : ME })

describe('a session of the console', () => {
  it('begins with a password, lasts over a reload, and ends everywhere', async () => {
    const { calls, tab, make } = consoleWith(signedIn)
    const session = make()
    await session.signIn(' boss ', 'secret')
    expect(session.state.who).toEqual({ userId: 'u-1', username: 'boss', isToken: false, expiresAt: 2_000_000_000 })
    expect([...tab.items.values()]).toEqual(['cpca_1'])
    const reloaded = make()
    await reloaded.restore()
    expect(reloaded.state.who?.username).toBe('boss')
    await reloaded.signOut()
    expect([reloaded.state.who, reloaded.token(), tab.items.size]).toEqual([null, null, 0])
    expect(calls.map(({ method, url, bearer }) => [method, url, bearer])).toEqual([
      ['POST', '/auth/admin', null],
      ['GET', '/api/admin/me', 'cpca_1'],
      ['GET', '/api/admin/me', 'cpca_1'],
      ['POST', '/api/admin/logout', 'cpca_1'],
    ])
    expect(calls[0]?.body).toEqual({ username: 'boss', password: 'secret' })
  })

  it('does not end the token of the relay itself, and works where nothing is stored', async () => {
    const { calls, tab, make } = consoleWith(() => ({ body: { ...ME, kind: 'token', expires_at: null } }))
    tab.refuses = true
    const session = make()
    await session.useToken(' root-token\n')
    expect(session.state.who).toMatchObject({ isToken: true, expiresAt: null })
    await session.signOut()
    expect(calls.map(({ url, bearer }) => [url, bearer])).toEqual([['/api/admin/me', 'root-token']])
  })

  it('is over when the relay says so, and the token is forgotten', async () => {
    const { tab, make } = consoleWith((call) => (call.url === '/api/admin/people' ? { status: 401 } : signedIn(call)))
    const session = make()
    await session.signIn('boss', 'secret')
    expect(await failed(session.api.page('people'))).toMatchObject({ kind: 'signedOut' })
    expect([session.state.who, session.state.ended, tab.items.size]).toEqual([null, true, 0])
  })

  it('keeps its token while the relay cannot be reached, and drops one that is refused', async () => {
    let status = 0
    const { tab, make } = consoleWith(() => ({ status }))
    tab.items.set('clasp-console-token', 'cpca_old')
    const session = make()
    expect(await failed(session.restore())).toMatchObject({ kind: 'network' })
    expect(tab.items.size).toBe(1)
    status = 401
    await session.restore()
    expect([tab.items.size, session.state.ended, session.state.who]).toEqual([0, true, null])
  })

  it('tells a wrong password from an account that is no administrator’s', async () => {
    for (const [status, kind] of [
      [401, 'credentials'],
      [403, 'forbidden'],
      [429, 'tooMany'],
      [500, 'server'],
    ] as const) {
      const { make } = consoleWith(() => ({ status, body: { error: 'No.' }, headers: { 'Retry-After': '7' } }))
      const session = make()
      expect(await failed(session.signIn('boss', 'x'))).toMatchObject({ kind, detail: 'No.', retryAfterS: 7 })
      expect(session.state).toEqual({ who: null, ended: false })
    }
    const { make } = consoleWith(() => ({ body: 'a page' }))
    expect(await failed(make().signIn('boss', 'x'))).toMatchObject({ kind: 'server' })
    expect(await failed(make().useToken('x'))).toMatchObject({ kind: 'server' })
  })
})

describe('calls of the console', () => {
  it('encode what stands in a path and in a query', () => {
    expect(path`rooms/${'a/b?c#d'}/bans/${'...'}`).toBe('rooms/a%2Fb%3Fc%23d/bans/...')
    // Lifting the ban of somebody called «..» would delete the room.
    for (const id of ['..', '.', ''])
      expect(() => path`rooms/r/bans/${id}`).toThrow(expect.objectContaining({ kind: 'invalid' }))
    expect(queryOf({ search: 'a&b=c', after: null, kind: '', limit: 5, state: undefined })).toBe(
      '?search=a%26b%3Dc&limit=5',
    )
    expect(queryOf({})).toBe('')
  })

  it('get lists in parts, and files as they are', async () => {
    const { calls, make } = consoleWith(({ url }) => {
      if (url.includes('export')) return { body: '{"seq":1}\n' }
      return { body: url.includes('after') ? { items: [2], next: null } : { items: [1], next: 'x' } }
    })
    const { api } = make()
    expect(await api.page('audit')).toEqual({ items: [1], next: 'x' })
    expect(await api.page('audit', { after: 'x' })).toEqual({ items: [2], next: null })
    expect(await (await api.file('audit/export')).text()).toBe('{"seq":1}\n')
    await api.put('param', { address: '/a', value: 1 })
    await api.delete('param', { address: '/a' })
    expect(await api.resetPassword('s', 'p')).toBe('')
    expect(calls.slice(3).map(({ method, url, body }) => [method, url, body])).toEqual([
      ['PUT', '/api/admin/param', { address: '/a', value: 1 }],
      ['DELETE', '/api/admin/param?address=%2Fa', null],
      ['POST', '/auth/reset', { secret: 's', password: 'p' }],
    ])
  })

  it('say what is wrong with an answer', async () => {
    const { make } = consoleWith(({ url }) => (url.includes('rooms') ? { status: 409, body: { error: 'Taken.' } } : {}))
    expect(await failed(make().api.page('people'))).toMatchObject({ kind: 'server' })
    expect(await failed(make().api.post('rooms'))).toMatchObject({ kind: 'conflict', detail: 'Taken.' })
    const down = consoleWith(() => ({ status: 0 })).make()
    expect(await failed(down.api.file('audit/export'))).toMatchObject({ kind: 'network' })
    const broken = consoleWith(() => ({ status: 503 })).make()
    expect(await failed(broken.api.file('audit/export'))).toMatchObject({ kind: 'server', detail: 'HTTP 503' })
  })
})

import { describe, expect, it } from 'vitest'
import { AuthApi } from '@/protocol/auth'
import type { Failure } from '@/protocol/errors'

interface Call {
  url: string
  method: string
  headers: Record<string, string>
  body: unknown
}

function api(status: number, body: unknown, headers: Record<string, string> = {}) {
  const calls: Call[] = []
  const text = typeof body === 'string' ? body : JSON.stringify(body)
  const auth = new AuthApi(
    'https://auth.test',
    async (url, init) => {
      const sentHeaders = init.headers as Record<string, string>
      calls.push({
        url,
        method: init.method ?? '',
        headers: sentHeaders,
        body: init.body ? JSON.parse(init.body as string) : null,
      })
      return new Response(text, { status, headers })
    },
    'Desk',
  )
  return { auth, calls }
}

const GRANT = { token: 'cpsk_00', user_id: 'u-1', username: 'alice' }
const failed = (promise: Promise<unknown>) =>
  promise.then(
    () => null,
    (failure: Failure) => failure,
  )

describe('AuthApi', () => {
  it('asks for what it says, with the token that proves the identity', async () => {
    const { auth, calls } = api(200, GRANT)
    const grant = { token: 'cpsk_00', userId: 'u-1', username: 'alice' }
    expect(await auth.guest('Al', 'u-1', 'old')).toEqual(grant)
    expect(await auth.register('alice', 'secret', 'u-1', null)).toEqual(grant)
    expect(await auth.login('alice', 'secret')).toEqual(grant)
    expect(await auth.refresh('old')).toEqual(grant)
    await auth.logout('old')
    await auth.changePassword('old', 'one', 'two')
    const bearer = { 'Content-Type': 'application/json', Authorization: 'Bearer old' }
    const json = { 'Content-Type': 'application/json' }
    expect(calls).toEqual([
      {
        url: 'https://auth.test/auth/guest',
        method: 'POST',
        headers: bearer,
        body: { name: 'Al', user_id: 'u-1', device: 'Desk' },
      },
      {
        url: 'https://auth.test/auth/register',
        method: 'POST',
        headers: json,
        body: { username: 'alice', password: 'secret', user_id: 'u-1', device: 'Desk' },
      },
      {
        url: 'https://auth.test/auth/login',
        method: 'POST',
        headers: json,
        body: { username: 'alice', password: 'secret', device: 'Desk' },
      },
      { url: 'https://auth.test/auth/refresh', method: 'POST', headers: bearer, body: { device: 'Desk' } },
      { url: 'https://auth.test/auth/logout', method: 'POST', headers: bearer, body: {} },
      { url: 'https://auth.test/auth/password', method: 'POST', headers: bearer, body: { old: 'one', new: 'two' } },
    ])
  })

  it('says who a token belongs to and how long', async () => {
    const { auth, calls } = api(200, {
      user_id: 'u-1',
      username: 'alice',
      guest: true,
      scopes: [],
      expires_at: 1_700_000_000,
    })
    expect(await auth.me('t')).toEqual({
      userId: 'u-1',
      username: 'alice',
      guest: true,
      expiresAtMs: 1_700_000_000_000,
    })
    expect(calls[0]).toEqual({
      url: 'https://auth.test/auth/me',
      method: 'GET',
      headers: { Authorization: 'Bearer t' },
      body: null,
    })
  })

  it('lists and ends the sessions of the user', async () => {
    const session = { id: '00ff', device: 'Desk', created_at: 1, last_seen: 2, current: true }
    const odd = [null, 7, { ...session, id: '../x' }, { ...session, id: 1 }, { ...session, created_at: 'x' }]
    const { auth, calls } = api(200, [session, ...odd, { ...session, last_seen: null }, { ...session, device: 7 }])
    const read = { id: '00ff', device: 'Desk', createdAtMs: 1_000, lastSeenMs: 2_000, current: true }
    expect(await auth.sessions('t')).toEqual([read, { ...read, device: '' }])
    await auth.endSession('t', '00ff')
    const headers = { Authorization: 'Bearer t' }
    expect(calls).toEqual([
      { url: 'https://auth.test/auth/sessions', method: 'GET', headers, body: null },
      { url: 'https://auth.test/auth/sessions/00ff', method: 'DELETE', headers, body: null },
    ])
    expect(await failed(api(200, {}).auth.sessions('t'))).toMatchObject({ kind: 'server' })
  })

  it.each([
    [400, 'Bad name.', 'invalid'],
    [413, 'Too much.', 'invalid'],
    [401, 'Wrong name or password.', 'credentials'],
    [404, 'No such call.', 'missing'],
    [409, 'This identity belongs to a registered user.', 'identityTaken'],
    [409, 'This name is taken.', 'nameTaken'],
    [429, 'Too many tries.', 'tooMany'],
    [500, 'Internal error.', 'server'],
    [503, 'Busy.', 'server'],
  ])('says a %i «%s» as %s', async (status, error, kind) => {
    expect(await failed(api(status, { error }).auth.login('a', 'b'))).toMatchObject({ kind, message: error })
  })

  it('tells a token that is no good from a password that is wrong', async () => {
    const { auth } = api(401, { error: 'No.' })
    expect(await failed(auth.refresh('t'))).toMatchObject({ kind: 'signedOut' })
    expect(await failed(auth.changePassword('t', 'a', 'b'))).toMatchObject({ kind: 'credentials' })
  })

  it('knows how long to wait', async () => {
    const waits = async (value: string) =>
      (await failed(api(429, { error: 'Slow.' }, { 'Retry-After': value }).auth.login('a', 'b')))!.retryAfterS
    expect(await waits('12')).toBe(12)
    expect(await waits('0.4')).toBe(1)
    expect(await waits('soon')).toBeNull()
    expect(await waits('-3')).toBeNull()
    expect((await failed(api(429, {}).auth.login('a', 'b')))!.retryAfterS).toBeNull()
  })

  it('makes do with an answer that is none of the API’s', async () => {
    expect(await failed(api(502, '<html>').auth.login('a', 'b'))).toMatchObject({ kind: 'server', message: 'HTTP 502' })
    expect(await failed(api(500, 'null').auth.login('a', 'b'))).toMatchObject({ message: 'HTTP 500' })
    for (const body of [
      '<html>',
      {},
      { ...GRANT, token: '' },
      { ...GRANT, token: 7 },
      { ...GRANT, token: 'with space' },
      { ...GRANT, user_id: 'a/b' },
      { ...GRANT, user_id: 7 },
      { ...GRANT, username: 7 },
    ]) {
      expect(await failed(api(200, body).auth.login('a', 'b'))).toMatchObject({ kind: 'server' })
    }
    const account = { user_id: 'u', username: 'a', expires_at: 1 }
    for (const body of [
      { ...account, user_id: '*' },
      { ...account, user_id: 1 },
      { ...account, username: 1 },
      { ...account, expires_at: 'x' },
    ]) {
      expect(await failed(api(200, body).auth.me('t'))).toMatchObject({ kind: 'server' })
    }
  })

  it('reads the servers for calls, and leaves out what is none', async () => {
    const urls = ['turn:turn.test:3478?transport=udp', 'turns:turn.test:5349']
    const server = { urls, username: '1700000600:u-1', credential: 'c2VjcmV0' }
    const odd = [null, { urls: 'turn:x' }, { urls: [] }, { urls: ['https://x'] }, { urls: ['turn:a b'] }]
    const body = { ice_servers: [server, ...odd, { urls: ['stun:stun.test'] }], expires_at: 1_700_000_600 }
    const { auth, calls } = api(200, body)
    const open = { urls: ['stun:stun.test'], username: '', credential: '' }
    expect(await auth.iceServers('t')).toEqual({ servers: [server, open], expiresAtMs: 1_700_000_600_000 })
    expect(calls).toMatchObject([{ url: 'https://auth.test/auth/turn', method: 'GET' }])
  })

  it('says that there are no servers for calls', async () => {
    expect(await api(404, {}).auth.iceServers('t')).toBe(null)
    expect(await api(200, {}).auth.iceServers('t')).toBe(null)
    expect(await api(200, { ice_servers: [] }).auth.iceServers('t')).toBe(null)
    expect(await failed(api(403, { error: 'no' }).auth.iceServers('t'))).toMatchObject({ detail: 'no' })
    const endless = { ice_servers: [{ urls: ['stun:a'] }] }
    expect(await failed(api(200, endless).auth.iceServers('t'))).toMatchObject({ kind: 'server' })
  })

  it('reads the key for push messages, and tells no key from an answer that failed', async () => {
    const key = 'B'.repeat(87)
    expect(await api(200, { public_key: key }).auth.pushKey()).toBe(key)
    expect(await api(200, { public_key: 'short' }).auth.pushKey()).toBe(null)
    expect(await api(404, {}).auth.pushKey()).toBe(null)
    expect(await failed(api(503, { error: 'later' }).auth.pushKey())).toMatchObject({ detail: 'later' })
  })

  it('says when the server was not reached', async () => {
    const auth = new AuthApi('', () => Promise.reject(new TypeError('Failed to fetch')), '')
    expect(await failed(auth.login('a', 'b'))).toMatchObject({ kind: 'network', message: 'Failed to fetch' })
  })
})

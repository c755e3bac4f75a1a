import { afterEach, describe, expect, it, vi } from 'vitest'
import type { Failure } from '@/protocol/errors'
import { FilesApi, postBytes, type Sent } from '@/protocol/files'
import {
  fileFields,
  fileText,
  OTHER_TYPE,
  parseFile,
  parseFileText,
  parseMessage,
  showsAs,
  wireOf,
} from '@/protocol/shapes'

const ID = '0123456789abcdef0123456789abcdef'
const SHA = 'ab'.repeat(32)
const FILE = {
  id: ID,
  name: 'report.pdf',
  type: 'application/pdf',
  size: 1234,
  sha256: SHA,
  key: null,
  iv: null,
  seconds: null,
  waveform: null,
}
const SEALED = { ...FILE, key: `${'A'.repeat(43)}=`, iv: 'A'.repeat(16), seconds: 3.5, waveform: [0, 31, 7] }
const ignored = (): undefined => undefined
const transfer = () => ({ signal: new AbortController().signal, progress: vi.fn() })

const failed = (promise: Promise<unknown>) =>
  promise.then(
    () => null,
    (failure: Failure) => failure,
  )

describe('what a message says about a file', () => {
  it('is read as it was written', () => {
    for (const file of [FILE, SEALED]) {
      expect(parseFile(fileFields(file))).toEqual(file)
      expect(parseFileText(JSON.stringify(fileFields(file)))).toEqual(file)
    }
    expect(fileFields(FILE)).toEqual({ id: ID, name: 'report.pdf', type: 'application/pdf', size: 1234, sha256: SHA })
  })

  it.each([
    null,
    'x',
    [],
    {},
    { ...FILE, id: '../x' },
    { ...FILE, sha256: 'x' },
    { ...FILE, size: -1 },
    { ...FILE, size: '9' },
  ])('is nothing where it is %j', (value) => expect(parseFile(value)).toBeNull())

  it('has a key with its iv, or neither', () => {
    expect(parseFile({ ...SEALED, iv: undefined })).toBeNull()
    expect(parseFile({ ...SEALED, key: 'short!' })).toBeNull()
    expect(parseFileText('{')).toBeNull()
    expect(parseFileText(null)).toBeNull()
  })

  it('is made harmless where it could mislead', () => {
    const evil = {
      ...FILE,
      name: '..\\..//evil\u202egpj.exe',
      type: 'text/html; charset=x',
      seconds: -1,
      waveform: [1, 99],
    }
    expect(parseFile(evil)).toMatchObject({
      name: '.._..__evilgpj.exe',
      type: OTHER_TYPE,
      seconds: null,
      waveform: null,
    })
    expect(parseFile({ ...FILE, name: '', waveform: 'x', seconds: 'x' })).toMatchObject({ name: 'file' })
    expect(fileText(FILE)).toBe('📎 report.pdf')
  })

  it.each([
    ['image/png', 'picture'],
    ['image/svg+xml', 'download'],
    ['audio/webm', 'sound'],
    ['video/mp4', 'download'],
    ['text/html', 'download'],
  ])('of type %s is shown as %s', (type, shown) => expect(showsAs({ type })).toBe(shown))

  it('goes with messages, open and sealed, and is handed on', () => {
    const head = { fromId: 's', timestamp: 1, msgId: 'm-1', type: 'text', text: 'x' }
    for (const value of [
      { ...head, file: fileFields(FILE) },
      { ...head, text: 'AAAA', iv: 'AAAA', encrypted: true, encryptedFile: 'AAAA', fileIv: 'BBBB' },
    ]) {
      const event = parseMessage(value)!
      expect(event).toMatchObject('file' in value ? { file: FILE } : { sealedFile: { text: 'AAAA', iv: 'BBBB' } })
      expect(parseMessage(wireOf(event))).toEqual(event)
    }
    // A file in clear text beside a sealed text is nobody's.
    expect(
      parseMessage({ ...head, text: 'AAAA', iv: 'AAAA', encrypted: true, file: fileFields(FILE) }),
    ).not.toHaveProperty('file')
  })
})

describe('FilesApi', () => {
  const calls: [string, RequestInit][] = []
  const api = (response: Response | Error, sent: Sent | Error = { status: 500, text: '', retryAfterS: null }) => {
    calls.length = 0
    return new FilesApi(
      'https://files.test',
      (url, init) => {
        calls.push([url, init])
        return response instanceof Error ? Promise.reject(response) : Promise.resolve(response)
      },
      () => (sent instanceof Error ? Promise.reject(sent) : Promise.resolve(sent)),
    )
  }

  it('tells the bounds of the relay, or that it takes no files', async () => {
    const files = { max_file: 10, per_user: 20, per_guest: 5, days: 'x' }
    expect(await api(Response.json({ files })).bounds()).toEqual({ maxFile: 10, perUser: 20, perGuest: 5, days: 0 })
    for (const none of [
      Response.json({ files: null }),
      Response.json(null),
      new Response('<html>'),
      new Response('', { status: 404 }),
    ])
      expect(await api(none).bounds()).toBeNull()
    expect(await failed(api(new TypeError('down')).bounds())).toMatchObject({ kind: 'network' })
  })

  it('gives the id of a file that was sent', async () => {
    const sent = { status: 201, text: JSON.stringify({ id: ID }), retryAfterS: null }
    expect(await api(new Error(), sent).upload('t', new Blob(['x']), transfer())).toBe(ID)
    for (const text of ['{', '{"id": "x"}'])
      expect(await failed(api(new Error(), { ...sent, text }).upload('t', new Blob(), transfer()))).toMatchObject({
        kind: 'server',
      })
  })

  it.each([
    [401, null, { kind: 'signedOut' }],
    [403, null, { kind: 'forbidden' }],
    [404, null, { kind: 'missing', reason: 'fileGone' }],
    [413, null, { kind: 'tooLarge', reason: 'fileTooBig' }],
    [429, 5, { kind: 'tooMany', retryAfterS: 5 }],
    [429, null, { kind: 'tooMany' }],
    [429, 3600, { kind: 'tooLarge', reason: 'filesFull' }],
    [500, null, { kind: 'server', reason: null }],
    [502, null, { kind: 'network' }],
    [507, null, { kind: 'server', reason: 'relayFull' }],
  ])('tells a %d with Retry-After %s as what it is', async (status, retryAfterS, failure) => {
    const text = JSON.stringify({ error: 'A sentence.' })
    const told = await failed(api(new Error(), { status, text, retryAfterS }).upload('t', new Blob(), transfer()))
    expect(told).toMatchObject({ ...failure, detail: 'A sentence.' })
    const page = await failed(
      api(new Error(), { status, text: '<html>', retryAfterS }).upload('t', new Blob(), transfer()),
    )
    expect(page).toMatchObject({ detail: `HTTP ${status}` })
  })

  it('reads a file with its token, and tells the progress', async () => {
    const at = transfer()
    expect(new Uint8Array(await api(new Response('hello')).download('t', ID, at))).toEqual(
      new TextEncoder().encode('hello'),
    )
    expect(at.progress).toHaveBeenLastCalledWith(5)
    expect(calls[0]).toMatchObject([`https://files.test/files/${ID}`, { headers: { Authorization: 'Bearer t' } }])
  })

  it('says why a file cannot be read', async () => {
    const busy = new Response('{"error": 1}', { status: 429, headers: { 'Retry-After': 'soon' } })
    expect(await failed(api(busy).download('t', ID, transfer()))).toMatchObject({ kind: 'tooMany', retryAfterS: null })
    const cut = new ReadableStream({ pull: (stream) => stream.error(new TypeError('cut')) })
    expect(await failed(api(new Response(cut)).download('t', ID, transfer()))).toMatchObject({ kind: 'network' })
    const given = new DOMException('given up', 'AbortError')
    expect(await failed(api(given).download('t', ID, transfer()))).toBe(given)
  })

  it('deletes', async () => {
    await api(Response.json({})).remove('t', ID)
    expect(calls[0]?.[1].method).toBe('DELETE')
    const late = new Response('{"error": "Wait."}', { status: 429, headers: { 'Retry-After': '7' } })
    expect(await failed(api(late).remove('t', ID))).toMatchObject({ retryAfterS: 7 })
  })
})

describe('postBytes', () => {
  const requests: FakeRequest[] = []

  class FakeRequest {
    readonly upload: { onprogress: (event: { loaded: number }) => void } = { onprogress: ignored }
    readonly headers: Record<string, string> = {}
    onload: () => void = ignored
    onerror: () => void = ignored
    onabort: () => void = ignored
    status = 0
    responseText = ''
    url = ''

    constructor() {
      requests.push(this)
    }

    open(_method: string, url: string): void {
      this.url = url
    }

    setRequestHeader(name: string, value: string): void {
      this.headers[name] = value
    }

    getResponseHeader = (): string | null => (this.status === 429 ? '9' : null)
    abort = (): void => this.onabort()
    send = (): void => undefined
  }

  afterEach(() => vi.unstubAllGlobals())

  it('sends bytes with a token, tells how far it is, and what came back', async () => {
    vi.stubGlobal('XMLHttpRequest', FakeRequest)
    for (const [status, retryAfterS] of [
      [201, null],
      [429, 9],
    ] as const) {
      const at = transfer()
      const sent = postBytes('https://files.test/files', 'tok', new Blob(['x']), at)
      const request = requests.at(-1)!
      request.upload.onprogress({ loaded: 1 })
      Object.assign(request, { status, responseText: '{}' })
      request.onload()
      expect(await sent).toEqual({ status, text: '{}', retryAfterS })
      expect(at.progress).toHaveBeenCalledWith(1)
      expect(request.headers['Authorization']).toBe('Bearer tok')
    }
  })

  it('says that it broke off, or was given up', async () => {
    vi.stubGlobal('XMLHttpRequest', FakeRequest)
    const cut = postBytes('x', 't', new Blob(), transfer())
    requests.at(-1)!.onerror()
    expect(await failed(cut)).toMatchObject({ kind: 'network' })
    const given = new AbortController()
    const ended = postBytes('x', 't', new Blob(), { signal: given.signal, progress: ignored })
    given.abort()
    expect(await failed(ended)).toMatchObject({ name: 'AbortError' })
  })
})

import { deleteDB, openDB } from 'idb'
import { project } from '@/stores/messages/projection'
import { beforeEach, describe, expect, it } from 'vitest'
import { newRoomKey } from '@/crypto/roomKey'
import { payloadOf, exportData, readExport, storeImport } from '@/storage/transfer'
import { eventsOfRow } from '@/storage/rows'
import { Storage } from '@/storage/storage'
import type { StoredMessage, StoredRoom } from '@/storage/types'
import { parseMessage } from '@/protocol/shapes'

const ROOM = '0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d'
const OTHER = '1a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d'

const message = (at: number, part: Partial<StoredMessage> = {}): StoredMessage => ({
  roomId: ROOM,
  msgId: `${at}-aaaaaa`,
  userId: 'u-1',
  sessionId: 's-1',
  name: 'Alice',
  color: '#112233',
  kind: 'text',
  text: `text ${at}`,
  image: null,
  alt: '',
  timestamp: at,
  replyTo: null,
  edited: false,
  deleted: false,
  unproven: false,
  delivery: 'confirmed',
  failure: null,
  secrecy: 'plain',
  verification: 'unsigned',
  relayedBy: null,
  ...part,
})
const room = (id: string, part: Partial<StoredRoom> = {}): StoredRoom => ({
  id,
  joined: true,
  muted: false,
  meta: null,
  joinedAt: 1,
  lastReadMs: 0,
  lastActivityMs: 0,
  peerName: '',
  ...part,
})

let storage: Storage
let count = 0

beforeEach(async () => {
  storage = await Storage.open(`user-${++count}`)
})

const ids = (messages: readonly StoredMessage[]): number[] => messages.map((each) => each.timestamp)

describe('the history', () => {
  it('pages backwards from the newest, also where times are equal', async () => {
    for (let at = 1; at <= 10; at++) await storage.messages.put(message(at))
    await storage.messages.put(message(5, { msgId: '5-bbbbbb' }))
    await storage.messages.put(message(99, { roomId: OTHER }))
    const newest = await storage.messages.before(ROOM, 4)
    expect(ids(newest)).toEqual([7, 8, 9, 10])
    const older = await storage.messages.before(ROOM, 3, newest[0])
    expect(older.map((each) => each.msgId)).toEqual(['5-aaaaaa', '5-bbbbbb', '6-aaaaaa'])
    expect(ids(await storage.messages.before(ROOM, 100, older[0]))).toEqual([1, 2, 3, 4])
    expect(ids(await storage.messages.from(ROOM, 9, '9-aaaaaa'))).toEqual([9, 10])
  })

  it('adds what is missing and leaves alone what is there', async () => {
    await storage.messages.put(message(1, { text: 'mine' }))
    const added = await storage.messages.addMissing([message(1, { text: 'theirs' }), message(2)])
    expect(ids(added)).toEqual([2])
    expect((await storage.messages.get(ROOM, '1-aaaaaa'))!.text).toBe('mine')
  })

  it('finds texts in one room or all, without regard to case, deleted ones excepted', async () => {
    await storage.messages.put(message(1, { text: 'Hello World' }))
    await storage.messages.put(message(2, { text: '', alt: 'a world map' }))
    await storage.messages.put(message(3, { text: 'hello world', deleted: true }))
    await storage.messages.put(message(4, { text: 'worldly', roomId: OTHER }))
    expect(ids(await storage.messages.search('WORLD', null)).sort()).toEqual([1, 2, 4])
    expect(ids(await storage.messages.search('world', ROOM)).sort()).toEqual([1, 2])
    expect(await storage.messages.search('  ', null)).toEqual([])
    expect(ids(await storage.messages.search('world hello', null))).toEqual([1])
  })

  it('finds what was added, changed and removed after the first search, newest first', async () => {
    await storage.messages.put(message(1, { text: 'a first' }))
    await storage.messages.put(message(2, { text: 'a second' }))
    await storage.messages.prepareSearch()
    await storage.messages.put(message(3, { text: 'a third', roomId: OTHER }))
    await storage.messages.addMissing([message(4, { text: 'a fourth' })])
    await storage.messages.put(message(2, { text: '', deleted: true }))
    await storage.messages.put(message(1, { text: 'a changed one' }))
    expect(ids(await storage.messages.search('a', null))).toEqual([4, 3, 1])
    expect(ids(await storage.messages.search('first', null))).toEqual([])
    await storage.messages.remove(ROOM, '1-aaaaaa')
    await storage.messages.clearRoom(OTHER)
    expect(ids(await storage.messages.search('a', null))).toEqual([4])
    // Another tab stores a message.
    const tab = await Storage.open(storage.userId)
    await tab.messages.put(message(9, { text: 'a tab' }))
    expect(ids(await storage.messages.search('a', null))).toEqual([9, 4])
    tab.close()
  })

  it('reads each text once and then only what is found, among thousands of messages', async () => {
    // More than are read in one piece.
    const count = 2_500
    const all = Array.from({ length: count }, (_, at) =>
      message(at + 1, { text: at % 100 === 7 ? `needle ${at}` : `hay ${at}`, image: at % 2 ? 'data:x' : null }),
    )
    await storage.messages.record(ROOM, { events: [], rows: all, gone: [] })
    const reads = { texts: 0, messages: 0 }
    const { getAll, get } = IDBObjectStore.prototype
    IDBObjectStore.prototype.getAll = function (this: IDBObjectStore, ...args: Parameters<typeof getAll>) {
      const request = getAll.apply(this, args)
      if (this.name === 'texts') request.addEventListener('success', () => (reads.texts += request.result.length))
      return request
    }
    IDBObjectStore.prototype.get = function (this: IDBObjectStore, key: IDBValidKey) {
      if (this.name === 'messages') reads.messages += 1
      return get.call(this, key)
    }
    try {
      await storage.messages.prepareSearch()
      expect(reads).toEqual({ texts: count, messages: 0 })
      expect(await storage.messages.search('needle', null)).toHaveLength(25)
      expect(await storage.messages.search('hay', ROOM)).toHaveLength(200)
      expect(reads).toEqual({ texts: count, messages: 225 })
    } finally {
      Object.assign(IDBObjectStore.prototype, { getAll, get })
    }
  })

  it('knows what is undelivered and unread', async () => {
    await storage.messages.put(message(1, { delivery: 'queued' }))
    await storage.messages.put(message(2, { delivery: 'failed' }))
    await storage.messages.put(message(3, { secrecy: 'unreadable' }))
    await storage.messages.put(message(4, { userId: 'me' }))
    await storage.messages.put(message(5, { deleted: true }))
    expect(ids(await storage.messages.undelivered(ROOM))).toEqual([1, 2])
    expect(await storage.messages.countSince(ROOM, 1, 'me')).toBe(2)
  })

  it('forgets single messages and whole rooms', async () => {
    for (let at = 1; at <= 3; at++) await storage.messages.put(message(at))
    await storage.messages.put(message(1, { roomId: OTHER }))
    await storage.messages.remove(ROOM, '2-aaaaaa')
    expect(ids(await storage.messages.before(ROOM, 10))).toEqual([1, 3])
    await storage.putRoom(room(ROOM))
    await storage.removeRoom(ROOM)
    expect(await storage.messages.before(ROOM, 10)).toEqual([])
    expect(ids(await storage.messages.before(OTHER, 10))).toEqual([1])
    expect(await storage.rooms()).toEqual([])
  })
})

describe('what else is kept', () => {
  it('is there again: rooms, drafts, keys, values', async () => {
    await storage.putRoom(room(ROOM, { muted: true }))
    await storage.putDraft({ roomId: ROOM, text: 'dra', replyTo: null, image: null, edit: null })
    await storage.putDraft({ roomId: OTHER, text: 'x', replyTo: null, image: null, edit: null })
    await storage.putDraft({ roomId: OTHER, text: '', replyTo: null, image: null, edit: null })
    const record = { encrypted: true, keys: [], sendingKeyId: null, pins: {}, enrolled: [] }
    await storage.putCryptoRecord(ROOM, record)
    await storage.putValue('x', [1])
    storage.close()
    const again = await Storage.open(storage.userId)
    expect(await again.rooms()).toEqual([room(ROOM, { muted: true })])
    expect(await again.drafts()).toEqual([{ roomId: ROOM, text: 'dra', replyTo: null, image: null, edit: null }])
    expect(await again.cryptoRecord(ROOM)).toEqual(record)
    expect([...(await again.cryptoRecords())]).toEqual([[ROOM, record]])
    expect(await again.value('x')).toEqual([1])
    again.close()
  })

  it('has one identity, whoever asks first', async () => {
    const [one, other] = await Promise.all([storage.identityPairs(), storage.identityPairs()])
    const jwk = (pairs: typeof one) => crypto.subtle.exportKey('jwk', pairs.exchange.publicKey)
    expect(await jwk(one)).toEqual(await jwk(other))
    expect(await jwk(await storage.identityPairs())).toEqual(await jwk(one))
  })

  it('is gone after it was destroyed, also where another tab holds it', async () => {
    await storage.putRoom(room(ROOM))
    const tab = await Storage.open(storage.userId)
    await storage.destroy()
    await expect(tab.rooms()).rejects.toThrow()
    expect(await (await Storage.open(storage.userId)).rooms()).toEqual([])
  })
})

describe('export and import', () => {
  it('carry history, rooms and keys to another browser', async () => {
    const key = await newRoomKey()
    const keys = [{ jwk: key.jwk, epoch: 3, trusted: true }]
    await storage.putRoom(room(ROOM, { peerName: 'Bob' }))
    await storage.messages.put(message(1, { replyTo: { msgId: 'm', from: 'Bob', text: 'q' }, edited: true }))
    await storage.messages.put(message(2, { kind: 'image', text: '', image: 'data:image/png;base64,AAAA', alt: 'cat' }))
    await storage.messages.put(message(3, { deleted: true, text: '' }))
    await storage.putCryptoRecord(ROOM, {
      encrypted: true,
      keys,
      sendingKeyId: key.keyId,
      pins: { x: ['f'] },
      enrolled: [],
    })
    const file = await exportData(storage, 5)
    const other = await Storage.open(`other-${count}`)
    expect(await storeImport(other, await readExport(file))).toEqual({ messages: 2, keys: 1 })
    expect(await other.messages.before(ROOM, 10)).toEqual(await storage.messages.before(ROOM, 2, message(3)))
    expect(await other.cryptoRecord(ROOM)).toEqual({
      encrypted: true,
      keys,
      sendingKeyId: key.keyId,
      pins: {},
      enrolled: [],
    })
    expect(await other.rooms()).toMatchObject([{ id: ROOM, joined: true, peerName: 'Bob', lastActivityMs: 2 }])
    expect(await storeImport(other, await readExport(file))).toEqual({ messages: 0, keys: 0 })
  })

  it('take what the original exports', async () => {
    const { jwk, keyId } = await newRoomKey()
    const data = payloadOf(message(7))
    const rows = [{ roomId: ROOM, msgId: '7-aaaaaa', timestamp: 7, data }]
    const file = JSON.stringify({
      messages: rows,
      cryptoKeys: [{ roomId: ROOM, key: jwk }, { roomId: 'x', key: jwk }, 7],
    })
    expect(await storeImport(storage, await readExport(file))).toEqual({ messages: 1, keys: 1 })
    expect(await storage.cryptoRecord(ROOM)).toMatchObject({ encrypted: true, sendingKeyId: keyId })
    expect(parseMessage(data)).toMatchObject({ text: 'text 7', userId: 'u-1' })
  })

  it('keep the key that writes when a file brings another, and never make a room less encrypted', async () => {
    const [own, foreign] = [await newRoomKey(), await newRoomKey()]
    const keys = [{ jwk: own.jwk, epoch: 1, trusted: true }]
    await storage.putCryptoRecord(ROOM, { encrypted: true, keys, sendingKeyId: own.keyId, pins: {}, enrolled: [] })
    const ring = {
      roomId: ROOM,
      encrypted: false,
      keys: [{ jwk: foreign.jwk, epoch: 'x' }, { jwk: 7 }],
      sendingKeyId: foreign.keyId,
    }
    await storeImport(storage, await readExport(JSON.stringify({ messages: [], keyRings: [ring, { roomId: '*' }] })))
    expect(await storage.cryptoRecord(ROOM)).toMatchObject({ encrypted: true, sendingKeyId: own.keyId })
    expect((await storage.cryptoRecord(ROOM))!.keys).toHaveLength(2)
  })

  it.each([
    ['no JSON', '<html>'],
    ['no export', '{}'],
    ['not even an object', '7'],
    ['a list of nothing that can be read', '{"messages":[{"roomId":"x"},7,null]}'],
  ])('refuse %s', async (_what, text) => {
    await expect(readExport(text)).rejects.toMatchObject({ kind: 'invalid' })
  })

  it('drop single rows that are hostile, and take the rest', async () => {
    const good = { roomId: ROOM, data: payloadOf(message(1)) }
    const evil = [
      { roomId: '/chat/**', data: payloadOf(message(2)) },
      { roomId: ROOM, data: { ...payloadOf(message(3)), msgId: '../x' } },
      { roomId: ROOM, data: { ...payloadOf(message(4)), image: 'https://tracker.test/x.png', avatarColor: 'red' } },
    ]
    const joined = [{ id: ROOM }, { id: '**' }, 7]
    const data = await readExport(JSON.stringify({ messages: [good, ...evil], joined }))
    expect(data.messages.map(({ timestamp, image, color }) => [timestamp, image, color])).toEqual([
      [1, null, '#112233'],
      [4, null, '#6b7280'],
    ])
    expect(data.joined).toEqual([{ id: ROOM, peerName: '' }])
  })
})

describe('a database of version 2', () => {
  it('is taken over: messages move to where the relay accepted them, and are found', async () => {
    const current = await Storage.open('version-2')
    const sent = message(5, { text: 'sent with a slow clock' })
    const event = { ...eventsOfRow(sent)[0]!, at: 90 }
    await current.messages.record(ROOM, { events: [event], rows: [sent, message(50)], gone: [] })
    current.close()
    const raw = await openDB('clasp-relay-chat-version-2')
    const [name, stores] = [raw.name, [...raw.objectStoreNames].filter((each) => each !== 'texts')]
    const content = new Map(await Promise.all(stores.map(async (each) => [each, await raw.getAll(each)] as const)))
    raw.close()
    await deleteDB(name)
    const old = await openDB(name, 2, {
      upgrade(database) {
        const events = database.createObjectStore('events', { keyPath: ['roomId', 'target', 'id'] })
        events.createIndex('byTime', ['roomId', 'at'])
        events.createIndex('closed', ['roomId', 'closed'])
        events.createIndex('pending', ['roomId', 'pending'])
        const messages = database.createObjectStore('messages', { keyPath: ['roomId', 'msgId'] })
        messages.createIndex('byTime', ['roomId', 'timestamp', 'msgId'])
        messages.createIndex('byDelivery', ['roomId', 'delivery'])
        messages.createIndex('bySecrecy', ['roomId', 'secrecy'])
      },
    })
    for (const each of ['events', 'messages']) for (const row of content.get(each)!) await old.put(each, row)
    old.close()
    const moved = await Storage.open('version-2')
    const rows = await moved.messages.before(ROOM, 9)
    expect(rows.map(({ timestamp, writtenAt }) => [timestamp, writtenAt])).toEqual([
      [50, undefined],
      [90, 5],
    ])
    expect(ids(await moved.messages.search('slow', null))).toEqual([90])
    moved.close()
  })
})

describe('a database of version 1', () => {
  it('is taken over: what it knows of each message becomes events, and later edits apply to them', async () => {
    const userId = 'migrating'
    const old = await openDB(`clasp-relay-chat-${userId}`, 1, {
      upgrade(database) {
        const messages = database.createObjectStore('messages', { keyPath: ['roomId', 'msgId'] })
        messages.createIndex('byTime', ['roomId', 'timestamp', 'msgId'])
        messages.createIndex('byDelivery', ['roomId', 'delivery'])
        messages.createIndex('bySecrecy', ['roomId', 'secrecy'])
        database.createObjectStore('rooms', { keyPath: 'id' })
        database.createObjectStore('drafts', { keyPath: 'roomId' })
        for (const name of ['crypto', 'identity', 'values']) database.createObjectStore(name)
      },
    })
    const v1 = { sealed: null, signature: { text: 'x', value: 'y', timestamp: 1 }, change: null }
    const sealed = { text: { text: 'AAAA', iv: 'BBBB' }, image: null, alt: null, keyId: '01234567' }
    const rows = [
      { ...message(1), ...v1, verification: 'forged' },
      { ...message(2), ...v1, edited: true, text: 'changed', change: { timestamp: 7 } },
      { ...message(3), ...v1, deleted: true, text: '' },
      { ...message(4), ...v1, secrecy: 'unreadable', text: '', sealed },
      { ...message(5), ...v1, delivery: 'queued' },
      { ...message(6), ...v1, relayedBy: 'carol' },
    ]
    for (const row of rows) await old.put('messages', row)
    await old.put('rooms', room(ROOM))
    old.close()
    const moved = await Storage.open(userId)
    const stored = await moved.messages.before(ROOM, 10)
    expect(ids(stored)).toEqual([1, 2, 3, 4, 5, 6])
    expect(ids(await moved.messages.search('text', null))).toEqual([6, 5, 1])
    expect(stored[0]).toEqual({ ...message(1), verification: 'unverified' })
    for (const row of stored) {
      const events = await moved.messages.about(ROOM, row.msgId)
      expect(project(events)).toEqual(row.delivery === 'queued' ? [] : [row])
    }
    expect((await moved.messages.unfinished(ROOM, 'closed')).map(({ target }) => target)).toEqual([stored[3]!.msgId])
    expect(await moved.messages.unfinished(ROOM, 'pending')).toEqual([])
    expect(await moved.rooms()).toHaveLength(1)
    moved.close()
  })
})

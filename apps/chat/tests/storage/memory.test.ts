import { describe, expect, it } from 'vitest'
import { MemoryStorage } from '@/storage/memory'
import { Storage, type UserStorage } from '@/storage/storage'
import type { StoredMessage } from '@/storage/types'

const ROOM = '0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d'
const OTHER = '1a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d'

const message = (msgId: string, timestamp: number, part: Partial<StoredMessage> = {}): StoredMessage => ({
  roomId: ROOM,
  msgId,
  userId: 'u-1',
  sessionId: 's-1',
  name: 'Alice',
  color: '#112233',
  kind: 'text',
  text: `text ${msgId}`,
  image: null,
  alt: '',
  timestamp,
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

let users = 0

/** The same steps on either storage. */
async function transcript(storage: UserStorage): Promise<unknown[]> {
  const { messages } = storage
  const seen: unknown[] = []
  const ids = (list: readonly StoredMessage[]): string[] => list.map((each) => each.msgId)
  await messages.put(message('b', 2))
  await messages.put(message('c', 2, { delivery: 'failed', userId: 'me' }))
  await messages.put(message('x', 9, { roomId: OTHER, text: 'elsewhere' }))
  seen.push(ids(await messages.addMissing([message('a', 1, { alt: 'A CAT' }), message('b', 2, { text: 'other' })])))
  await messages.put(message('d', 4, { secrecy: 'unreadable', delivery: 'queued' }))
  await messages.put(message('e', 5, { deleted: true }))
  seen.push(ids(await messages.before(ROOM, 2)), ids(await messages.before(ROOM, 9, { timestamp: 2, msgId: 'c' })))
  seen.push(ids(await messages.from(ROOM, 2, 'c')), await messages.get(ROOM, 'b'), await messages.get(ROOM, 'none'))
  seen.push(ids(await messages.search(' cat ', ROOM)), ids(await messages.search('TEXT', null)))
  seen.push(ids(await messages.search('elsewhere', ROOM)), await messages.search(' ', null))
  seen.push(ids(await messages.undelivered(ROOM)))
  const [first] = await messages.about(ROOM, 'a')
  const again = { ...first!, id: 'again', at: 7, proof: 'pending' as const }
  await messages.record(ROOM, { events: [again], rows: [message('f', 6)], gone: ['e'] })
  seen.push((await messages.about(ROOM, 'a')).map(({ id }) => id).sort(), await messages.newestEvents(ROOM, 1, 1))
  seen.push(await messages.unfinished(ROOM, 'pending'), await messages.unfinished(ROOM, 'closed'))
  seen.push(await messages.countSince(ROOM, 1, 'me'))
  await messages.remove(ROOM, 'b')
  seen.push(ids(await messages.before(ROOM, 9)))
  const room = { muted: false, meta: null, joinedAt: 0, lastReadMs: 0, lastActivityMs: 0, peerName: '' }
  await storage.putRoom({ ...room, id: ROOM, joined: true })
  await storage.putDraft({ roomId: ROOM, text: 'half', replyTo: null, image: null, edit: null })
  await storage.putValue('asked', ['u-2'])
  seen.push(await storage.rooms(), await storage.drafts(), await storage.value('asked'), await storage.value('none'))
  const record = { encrypted: true, keys: [], sendingKeyId: null, pins: {}, enrolled: [] }
  await storage.putCryptoRecord(ROOM, record)
  await storage.putCryptoRecord(ROOM, { ...record, encrypted: false })
  seen.push(await storage.cryptoRecord(ROOM), await storage.cryptoRecord(OTHER), [...(await storage.cryptoRecords())])
  await storage.removeRoom(ROOM)
  seen.push(await storage.rooms(), await storage.drafts(), ids(await messages.before(ROOM, 9)))
  seen.push(Object.keys(await storage.identityPairs()).sort())
  return seen
}

describe('the storage in memory', () => {
  it('does what the one in the browser does', async () => {
    const real = await Storage.open(`memory-${++users}`)
    const memory = new MemoryStorage('u')
    expect(await transcript(memory)).toEqual(await transcript(real))
    real.close()
    await memory.destroy()
  })
})

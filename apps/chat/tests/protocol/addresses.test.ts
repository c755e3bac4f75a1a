import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import * as addresses from '@/protocol/addresses'
import { address, AddressError, parseAddress, pattern } from '@/protocol/addresses'
import { matches } from '@/protocol/pattern'

const ROOM = '0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d'
const MSG = '1700000000000-abc123'

/** Every address that the two apps share, as the conventions write it, and the pattern by which it is heard. */
const TABLE: readonly (readonly [string, string, object, string | null])[] = [
  ['/chat/user/u-1/profile', address.profile('u-1'), { kind: 'profile', userId: 'u-1' }, null],
  ['/chat/user/u-1/signingKey', address.signingKey('u-1'), { kind: 'signingKey', userId: 'u-1' }, null],
  [
    '/chat/user/u-1/friends/u-2',
    address.friend('u-1', 'u-2'),
    { kind: 'friend', userId: 'u-1', friendId: 'u-2' },
    pattern.friends('u-1'),
  ],
  ['/chat/user/u-1/account', address.account('u-1'), { kind: 'account', userId: 'u-1' }, null],
  [
    '/chat/user/u-1/devices/0123456789abcdef',
    address.device('u-1', '0123456789abcdef'),
    { kind: 'device', userId: 'u-1', deviceId: '0123456789abcdef' },
    pattern.devices('u-1'),
  ],
  [
    '/chat/user/u-1/sync/profile',
    address.sync('u-1', 'profile'),
    { kind: 'sync', userId: 'u-1', key: 'profile' },
    pattern.sync('u-1'),
  ],
  ...['0123456789abcdef', '0123456789abcdef-answer', '0123456789abcdef-12'].map(
    (key) =>
      [
        `/chat/user/u-1/link/${key}`,
        address.link('u-1', key),
        { kind: 'link', userId: 'u-1', key },
        pattern.links('u-1'),
      ] as const,
  ),
  [
    '/chat/user/u-1/blocked/u-2',
    address.blocked('u-1', 'u-2'),
    { kind: 'blocked', userId: 'u-1', blockedId: 'u-2' },
    pattern.blocked('u-1'),
  ],
  [
    `/chat/user/u-1/dms/${ROOM}`,
    address.dmInbox('u-1', ROOM),
    { kind: 'dmInbox', userId: 'u-1', roomId: ROOM },
    pattern.dmInbox('u-1'),
  ],
  [
    '/chat/requests/u-1/u-2',
    address.request('u-1', 'u-2'),
    { kind: 'request', targetId: 'u-1', fromId: 'u-2' },
    pattern.requests('u-1'),
  ],
  [
    `/chat/registry/rooms/${ROOM}`,
    address.registryRoom(ROOM),
    { kind: 'registryRoom', roomId: ROOM },
    pattern.registryRooms(),
  ],
  [
    `/chat/registry/ns/a/b/${ROOM}`,
    address.groupRoom('a/b', ROOM),
    { kind: 'groupRoom', path: 'a/b', roomId: ROOM },
    pattern.groupRooms('a'),
  ],
  ['/chat/registry/ns-meta/a/b', address.groupMeta('a/b'), { kind: 'groupMeta', path: 'a/b' }, pattern.groupMetas()],
  [
    '/chat/registry/ns-meta/a/b/__auth',
    address.groupAuth('a/b'),
    { kind: 'groupAuth', path: 'a/b' },
    pattern.groupMetas(),
  ],
  [`/chat/room/${ROOM}/meta`, address.meta(ROOM), { kind: 'meta', roomId: ROOM }, pattern.roomTop(ROOM)],
  [`/chat/room/${ROOM}/messages`, address.messages(ROOM), { kind: 'messages', roomId: ROOM }, pattern.roomTop(ROOM)],
  ...(
    [
      ['presence', 'presence', address.presence, pattern.roomPeople],
      ['typing', 'typing', address.typing, pattern.roomPeople],
      ['admin', 'admin', address.admin, pattern.roomPeople],
      ['bans', 'ban', address.ban, pattern.roomPeople],
      ['receipts', 'receipt', address.receipt, pattern.roomPeople],
      ['members', 'member', address.member, pattern.roomPeople],
      ['crypto/pubkey', 'pubkey', address.pubkey, pattern.roomKeys],
      ['crypto/proof', 'proof', address.proof, pattern.roomKeys],
      ['crypto/keyex', 'keyex', address.keyex, pattern.roomKeys],
      ['history/to', 'historyFor', address.historyFor, null],
    ] as const
  ).map(([path, kind, make, hear]) => {
    const place = { kind, roomId: ROOM, userId: 'u-1' }
    return [`/chat/room/${ROOM}/${path}/u-1`, make(ROOM, 'u-1'), place, hear?.(ROOM) ?? null] as const
  }),
  [
    `/chat/room/${ROOM}/video/presence/s-1`,
    address.caller(ROOM, 's-1'),
    { kind: 'caller', roomId: ROOM, sessionId: 's-1' },
    pattern.callers(ROOM),
  ],
  [
    `/chat/room/${ROOM}/video/signal/s-1`,
    address.callSignal(ROOM, 's-1'),
    { kind: 'callSignal', roomId: ROOM, sessionId: 's-1' },
    null,
  ],
  [
    `/chat/room/${ROOM}/history/call`,
    address.historyCall(ROOM),
    { kind: 'historyCall', roomId: ROOM },
    pattern.roomPeople(ROOM),
  ],
  [
    `/chat/room/${ROOM}/reactions/${MSG}/👍`,
    address.reactionList(ROOM, MSG, '👍'),
    { kind: 'reaction', roomId: ROOM, msgId: MSG, emoji: '👍', userId: null },
    pattern.reactions(),
  ],
  [
    `/chat/room/${ROOM}/reactions/${MSG}/👍/u-1`,
    address.reaction(ROOM, MSG, '👍', 'u-1'),
    { kind: 'reaction', roomId: ROOM, msgId: MSG, emoji: '👍', userId: 'u-1' },
    pattern.reactions(),
  ],
]

describe('the address space', () => {
  it.each(TABLE)('%s is made, taken apart and heard', (written, made, place, hear) => {
    expect(made).toBe(written)
    expect(parseAddress(written)).toEqual(place)
    if (hear !== null) expect(matches(hear, written)).toBe(true)
  })

  it('gives null for everything else', () => {
    for (const text of [
      '',
      '/',
      '/chat',
      '/chat/user',
      '/other/user/u/profile',
      'chat/user/u/profile',
      '/chat/user/u/other',
      '/chat/user/u/profile/x',
      '/chat/user/u/friends',
      '/chat/user/u/friends/b c',
      '/chat/user/u/dms/nowhere',
      '/chat/user/u/other/x',
      '/chat/user/b c/profile',
      '/chat/nothing/u/x',
      '/chat/requests/u',
      '/chat/requests/u/v/w',
      '/chat/requests/u/b c',
      '/chat/requests/b c/u',
      '/chat/registry/rooms',
      '/chat/registry/rooms/nowhere',
      `/chat/registry/rooms/${ROOM}/x`,
      '/chat/registry/ns/a/nowhere',
      `/chat/registry/ns/${ROOM}`,
      '/chat/registry/ns-meta/b c',
      '/chat/registry/ns-meta/__auth',
      '/chat/registry/ns-meta/__auth/x',
      '/chat/registry/other/x',
      '/chat/room/nowhere/meta',
      `/chat/room/${ROOM}`,
      `/chat/room/${ROOM}/other`,
      `/chat/room/${ROOM}/meta/x`,
      `/chat/room/${ROOM}/presence`,
      `/chat/room/${ROOM}/presence/b c`,
      `/chat/room/${ROOM}/presence/u/v`,
      `/chat/room/${ROOM}/history/call/x`,
      `/chat/room/${ROOM}/video/presence`,
      `/chat/room/${ROOM}/video/presence/b c`,
      `/chat/room/${ROOM}/video/other/sid`,
      `/chat/room/${ROOM}/reactions/${MSG}`,
      `/chat/room/${ROOM}/reactions/b c/👍`,
      `/chat/room/${ROOM}/reactions/${MSG}/x`,
      `/chat/room/${ROOM}/reactions/${MSG}/👍/b c`,
      `/chat/room/${ROOM}/reactions/${MSG}/👍/u/v`,
    ]) {
      expect(parseAddress(text), text).toBeNull()
    }
  })

  it('never lets an id become a pattern or another address', () => {
    for (const bad of ['', '*', '**', 'a/b', 'a b', '../x', 'x'.repeat(65), 'ü']) {
      expect(() => address.profile(bad)).toThrow(AddressError)
      expect(() => address.meta(bad)).toThrow(AddressError)
      expect(() => pattern.roomTop(bad)).toThrow(AddressError)
    }
    expect(() => address.reaction(ROOM, MSG, '*️⃣', 'u')).toThrow(AddressError)
    expect(() => address.groupMeta('__auth')).toThrow(AddressError)
    expect(address.backup('u-1', 1024)).toBe('/chat/user/u-1/backup/1024')
    for (const part of [-1, 0.5, 1025, NaN]) expect(() => address.backup('u-1', part)).toThrow(AddressError)
    expect(parseAddress('/chat/user/u-1/link/0123456789abcdef-x')).toBeNull()
    expect(() => address.link('u-1', 'x')).toThrow(AddressError)
    fc.assert(
      fc.property(fc.string(), (text) => {
        if (!addresses.isUserId(text)) expect(() => address.presence(ROOM, text)).toThrow(AddressError)
        else expect(parseAddress(address.presence(ROOM, text))).toMatchObject({ userId: text })
      }),
    )
  })
})

describe('parseAddress', () => {
  it.each(['constructor', '__proto__', 'toString', 'crypto/constructor'])('knows no place called %s', (name) => {
    expect(parseAddress(`/chat/room/${ROOM}/${name}/alice`)).toBeNull()
  })
})

describe('what one types', () => {
  it.each([
    ['Games', 'games'],
    [' /Games//Board Games/ ', 'games/board-games'],
    ['a/b/c/d/e/f/g/h', 'a/b/c/d/e/f/g/h'],
    ['a/b/c/d/e/f/g/h/i', null],
    ['', null],
    ['///', null],
    ['a/__auth', null],
    ['über', null],
    ['a/*', null],
  ])('as a group: %j is %j', (typed, path) => {
    expect(addresses.parseGroupPath(typed)).toBe(path)
  })

  it.each([
    [ROOM, ROOM],
    [` ${ROOM} `, ROOM],
    [`https://chat.test/chat?join=${ROOM}`, ROOM],
    [`https://chat.test/?x=1&join=dm-abc-def`, 'dm-abc-def'],
    ['https://chat.test/chat', null],
    ['https://chat.test/chat?join=**', null],
    [ROOM.toUpperCase(), null],
    ['nonsense', null],
    ['', null],
  ])('as an invitation: %j is %j', (typed, room) => {
    expect(addresses.parseInvitation(typed)).toBe(room)
  })

  it('as the QR code of a device', () => {
    const [id, secret] = ['0123456789abcdef', 'f'.repeat(32)]
    expect(addresses.parseLinkFragment(addresses.linkFragment(id, secret))).toEqual({ id, secret })
    for (const other of ['', '#', `#link-${id}`, `#link-${id}-${secret}0`, `link-${id}-${secret}`, '#1700000000000-a'])
      expect(addresses.parseLinkFragment(other)).toBeNull()
  })

  it('as an emoji: one that can stand in an address', () => {
    for (const good of ['👍', '❤️', '👩‍👩‍👧‍👦', '🇩🇪', '1️⃣']) expect(addresses.isEmoji(good), good).toBe(true)
    for (const bad of ['', 'a', '/', '*️⃣', '#', '👍 👍', '👍/👍', '\u0000👍', '👍'.repeat(40)]) {
      expect(addresses.isEmoji(bad), bad).toBe(false)
    }
  })
})

describe('direct messages', () => {
  it('have one id for both, as the original makes it', () => {
    const [one, other] = ['ffffffff-1111-4222-8333-444444444444', '00000000-1111-4222-8333-444444444444']
    expect(addresses.directMessageId(one, other)).toBe('dm-00000000-ffffffff')
    expect(addresses.directMessageId(other, one)).toBe('dm-00000000-ffffffff')
    expect(addresses.isRoomId(addresses.directMessageId('u-1700000000000-abc', 'b'))).toBe(true)
  })
})

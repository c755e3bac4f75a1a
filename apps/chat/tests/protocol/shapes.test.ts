/** The values that both apps write, exactly as the original writes them, and everything that others may write instead. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import * as shapes from '@/protocol/shapes'

const ROOM = '0a1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d'
const X = 'MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4'
const Y = '4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM'
const JWK = { kty: 'EC', crv: 'P-256', x: X, y: Y, ext: true, key_ops: [] }
const IMAGE = 'data:image/png;base64,AAAA'
const VERIFYING = { ...JWK, key_ops: ['verify'] }
const DEVICE = '0123456789abcdef'
const HASH = 'ab'.repeat(32)
const IV = 'AAECAwQFBgcICQoL'
const SIGNATURE = `${'A'.repeat(86)}==`
const NOW = 1_700_000_000_000

const message = {
  from: 'Alice',
  fromId: 'session-1',
  userId: 'u-1',
  msgId: '1700000000000-abc123',
  text: 'hi',
  timestamp: NOW,
  avatarColor: '#a1b2c3',
  type: 'text',
}
const parsed = {
  kind: 'message',
  deviceId: null,
  sig2: null,
  fromId: 'session-1',
  userId: 'u-1',
  timestamp: NOW,
  type: 'text',
  from: 'Alice',
  msgId: '1700000000000-abc123',
  avatarColor: '#a1b2c3',
  text: 'hi',
  image: null,
  alt: '',
  sealed: null,
  sealedImage: null,
  sealedAlt: null,
  replyTo: null,
  signature: null,
  keyId: null,
}
const meta = {
  name: 'Den',
  type: 'text',
  description: '',
  isPublic: true,
  encrypted: false,
  creatorId: null,
  creatorName: '',
  createdAt: null,
  passwordSalt: null,
  passwordHash: null,
  namespace: null,
  dmUsers: null,
}

type Parser = (value: unknown) => unknown

/** Parser, value as written, what is read. */
const CONTRACT: readonly (readonly [string, Parser, unknown, unknown])[] = [
  [
    'profile',
    shapes.parseProfile,
    { name: 'Alice', avatarColor: '#A1B2C3', userId: 'u-1', status: 'dnd' },
    { name: 'Alice', avatarColor: '#a1b2c3', userId: 'u-1', status: 'dnd' },
  ],
  [
    'signing key',
    shapes.parseSigningKey,
    { publicKey: { ...JWK, key_ops: ['verify'] }, algorithm: 'ECDSA-P256-SHA256', timestamp: NOW },
    { publicKey: { ...JWK, key_ops: ['verify'] } },
  ],
  [
    'friend',
    shapes.parseFriend,
    { name: 'Bob', avatarColor: '#000000', addedAt: NOW },
    { name: 'Bob', avatarColor: '#000000', addedAt: NOW },
  ],
  [
    'DM inbox',
    shapes.parseInboxEntry,
    { fromId: 'u-1', fromName: 'Alice', roomId: 'dm-u-1-u-2', timestamp: NOW },
    { fromId: 'u-1', fromName: 'Alice', roomId: 'dm-u-1-u-2', timestamp: NOW },
  ],
  [
    'friend request',
    shapes.parseRequest,
    { fromId: 'u-1', fromName: 'Alice', fromColor: '#123456', timestamp: NOW },
    { accepted: false, fromId: 'u-1', fromName: 'Alice', fromColor: '#123456', text: '', timestamp: NOW },
  ],
  [
    'request for a conversation',
    shapes.parseRequest,
    {
      type: 'dm',
      text: ` Hello!${' '.repeat(600)}`,
      fromId: 'u-1',
      fromName: 'Alice',
      fromColor: '#123456',
      timestamp: NOW,
    },
    { accepted: false, fromId: 'u-1', fromName: 'Alice', fromColor: '#123456', text: 'Hello!', timestamp: NOW },
  ],
  ['blocked', shapes.parseBlock, { name: 'Mallory', blockedAt: NOW }, { name: 'Mallory' }],
  [
    'acceptance',
    shapes.parseRequest,
    { type: 'accepted', fromId: 'u-1', fromName: 'Alice', fromColor: '#123456', timestamp: NOW },
    { accepted: true, fromId: 'u-1', fromName: 'Alice', fromColor: '#123456', text: '', timestamp: NOW },
  ],
  [
    'registry entry',
    shapes.parseRegistryEntry,
    {
      name: 'Den',
      type: 'video',
      isPublic: true,
      creatorId: 'u-1',
      creatorName: 'Alice',
      createdAt: NOW,
      hasPassword: true,
      namespace: 'a/b',
      id: ROOM,
    },
    {
      name: 'Den',
      type: 'video',
      isPublic: true,
      creatorId: 'u-1',
      creatorName: 'Alice',
      createdAt: NOW,
      hasPassword: true,
      namespace: 'a/b',
    },
  ],
  [
    'registry entry moved by the room panel',
    shapes.parseRegistryEntry,
    { name: 'Den', type: 'text', creatorId: '', creatorName: 'Alice', hasPassword: false, createdAt: NOW },
    {
      name: 'Den',
      type: 'text',
      isPublic: false,
      creatorId: null,
      creatorName: 'Alice',
      createdAt: NOW,
      hasPassword: false,
      namespace: null,
    },
  ],
  [
    'group',
    shapes.parseGroupMeta,
    { description: 'd', isPublic: true, icon: '🎲🎲🎲', createdBy: 'u-1', creatorName: 'Alice', createdAt: NOW },
    {
      description: 'd',
      isPublic: true,
      icon: '🎲🎲',
      createdBy: 'u-1',
      creatorName: 'Alice',
      createdAt: NOW,
      hasPassword: false,
    },
  ],
  [
    'meta as created',
    shapes.parseRoomMeta,
    { name: 'Den', type: 'text', description: '', isPublic: true, encrypted: false },
    meta,
  ],
  [
    'meta with a password, stamped and redacted',
    shapes.parseRoomMeta,
    {
      name: 'Den',
      type: 'text',
      description: '',
      isPublic: true,
      encrypted: true,
      passwordSalt: 'AAECAwQFBgcICQoLDA0ODw==',
      namespace: 'a',
      creatorId: 'u-1',
    },
    { ...meta, encrypted: true, passwordSalt: 'AAECAwQFBgcICQoLDA0ODw==', namespace: 'a', creatorId: 'u-1' },
  ],
  [
    'meta of a direct message',
    shapes.parseRoomMeta,
    { name: 'Bob', type: 'dm', isPublic: false, dmUsers: { 'u-1': 'Alice', 'u-2': 'Bob' } },
    { ...meta, name: 'Bob', type: 'dm', isPublic: false, dmUsers: { 'u-1': 'Alice', 'u-2': 'Bob' } },
  ],
  [
    'presence',
    shapes.parsePresence,
    { name: 'Alice', avatarColor: '#123456', joinedAt: NOW, lastSeen: NOW },
    { name: 'Alice', avatarColor: '#123456', joinedAt: NOW, status: 'online', account: false },
  ],
  [
    'presence of an account',
    shapes.parsePresence,
    { name: 'Alice', avatarColor: '#123456', joinedAt: NOW, account: true },
    { name: 'Alice', avatarColor: '#123456', joinedAt: NOW, status: 'online', account: true },
  ],
  ['typing', shapes.parseTyping, { name: 'Alice', timestamp: NOW }, { name: 'Alice' }],
  ['stopped typing', shapes.parseTyping, false, null],
  [
    'reaction list',
    shapes.parseReaction,
    { users: ['s-1', 's-2', 's-1', 7] },
    { kind: 'list', sessions: ['s-1', 's-2'] },
  ],
  ['reaction leaf', shapes.parseReaction, { userId: 'u-1', timestamp: NOW }, { kind: 'leaf' }],
  ['admin', shapes.parseAdmin, { role: 'admin', promotedBy: 'u-1', timestamp: NOW }, { promotedBy: 'u-1' }],
  ['not an admin', shapes.parseAdmin, { role: 'king' }, null],
  [
    'ban',
    shapes.parseBan,
    { bannedBy: 'u-1', timestamp: NOW, name: 'Bob' },
    { bannedBy: 'u-1', timestamp: NOW, name: 'Bob' },
  ],
  ['receipt', shapes.parseReceipt, { userId: 'u', msgId: 'm-1', timestamp: NOW }, { msgId: 'm-1', timestamp: NOW }],
  ['public key', shapes.parsePubkey, { publicKey: JWK, timestamp: NOW }, JWK],
  [
    'public key with foreign operations',
    shapes.parsePubkey,
    { publicKey: { ...JWK, key_ops: ['deriveKey'], d: 'secret' } },
    JWK,
  ],
  ['proof', shapes.parseProof, { hash: 'x', timestamp: NOW }, true],
  ['redacted proof', shapes.parseProof, { timestamp: NOW }, true],
  ['no proof', shapes.parseProof, null, false],
  [
    'key exchange',
    shapes.parseKeyex,
    { fromId: 'u-1', encryptedKey: 'AAAA', iv: IV, senderPublicKey: JWK },
    { fromId: 'u-1', encryptedKey: 'AAAA', iv: IV, senderPublicKey: JWK, epoch: null, keyId: null, deviceId: null },
  ],
  [
    'key exchange of ours',
    shapes.parseKeyex,
    {
      fromId: 'u-1',
      encryptedKey: 'AAAA',
      iv: IV,
      senderPublicKey: JWK,
      epoch: 3,
      keyId: 'a1b2c3d4',
      deviceId: DEVICE,
    },
    {
      fromId: 'u-1',
      encryptedKey: 'AAAA',
      iv: IV,
      senderPublicKey: JWK,
      epoch: 3,
      keyId: 'a1b2c3d4',
      deviceId: DEVICE,
    },
  ],
  ['device that wrote something', shapes.parseDeviceId, { deviceId: DEVICE }, DEVICE],
  ['account', shapes.parseAccount, { key: JWK, createdAt: 5, v: 1 }, { key: VERIFYING, createdAt: 5 }],
  ['account without a time', shapes.parseAccount, { key: JWK }, { key: VERIFYING, createdAt: 0 }],
  [
    'device',
    shapes.parseDevice,
    { name: 'Desk', key: JWK, exchange: JWK, createdAt: 5, sig: SIGNATURE },
    { name: 'Desk', key: VERIFYING, exchange: JWK, createdAt: 5, sig: SIGNATURE, session: null, endedAt: null },
  ],
  [
    'device that was signed out',
    shapes.parseDevice,
    { name: 'Desk', key: JWK, exchange: JWK, createdAt: 5, sig: SIGNATURE, session: '0a1b', endedAt: 9 },
    { name: 'Desk', key: VERIFYING, exchange: JWK, createdAt: 5, sig: SIGNATURE, session: '0a1b', endedAt: 9 },
  ],
  [
    'device that is not linked',
    shapes.parseDevice,
    { key: JWK, exchange: JWK },
    { name: '', key: VERIFYING, exchange: JWK, createdAt: 0, sig: null, session: null, endedAt: null },
  ],
  [
    'request for the keys',
    shapes.parseLinkRequest,
    { name: 'Desk', deviceId: DEVICE, commit: HASH },
    { name: 'Desk', deviceId: DEVICE, commit: HASH, reveal: null },
  ],
  [
    'request for the keys with what it revealed',
    shapes.parseLinkRequest,
    { name: 'Desk', deviceId: DEVICE, commit: HASH, key: JWK, nonce: 'AAAA' },
    { name: 'Desk', deviceId: DEVICE, commit: HASH, reveal: { key: JWK, nonce: 'AAAA' } },
  ],
  ['answer to it', shapes.parseLinkAnswer, { key: JWK }, { key: JWK, parts: null, scanned: false }],
  [
    'answer with the keys',
    shapes.parseLinkAnswer,
    { key: JWK, parts: 2, scanned: true },
    { key: JWK, parts: 2, scanned: true },
  ],
  [
    'head of a backup',
    shapes.parseBackupHead,
    { v: 1, salt: 'AAAA', tag: 'BBBB', first: 33, parts: 2, at: 5 },
    { salt: 'AAAA', tag: 'BBBB', first: 33, parts: 2, at: 5 },
  ],
  [
    'head of a backup without a time',
    shapes.parseBackupHead,
    { salt: 'AAAA', tag: 'BBBB', first: 1, parts: 1 },
    { salt: 'AAAA', tag: 'BBBB', first: 1, parts: 1, at: 0 },
  ],
  ['part of a backup', shapes.parsePart, { text: 'AAAA', iv: IV }, { text: 'AAAA', iv: IV }],
  [
    'room that devices share',
    shapes.parseSyncedRoom,
    { joined: true, muted: true, joinedAt: 1, lastReadMs: 2, peerName: 'Bob' },
    { joined: true, muted: true, joinedAt: 1, lastReadMs: 2, peerName: 'Bob' },
  ],
  [
    'room that devices share, empty',
    shapes.parseSyncedRoom,
    {},
    { joined: false, muted: false, joinedAt: 0, lastReadMs: 0, peerName: '' },
  ],
  [
    'profile that devices share',
    shapes.parseSyncedProfile,
    { name: 'Al', avatarColor: '#123456' },
    { name: 'Al', avatarColor: '#123456' },
  ],
  ['text', shapes.parseMessage, message, parsed],
  ['signed text', shapes.parseMessage, { ...message, signature: SIGNATURE }, { ...parsed, signature: SIGNATURE }],
  [
    'reply',
    shapes.parseMessage,
    { ...message, replyTo: { msgId: 'm-1', from: 'Bob', text: 'q'.repeat(200) } },
    { ...parsed, replyTo: { msgId: 'm-1', from: 'Bob', text: 'q'.repeat(100) } },
  ],
  [
    'image',
    shapes.parseMessage,
    { ...message, type: 'image', text: '', image: IMAGE },
    { ...parsed, type: 'image', text: '', image: IMAGE },
  ],
  [
    'encrypted text',
    shapes.parseMessage,
    { ...message, text: 'AAAA', iv: IV, encrypted: true },
    { ...parsed, text: '', sealed: { text: 'AAAA', iv: IV } },
  ],
  [
    'encrypted image',
    shapes.parseMessage,
    {
      ...message,
      type: 'image',
      text: 'AAAA',
      iv: IV,
      encrypted: true,
      encryptedImage: 'BBBB',
      imageIv: IV,
      image: IMAGE,
    },
    { ...parsed, type: 'image', text: '', sealed: { text: 'AAAA', iv: IV }, sealedImage: { text: 'BBBB', iv: IV } },
  ],
  [
    'edit',
    shapes.parseMessage,
    { type: 'edit', fromId: 's', targetId: 'm-1', text: 'new', timestamp: NOW },
    {
      kind: 'edit',
      deviceId: null,
      sig2: null,
      msgId: null,
      keyId: null,
      fromId: 's',
      userId: null,
      targetId: 'm-1',
      text: 'new',
      timestamp: NOW,
      sealed: null,
    },
  ],
  [
    'encrypted edit',
    shapes.parseMessage,
    { type: 'edit', fromId: 's', targetId: 'm-1', text: 'AAAA', timestamp: NOW, iv: IV, encrypted: true },
    {
      kind: 'edit',
      deviceId: null,
      sig2: null,
      msgId: null,
      keyId: null,
      fromId: 's',
      userId: null,
      targetId: 'm-1',
      text: '',
      timestamp: NOW,
      sealed: { text: 'AAAA', iv: IV },
    },
  ],
  [
    'delete',
    shapes.parseMessage,
    { type: 'delete', fromId: 's', targetId: 'm-1', timestamp: NOW },
    {
      kind: 'delete',
      fromId: 's',
      userId: null,
      targetId: 'm-1',
      timestamp: NOW,
      moderator: false,
      msgId: null,
      deviceId: null,
      sig2: null,
    },
  ],
  [
    'delete by a moderator',
    shapes.parseMessage,
    { type: 'delete', fromId: 'u-9', targetId: 'm-1', timestamp: NOW, isModAction: true },
    {
      kind: 'delete',
      fromId: 'u-9',
      userId: null,
      targetId: 'm-1',
      timestamp: NOW,
      moderator: true,
      msgId: null,
      deviceId: null,
      sig2: null,
    },
  ],
  [
    'kick notice',
    shapes.parseMessage,
    {
      type: 'text',
      fromId: 'u-9',
      from: 'System',
      msgId: `kick-${NOW}`,
      text: 'Bob was kicked',
      timestamp: NOW,
      avatarColor: '#6b7280',
    },
    {
      ...parsed,
      fromId: 'u-9',
      userId: null,
      from: 'System',
      msgId: `kick-${NOW}`,
      text: 'Bob was kicked',
      avatarColor: '#6b7280',
    },
  ],
  ['a kind that nobody knows, as text', shapes.parseMessage, { ...message, type: 'party' }, parsed],
  [
    'history request',
    shapes.parseHistoryCall,
    { type: 'request', userId: 'u-1', requestId: 'r-1', limit: 9_999, since: 5 },
    { type: 'request', userId: 'u-1', requestId: 'r-1', limit: 200, sinceMs: 5 },
  ],
  [
    'history request for everything',
    shapes.parseHistoryCall,
    { type: 'request', userId: 'u-1', requestId: 'r-1', limit: 10 },
    { type: 'request', userId: 'u-1', requestId: 'r-1', limit: 10, sinceMs: 0 },
  ],
  [
    'history offer',
    shapes.parseHistoryCall,
    { type: 'offer', userId: 'u-1', requestId: 'r-1', count: 7 },
    { type: 'offer', userId: 'u-1', requestId: 'r-1', count: 7 },
  ],
  ['history of another kind', shapes.parseHistoryCall, { type: 'x', userId: 'u-1', requestId: 'r-1', count: 7 }, null],
  [
    'history taken',
    shapes.parseHistoryMail,
    { type: 'take', userId: 'u-1', requestId: 'r-1' },
    { type: 'take', userId: 'u-1', requestId: 'r-1' },
  ],
  ['mail of another kind', shapes.parseHistoryMail, { type: 'x', userId: 'u-1', requestId: 'r-1' }, null],
  [
    'history part',
    shapes.parseHistoryMail,
    { type: 'part', userId: 'u-1', requestId: 'r-1', last: true, messages: [1] },
    { type: 'part', userId: 'u-1', requestId: 'r-1', last: true, messages: [1], sealed: null },
  ],
  [
    'sealed history part',
    shapes.parseHistoryMail,
    {
      type: 'part',
      userId: 'u-1',
      requestId: 'r-1',
      last: false,
      encrypted: true,
      text: 'AAAA',
      iv: IV,
      messages: [1],
    },
    { type: 'part', userId: 'u-1', requestId: 'r-1', last: false, messages: [], sealed: { text: 'AAAA', iv: IV } },
  ],
  [
    'history row',
    shapes.parseHistoryRow,
    { ...message, edited: true },
    {
      msgId: message.msgId,
      userId: 'u-1',
      fromId: 'session-1',
      from: 'Alice',
      avatarColor: '#a1b2c3',
      timestamp: NOW,
      type: 'text',
      text: 'hi',
      image: null,
      alt: '',
      replyTo: null,
      edited: true,
    },
  ],
  ['a sealed history row', shapes.parseHistoryRow, { ...message, encrypted: true, text: 'AAAA', iv: IV }, null],
]

const PARSERS = [...new Map(CONTRACT.map(([, parser]) => [parser.name, parser])).values()]

describe('the values that both apps write', () => {
  it.each(CONTRACT)('%s', (_name, parser, value, expected) => {
    expect(parser(value)).toEqual(expected)
  })
})

describe('what others may write instead', () => {
  it('is never spread: extra fields do not get through', () => {
    for (const [name, parser, value] of CONTRACT) {
      if (typeof value !== 'object' || value === null) continue
      const read = JSON.stringify(parser({ ...value, verified: true, edited_: 1, system: 'evil', id: 'evil' })) ?? ''
      expect(read, name).not.toMatch(/verified|system|evil/)
    }
  })

  it('may lie in the prototype, which counts for nothing', () => {
    const value = Object.create({ fromId: 'u-1', roomId: ROOM, name: 'Evil', kty: 'EC' }) as object
    for (const parser of PARSERS) {
      expect(JSON.stringify(parser(value)) ?? '').not.toContain('Evil')
    }
    expect(shapes.parseInboxEntry(value)).toBeNull()
  })

  it('is null where something necessary is missing or of another kind', () => {
    const wrong: readonly (readonly [Parser, unknown])[] = [
      [shapes.parseInboxEntry, { fromId: 'u', roomId: '**' }],
      [shapes.parseInboxEntry, { fromId: '*', roomId: ROOM }],
      [shapes.parseRequest, { fromName: 'x' }],
      [shapes.parseRegistryEntry, { name: '   ' }],
      [shapes.parseReceipt, { msgId: 'm' }],
      [shapes.parseReceipt, { timestamp: 1 }],
      [shapes.parseReceipt, { msgId: 'm', timestamp: Infinity }],
      [shapes.parseReceipt, { msgId: 'm', timestamp: -1 }],
      [shapes.parsePubkey, { publicKey: { ...JWK, x: 'short' } }],
      [shapes.parsePubkey, { publicKey: { ...JWK, y: 7 } }],
      [shapes.parsePubkey, { publicKey: { ...JWK, y: `${Y}!` } }],
      [shapes.parsePubkey, { publicKey: { ...JWK, x: 7 } }],
      [shapes.parsePubkey, { publicKey: { ...JWK, crv: 'P-384' } }],
      [shapes.parsePubkey, { publicKey: { ...JWK, kty: 'oct' } }],
      [shapes.parsePubkey, { publicKey: 'x' }],
      [shapes.parseSigningKey, {}],
      [shapes.parseKeyex, { fromId: 'u', encryptedKey: 'A', iv: IV, senderPublicKey: JWK }],
      [shapes.parseKeyex, { fromId: 'u', encryptedKey: 'AAAA', iv: '', senderPublicKey: JWK }],
      [shapes.parseKeyex, { fromId: 'u', encryptedKey: 'AAAA', iv: IV }],
      [shapes.parseKeyex, { encryptedKey: 'AAAA', iv: IV, senderPublicKey: JWK }],
      [shapes.parseAccount, { key: 'x' }],
      [shapes.parseDevice, { exchange: JWK }],
      [shapes.parseDevice, { key: JWK }],
      [shapes.parseDeviceId, { deviceId: 'x' }],
      [shapes.parseSyncedProfile, { avatarColor: '#123456' }],
      [shapes.parseLinkRequest, { deviceId: 'x', commit: HASH }],
      [shapes.parseLinkRequest, { deviceId: DEVICE, commit: 'x' }],
      [shapes.parseLinkAnswer, { parts: 1 }],
      ...[0, 1.5, 100, '1'].map(
        (parts) => [shapes.parseBackupHead, { salt: 'AAAA', tag: 'B', first: 1, parts }] as const,
      ),
      [shapes.parseBackupHead, { salt: 'AAAA', tag: 'BBBB', first: 2000, parts: 1 }],
      [shapes.parseBackupHead, { tag: 'BBBB', first: 1, parts: 1 }],
      [shapes.parseBackupHead, { salt: 'AAAA', first: 1, parts: 1 }],
      [shapes.parseBackupHead, { salt: 'AAAA', tag: 'BBBB', first: 1, parts: 33 }],
      [shapes.parsePart, { text: 'AAAA' }],
      [shapes.parsePart, { iv: IV }],
      [shapes.parseMessage, { ...message, fromId: '' }],
      [shapes.parseMessage, { ...message, timestamp: 'now' }],
      [shapes.parseMessage, { ...message, msgId: 'a/b' }],
      [shapes.parseMessage, { ...message, encrypted: true, iv: IV, text: 'not base64!' }],
      [shapes.parseMessage, { type: 'edit', fromId: 's', targetId: 'm', timestamp: 1 }],
      [shapes.parseMessage, { type: 'edit', fromId: 's', targetId: '*', text: '', timestamp: 1 }],
      [shapes.parseMessage, { type: 'edit', fromId: 's', targetId: 'm', text: 'x', encrypted: true, timestamp: 1 }],
      [shapes.parseMessage, { type: 'delete', fromId: 's', targetId: '/', timestamp: 1 }],
      [shapes.parseHistoryCall, { type: 'offer', userId: 'u', requestId: 'r' }],
      [shapes.parseHistoryCall, { type: 'offer', userId: 'u', count: 1 }],
      [shapes.parseHistoryCall, { type: 'offer', requestId: 'r', count: 1 }],
      [shapes.parseHistoryMail, { type: 'take', userId: 'u' }],
      [shapes.parseHistoryMail, { type: 'take', requestId: 'r' }],
      [shapes.parseHistoryRow, { type: 'edit', fromId: 's', targetId: 'm', text: 'x', timestamp: 1 }],
    ]
    for (const [parser, value] of wrong) expect(parser(value), `${parser.name} ${JSON.stringify(value)}`).toBeNull()
    for (const parser of PARSERS) {
      for (const value of [null, 7, 'text', true, [], new Uint8Array(3)]) expect(parser(value) || null).toBeNull()
    }
  })

  it('shows no picture from elsewhere and no colour that is none', () => {
    for (const image of [
      'https://tracker.test/x.png',
      'javascript:alert(1)',
      'data:text/html;base64,AAAA',
      'data:image/svg+xml;base64,AAAA',
      'data:image/png;base64,A"onerror="x',
      `data:image/png;base64,${'A'.repeat(70_000)}`,
      7,
    ]) {
      expect(shapes.parseMessage({ ...message, type: 'image', image })).toMatchObject({ image: null, type: 'text' })
    }
    for (const avatarColor of ['red', '#12345', '#12345g', 'url(https://tracker.test)', 7, null]) {
      expect(shapes.parseMessage({ ...message, avatarColor })).toMatchObject({ avatarColor: shapes.DEFAULT_COLOR })
    }
  })

  it('has names of one short line without tricks', () => {
    const name = shapes.parseProfile({ name: ' \u202eevil\u0000\n\u2066name\u200b ' })!.name
    expect(name).toBe('evilname')
    expect(shapes.parseProfile({ name: 'x'.repeat(500) })!.name).toHaveLength(64)
  })

  it('falls back to what is usual where a field is odd', () => {
    expect(shapes.parsePresence({ status: 'king', joinedAt: 'x' })).toMatchObject({ status: 'online', joinedAt: 0 })
    expect(shapes.parseRoomMeta({ type: 7, dmUsers: { a: 'x', b: 'y', c: 'z' } })).toMatchObject({
      type: 'text',
      dmUsers: null,
    })
    expect(shapes.parseRoomMeta({ type: 'party', dmUsers: { a: 'x', '*': 'y' } })).toMatchObject({
      type: 'text',
      dmUsers: null,
    })
    expect(shapes.parseFriend({})).toMatchObject({ addedAt: 0 })
    expect(shapes.parseRequest({ type: 'dm', fromId: 'u-1' })).toMatchObject({ text: '' })
    const device = { name: 'x', key: VERIFYING, exchange: JWK, createdAt: 1 }
    for (const part of [{}, { sig: SIGNATURE }, { session: '0a' }, { endedAt: 0 }])
      expect(shapes.wireOfDevice(shapes.parseDevice({ ...device, ...part })!)).toEqual({ ...device, ...part })
    expect(['creator', 'admin', 'owner', 1].map((role) => shapes.stampedRole({ role }))).toEqual([
      'creator',
      'admin',
      null,
      null,
    ])
    expect(shapes.stampedRole(null)).toBeNull()
    expect(shapes.parseInboxEntry({ fromId: 'u', roomId: ROOM })).toMatchObject({ timestamp: 0, fromName: '' })
    expect(shapes.parseRequest({ fromId: 'u' })).toMatchObject({ timestamp: 0 })
    expect(shapes.parseBan({})).toEqual({ bannedBy: null, name: '', timestamp: 0 })
    expect(shapes.parseMessage({ ...message, text: 7 })).toMatchObject({ text: '' })
    expect(shapes.parseMessage({ ...message, replyTo: { msgId: 'm' } })).toMatchObject({
      replyTo: { msgId: 'm', from: '', text: '' },
    })
    for (const epoch of [-1, 1.5, 2_000_000, 'x']) {
      const keyex = { fromId: 'u', encryptedKey: 'AAAA', iv: IV, senderPublicKey: JWK, epoch, keyId: 'XYZ' }
      expect(shapes.parseKeyex(keyex)).toMatchObject({ epoch: null, keyId: null })
    }
    const mail = { type: 'part', userId: 'u', requestId: 'r', encrypted: true }
    expect(shapes.parseHistoryMail(mail)).toMatchObject({ messages: [], sealed: null })
  })

  it('reads who is in a call, as the original writes it and as this app does', () => {
    const original = { name: 'Al', avatarColor: '#A1B2C3', audioEnabled: true, videoEnabled: false, joinedAt: NOW }
    const flags = { audioEnabled: true, videoEnabled: false, screen: false, negotiates: false }
    const caller = { name: 'Al', avatarColor: '#a1b2c3', ...flags, joinedAt: NOW, userId: null }
    expect(shapes.parseCaller({ ...original, lastSeen: NOW })).toEqual(caller)
    const more = { userId: 'u-1', screen: true, negotiates: true }
    expect(shapes.parseCaller({ ...original, ...more })).toEqual({ ...caller, ...more })
    expect(shapes.parseCaller({ userId: 'a/b', joinedAt: 'x' })).toMatchObject({ userId: null, joinedAt: 0 })
    expect(shapes.parseCaller(null)).toBe(null)
  })

  it('reads the signals of a call', () => {
    const offer = { from: 's-1', type: 'offer', sdp: { type: 'offer', sdp: 'v=0' } }
    const head = { from: 's-1', userId: null }
    expect(shapes.parseSignal(offer)).toEqual({ ...head, type: 'offer', sdp: 'v=0', serial: null })
    const numbered = { ...offer, serial: 7, userId: 'u-1' }
    expect(shapes.parseSignal(numbered)).toMatchObject({ serial: 7, userId: 'u-1' })
    const candidate = { candidate: 'candidate:1', sdpMid: '0', sdpMLineIndex: 0 }
    const ice = { from: 's-1', type: 'ice-candidate', candidate }
    expect(shapes.parseSignal(ice)).toEqual({ ...head, type: 'ice-candidate', candidate })
    for (const sdpMLineIndex of [-1, 64, 0.5, '0', undefined]) {
      const odd = { ...ice, candidate: { candidate: 'x', sdpMLineIndex } }
      expect(shapes.parseSignal(odd)).toMatchObject({ candidate: { sdpMid: null, sdpMLineIndex: null } })
    }
    for (const value of [
      null,
      { ...offer, from: 'a/b' },
      { ...offer, type: 'bye' },
      { ...offer, sdp: 'v=0' },
      { ...offer, sdp: { type: 'answer', sdp: 'v=0' } },
      { ...offer, sdp: { type: 'offer' } },
      { ...offer, sdp: { type: 'offer', sdp: '' } },
      { ...ice, candidate: 'candidate:1' },
      { ...ice, candidate: {} },
    ])
      expect([value, shapes.parseSignal(value)]).toEqual([value, null])
  })

  it('never throws, whatever it is', () => {
    const keys = [
      ...new Set(CONTRACT.flatMap(([, , value]) => (value && typeof value === 'object' ? Object.keys(value) : []))),
    ]
    const anything = fc.dictionary(fc.constantFrom(...keys), fc.anything(), { maxKeys: 12 })
    fc.assert(
      fc.property(fc.oneof(anything, fc.anything()), (value) => {
        for (const parser of PARSERS) parser(value)
      }),
      { numRuns: 300 },
    )
  })
})

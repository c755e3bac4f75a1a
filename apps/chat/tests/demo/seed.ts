import {
  ME,
  message,
  setRooms,
  room,
  state,
  useFriendsStore,
  useGroupsStore,
  useNotificationsStore,
  useSessionStore,
  type ChatMessage,
  type FriendsStore,
  type GroupsStore,
} from '../fakes/stores'

const PEOPLE = [
  { userId: 'u-ada', name: 'Ada', color: '#2563eb' },
  { userId: 'u-grace', name: 'Grace Hopper', color: '#c026d3' },
  { userId: 'u-linus', name: 'Linus', color: '#c2410c' },
] as const

const TEXTS = [
  'Has anybody seen the new sound desk? It is *huge*.',
  'Yes. I wrote the routing down:\n\n```\nosc/1 → clasp → dmx\n```\n\nand `/lumen/scene/2` is the **finale**.',
  'Nice',
  'See https://example.org/stage-plan for the plan, it has:\n\n- lights\n- sound\n- a fog machine',
  '👍🎉',
  '> We meet at eight.\n\nI may be ten minutes late, the tram is slow today. Please start without me, I know the first part by heart anyway.',
]

const PICTURE =
  'data:image/svg+xml;utf8,' +
  encodeURIComponent(
    '<svg xmlns="http://www.w3.org/2000/svg" width="640" height="400"><defs><linearGradient id="g" x2="0" y2="1"><stop stop-color="#0f766e"/><stop offset="1" stop-color="#f5c26b"/></linearGradient></defs><rect width="640" height="400" fill="url(#g)"/><circle cx="460" cy="130" r="50" fill="#fff4dd"/></svg>',
  )

const DAY_MS = 86_400_000

function talk(count: number): ChatMessage[] {
  const start = Date.now() - DAY_MS - count * 60_000
  return Array.from({ length: count }, (_, index) => {
    const turn = Math.floor(index / 2) % 4
    const person = PEOPLE[turn] ?? { userId: ME, name: 'Kim', color: '#0f766e' }
    return message({
      ...person,
      msgId: `m${index}`,
      sessionId: `s-${person.userId}`,
      own: person.userId === ME,
      text: TEXTS[index % TEXTS.length] ?? '',
      timestamp: start + index * 60_000 + (index > count - 12 ? DAY_MS : 0),
      verification: index % 3 ? 'verified' : 'unsigned',
    })
  })
}

/** Fills the stand-ins with a lively place. */
export function seed(count: number): void {
  const session = useSessionStore() as { displayName: string; signedIn: boolean }
  session.displayName = 'Kim'
  session.signedIn = !new URLSearchParams(location.search).has('out')
  setRooms(
    room({
      id: 'r1',
      name: 'Stage crew',
      description: 'Lights, sound and fog',
      encryption: 'ready',
      hasPassword: true,
    }),
    room({ id: 'r2', name: 'General', unread: 7 }),
    room({ id: 'r3', name: 'Rehearsals', unread: 3, mentions: 2 }),
    room({ id: 'r4', name: 'Off topic', muted: true, unread: 120 }),
    room({ id: 'r5', name: 'Green room', type: 'video' }),
    room({ id: 'r6', name: 'Front of house', type: 'combo' }),
    room({ id: 'dm-1', name: 'Grace Hopper', type: 'dm', peerId: 'u-grace', encryption: 'ready', unread: 1 }),
    room({ id: 'r7', name: 'Chess', joined: false, access: 'unknown' }),
  )
  state.timeline = talk(count)
  const at = (index: number, change: Partial<ChatMessage>): void => {
    const one = state.timeline.at(index)
    if (one) state.timeline.splice(state.timeline.length + index, 1, { ...one, ...change })
  }
  at(-9, {
    reactions: [
      { emoji: '🎉', count: 3, mine: true, names: ['Kim', 'Ada', 'Linus'] },
      { emoji: '👀', count: 1, mine: false, names: ['Ada'] },
    ],
    edited: true,
  })
  at(-7, { image: PICTURE, kind: 'image', alt: 'The stage at sunset', text: 'How it looks now' })
  at(-5, { replyTo: { msgId: 'm1', name: 'Ada', text: 'Has anybody seen the new sound desk?' } })
  at(-4, { mentionsMe: true, text: '@Kim can you bring the long cables?' })
  at(-3, { deleted: true })
  at(-2, { secrecy: 'unreadable' })
  state.timeline.push(
    message({
      userId: ME,
      sessionId: 's',
      name: 'Kim',
      color: '#0f766e',
      own: true,
      timestamp: Date.now(),
      text: 'On my way',
      readBy: [...PEOPLE],
    }),
    message({
      userId: 'u-linus',
      sessionId: 'x',
      name: 'Linus',
      color: '#c2410c',
      kind: 'system',
      text: 'system.joined',
      timestamp: Date.now(),
    }),
    message({
      userId: ME,
      sessionId: 's',
      name: 'Kim',
      color: '#0f766e',
      own: true,
      timestamp: Date.now(),
      text: 'The van is full',
      delivery: 'failed',
      failure: { kind: 'tooMany', reason: null, detail: 'rate limit exceeded', retryAfterS: 2 },
    }),
    message({
      userId: ME,
      sessionId: 's',
      name: 'Kim',
      color: '#0f766e',
      own: true,
      timestamp: Date.now(),
      text: 'Coming!',
      delivery: 'queued',
    }),
  )
  state.unreadSince = state.timeline.at(-8)?.timestamp ?? null
  state.present = [
    { ...PEOPLE[0], idMark: '', role: 'creator', status: 'online', self: false, account: true, joinedAt: 0 },
    { ...PEOPLE[1], idMark: '', role: 'admin', status: 'away', self: false, account: true, joinedAt: 0 },
    {
      userId: ME,
      name: 'Kim',
      idMark: '',
      color: '#0f766e',
      role: 'member',
      status: 'online',
      self: true,
      account: true,
      joinedAt: 0,
    },
    { ...PEOPLE[2], idMark: '', role: 'member', status: 'dnd', self: false, account: true, joinedAt: 0 },
  ]
  state.typing = [PEOPLE[0], PEOPLE[2]]
  state.rights = {
    ...state.rights,
    rename: true,
    visibility: true,
    password: true,
    promote: true,
    kick: true,
    ban: true,
    moderate: true,
    remove: true,
    encrypt: true,
  }
  state.bans = [{ userId: 'u-spam', name: 'Spammer', bannedBy: ME, timestamp: 0 }]
  state.fingerprint = 'a870 3012 6315 3fbc 6a8d 98ed 23db b477 7b80 a9d6 38b2 a891 5d0a f8c4 04d8 f711'
  const friends = useFriendsStore() as { -readonly [K in keyof FriendsStore]: FriendsStore[K] }
  friends.friends = [{ ...PEOPLE[1], addedAt: 0, online: true }]
  friends.incoming = [{ ...PEOPLE[0], text: 'Hello! We met at the workshop yesterday.', timestamp: 0 }]
  const groups = useGroupsStore() as { -readonly [K in keyof GroupsStore]: GroupsStore[K] }
  const games = {
    path: 'games',
    name: 'games',
    description: 'Boards and cards',
    icon: '🎲',
    isPublic: true,
    createdBy: ME,
    creatorName: 'Kim',
    createdAt: 0,
    claimsPassword: false,
    pinned: true,
    mine: true,
  }
  groups.byPath = {
    games,
    theatre: {
      ...games,
      path: 'theatre',
      name: 'theatre',
      icon: '🎭',
      description: '',
      pinned: false,
      claimsPassword: true,
    },
  }
  groups.pinned = [games]
  state.groupRooms = { games: [room({ id: 'r7', name: 'Chess', joined: false })] }
  if (new URLSearchParams(location.search).has('toast'))
    useNotificationsStore().notify({ kind: 'info', key: 'notices.friendRequest', params: { name: 'Ada' } })
}

/**
 * Stand-ins for the stores: the same names as `@/stores`, state that a test sets, actions that only note their calls.
 *
 * Components under test get them by `vi.mock('@/stores', () => import('../fakes/stores'))`.
 */
import { reactive } from 'vue'
import { Failure } from '@/protocol/errors'
import { failureText } from '@/i18n/failures'
import type * as S from '@/stores/types'

export type * from '@/stores/types'

/** Makes what the interface reads writable, so that a test can set it. */
type Writable<T> = { -readonly [K in keyof T]: T[K] }

/** Every action that was called, with its arguments. */
export const calls: { name: string; args: unknown[] }[] = []

/** What actions answer with, by their names; a function is called, an Error rejects. */
export const answers: Record<string, unknown> = {}

function action<A extends unknown[]>(name: string, usual?: unknown): (...args: A) => Promise<never> {
  return (...args) => {
    calls.push({ name, args })
    const answer = name in answers ? answers[name] : usual
    if (answer instanceof Error) return Promise.reject(answer)
    return Promise.resolve((typeof answer === 'function' ? answer(...args) : answer) as never)
  }
}

function note<A extends unknown[]>(name: string): (...args: A) => void {
  return (...args) => {
    calls.push({ name, args })
  }
}

export function failure(kind: S.ActionErrorKind, detail = '', retryAfterS: number | null = null): Error {
  return new Failure(kind, kind, { detail, retryAfterS })
}

export const ME = '00000000-0000-4000-8000-000000000001'

export function room(change: Partial<S.Room> = {}): S.Room {
  return {
    id: 'r1',
    type: 'text',
    name: 'Garden',
    description: '',
    isPublic: true,
    hasPassword: false,
    creatorId: 'u-ada',
    creatorName: 'Ada',
    createdAt: 1_760_000_000_000,
    namespace: null,
    peerId: null,
    joined: true,
    access: 'inside',
    encryption: 'off',
    unread: 0,
    mentions: 0,
    muted: false,
    lastActivityMs: 0,
    ...change,
  }
}

let serial = 0

export function message(change: Partial<S.ChatMessage> = {}): S.ChatMessage {
  serial += 1
  return {
    roomId: 'r1',
    msgId: `m${serial}`,
    userId: 'u-ada',
    sessionId: 's-ada',
    name: 'Ada',
    idMark: '',
    color: '#2563eb',
    kind: 'text',
    line: null,
    text: `Message ${serial}`,
    image: null,
    alt: '',
    timestamp: 1_760_000_000_000 + serial * 1000,
    replyTo: null,
    edited: false,
    deleted: false,
    unproven: false,
    own: false,
    delivery: 'confirmed',
    failure: null,
    secrecy: 'plain',
    verification: 'unsigned',
    mentionsMe: false,
    relayedBy: null,
    reactions: [],
    readBy: [],
    ...change,
  }
}

export const NO_RIGHTS: S.Rights = {
  rename: false,
  visibility: false,
  password: false,
  promote: false,
  kick: false,
  ban: false,
  moderate: false,
  remove: false,
  encrypt: false,
}

const session: Writable<S.SessionStore> = reactive<Writable<S.SessionStore>>({
  ready: true,
  signedIn: true,
  guest: true,
  userId: ME,
  username: null,
  displayName: 'Me',
  color: '#0f766e',
  status: 'online',
  restore: action('restore'),
  continueAsGuest: action('continueAsGuest'),
  register: action('register'),
  login: action('login'),
  changePassword: action('changePassword'),
  logout: action('logout'),
  setProfile: note('setProfile'),
})

const connection: Writable<S.ConnectionStore> = reactive<Writable<S.ConnectionStore>>({
  phase: 'online',
  online: true,
  sessionId: 's-me',
  serverName: 'relay',
  retryAtMs: null,
  reason: null,
  retryNow: note('retryNow'),
})

const rooms: Writable<S.RoomsStore> = reactive<Writable<S.RoomsStore>>({
  ready: true,
  byId: {},
  joined: [],
  directMessages: [],
  publicRooms: [],
  activeId: null,
  active: null,
  totalUnread: 0,
  totalMentions: 0,
  create: action('create', 'r-new'),
  lookUp: action('lookUp', null),
  join: action('join'),
  leave: action('leave'),
  rename: action('rename'),
  setDescription: action('setDescription'),
  setVisibility: action('setVisibility'),
  setPassword: action('setPassword'),
  setNamespace: action('setNamespace'),
  enableEncryption: action('enableEncryption'),
  remove: action('removeRoom'),
  setMuted: note('setMuted'),
  activate(id) {
    calls.push({ name: 'activate', args: [id] })
    rooms.activeId = id
    rooms.active = id ? (rooms.byId[id] ?? null) : null
  },
  markRead: note('markRead'),
  inviteLink: (id) => `https://chat.example/?join=${id}`,
  parseInvite: (text) => /join=([\w-]+)/.exec(text)?.[1] ?? null,
})

/** Puts rooms into the store: joined ones, direct messages and public ones by their fields. */
export function setRooms(...list: S.Room[]): void {
  rooms.byId = Object.fromEntries(list.map((one) => [one.id, one]))
  rooms.joined = list.filter((one) => one.joined && one.type !== 'dm')
  rooms.directMessages = list.filter((one) => one.type === 'dm')
  rooms.publicRooms = list.filter((one) => one.isPublic && one.type !== 'dm')
  rooms.active = rooms.activeId ? (rooms.byId[rooms.activeId] ?? null) : null
}

/** State by room that the functions of the stores hand out. */
export const state = reactive({
  timeline: [] as S.ChatMessage[],
  older: false,
  catchingUp: false,
  unreadSince: null as number | null,
  present: [] as S.Member[],
  away: [] as S.AbsentMember[],
  typing: [] as S.Person[],
  bans: [] as S.Ban[],
  rights: { ...NO_RIGHTS } as S.Rights,
  keyChanges: [] as S.KeyChange[],
  fingerprint: null as string | null,
  draft: { text: '', replyTo: null, image: null, edit: null } as S.Draft,
  uploads: [] as S.Upload[],
  groupRooms: {} as Record<string, S.Room[]>,
})

const members: S.MembersStore = reactive<S.MembersStore>({
  present: () => state.present,
  away: () => state.away,
  typing: () => state.typing,
  bans: () => state.bans,
  admins: () => [],
  rights: () => state.rights,
  noteTyping: note('noteTyping'),
  stopTyping: note('stopTyping'),
  promote: action('promote'),
  demote: action('demote'),
  kick: action('kick'),
  ban: action('ban'),
  unban: action('unban'),
  profile: action('profile', null),
})

const messages: S.MessagesStore = reactive<S.MessagesStore>({
  timeline: () => state.timeline,
  hasOlder: () => state.older,
  catchingUp: () => state.catchingUp,
  unreadSince: () => state.unreadSince,
  loadOlder: action('loadOlder'),
  reveal: action('reveal', true),
  send: action('send'),
  edit: action('edit'),
  remove: action('removeMessage'),
  canEdit: (one) => one.own && one.kind === 'text',
  canRemove: (one) => one.own || state.rights.moderate,
  retry: action('retry'),
  discard: action('discard'),
  react: action('react'),
  prepareSearch: action('prepareSearch', undefined),
  search: action('search', []),
  prepareImage: action('prepareImage', 'data:image/png;base64,AAAA'),
  draft: () => state.draft,
  setDraft(_room, draft) {
    calls.push({ name: 'setDraft', args: [draft] })
    state.draft = draft
  },
  commands: [
    { name: 'roll', usage: '/roll 2d6' },
    { name: 'shrug', usage: '/shrug [text]' },
    { name: 'me', usage: '/me text' },
  ],
})

const files: Writable<S.FilesStore> = reactive<Writable<S.FilesStore>>({
  enabled: true,
  uploads: () => state.uploads,
  send: note('sendFile'),
  retry: note('retryUpload'),
  cancel: note('cancelUpload'),
  open: action('openFile', new Blob(['x'])),
  save: action('saveFile'),
})
const reports: S.ReportsStore = { send: action('report') }

const security: Writable<S.SecurityStore> = reactive<Writable<S.SecurityStore>>({
  keyChanges: () => state.keyChanges,
  acceptKey: action('acceptKey'),
  dismissKeyChange: note('dismissKeyChange'),
  fingerprint: () => state.fingerprint,
  ownFingerprint: 'fe9d 9259 5ed4 c196 299f ff2b 98e2 e319 1f97 3b42 8e4d d6e7 a36c d256 4b33 ec6f',
})

const friends: Writable<S.FriendsStore> = reactive<Writable<S.FriendsStore>>({
  friends: [],
  incoming: [],
  outgoing: [],
  isFriend: (id) => friends.friends.some((one) => one.userId === id),
  request: action('request'),
  block: action('block'),
  accept: action('accept', null),
  decline: action('decline'),
  remove: action('removeFriend'),
  openDirectMessage: action('openDirectMessage', 'dm-1'),
})

const groups: Writable<S.GroupsStore> = reactive<Writable<S.GroupsStore>>({
  byPath: {},
  pinned: [],
  children: (path) =>
    Object.values(groups.byPath).filter((one) =>
      path
        ? one.path.startsWith(`${path}/`) && !one.path.slice(path.length + 1).includes('/')
        : !one.path.includes('/'),
    ),
  roomsIn: (path) => state.groupRooms[path] ?? [],
  watch: () => () => undefined,
  pin: note('pin'),
  unpin: note('unpin'),
  create: action('createGroup'),
  ensure: action('ensureGroup'),
  update: action('updateGroup'),
  remove: action('removeGroup'),
  parsePath: (text) => (/^[\w-]+(\/[\w-]+)*$/.test(text.trim()) ? text.trim() : null),
})

export const inCall = reactive({ callers: [] as S.Person[], speaking: [] as string[] })

const callStore: Writable<S.CallsStore> = reactive<Writable<S.CallsStore>>({
  supported: true,
  current: null,
  callers: () => inCall.callers,
  isSpeaking: (sessionId) => inCall.speaking.includes(sessionId),
  watch: () => () => undefined,
  join: action('joinCall'),
  leave: note('leaveCall'),
  setMicrophone: action('setMicrophone'),
  setCamera: action('setCamera'),
  share: action('share'),
  stopSharing: note('stopSharing'),
  chosen: () => null,
  choose: action('chooseDevice'),
})

const settings: Writable<S.SettingsStore> = reactive<Writable<S.SettingsStore>>({
  theme: 'system',
  locale: 'en',
  desktopNotifications: false,
  sendReceipts: true,
  collapsedGroups: [],
  recentEmojis: ['👍', '🎉'],
  quickEmojis: ['👍️', '❤️', '😂', '🎉', '😮', '😢'],
  set(change) {
    calls.push({ name: 'set', args: [change] })
    Object.assign(settings, change)
  },
  noteEmoji: note('noteEmoji'),
  exportData: action('exportData', new Blob(['{}'])),
  importData: action('importData', { messages: 3, keys: 1 }),
})

const blocks: Writable<S.BlocksStore> = reactive<Writable<S.BlocksStore>>({
  blocked: [],
  isBlocked: (id) => blocks.blocked.some((one) => one.userId === id),
  unblock: action('unblock'),
})

let notices = 0

const notifications: Writable<S.NotificationsStore> = reactive<Writable<S.NotificationsStore>>({
  notices: [],
  permission: 'default',
  openRoom: null,
  notify(notice) {
    notices += 1
    const full = {
      id: notices,
      params: {},
      roomId: null,
      opens: null,
      action: null,
      ...notice,
      quote: notice.quote ?? '',
    }
    notifications.notices = [...notifications.notices, full]
  },
  fail(error) {
    notifications.notify({ kind: 'error', ...failureText(error) })
  },
  dismiss(id) {
    notifications.notices = notifications.notices.filter((one) => one.id !== id)
  },
  askPermission: action('askPermission'),
})

export const PHRASE = 'legal winner thank year wave sausage worth useful legal winner thank yellow'.split(' ')
const devices: Writable<S.DevicesStore> = reactive<Writable<S.DevicesStore>>({
  devices: [
    { deviceId: '0123456789abcdef', name: 'Firefox · Linux', createdAt: 1, confirmed: true, current: true },
    { deviceId: 'fedcba9876543210', name: 'Safari · iPhone', createdAt: 2, confirmed: false, current: false },
  ],
  hasAccountKey: true,
  mayConfirm: true,
  confirm: () => Promise.resolve(),
  asking: null,
  askFailure: null,
  askForKeys: action('askForKeys'),
  stopAsking: note('stopAsking'),
  offers: [],
  answer: action('answer'),
  confirmKeys: action('confirmKeys'),
  startOver: action('startOver'),
  takeFragment: () => false,
  hasScanned: false,
  askScanned: action('askScanned'),
  invitation: null,
  invite: note('invite'),
  handOver: action('handOver', '654321'),
  handOverScanned: action('handOverScanned'),
  backup: 'none',
  newPhrase: () => Promise.resolve(PHRASE),
  startBackup: action('startBackup'),
  recover: action('recover'),
  signIns: [
    { id: '0123456789abcdef', device: 'Firefox · Linux', createdAtMs: 1, lastSeenMs: 2, current: true },
    { id: 'fedcba9876543210', device: '', createdAtMs: 1, lastSeenMs: 2, current: false },
  ],
  loadSignIns: () => Promise.resolve(),
  endSignIn: action('endSignIn'),
})

const push = reactive<Writable<S.PushStore>>({
  state: 'off',
  busy: false,
  tellsMentions: false,
  turn: action('turn'),
  setTellsMentions: action('setTellsMentions'),
})

const STORES = {
  devices,
  session,
  connection,
  rooms,
  members,
  messages,
  files,
  security,
  friends,
  blocks,
  groups,
  calls: callStore,
  settings,
  notifications,
  push,
}
const PRISTINE = Object.entries(STORES).map(([name, store]) => [name, { ...store }] as const)
const PRISTINE_STATE = JSON.stringify(state)

/** Puts everything back as it was, for the next test. */
export function reset(): void {
  calls.length = 0
  for (const name of Object.keys(answers)) delete answers[name]
  for (const [name, store] of PRISTINE) Object.assign(STORES[name as keyof typeof STORES], store)
  Object.assign(state, JSON.parse(PRISTINE_STATE))
  Object.assign(inCall, { callers: [], speaking: [] })
}

export const useSessionStore = () => session
export const useConnectionStore = () => connection
export const useRoomsStore = () => rooms
export const useMembersStore = () => members
export const useMessagesStore = () => messages
export const useFilesStore = () => files
export const useSecurityStore = () => security
export const useFriendsStore = () => friends
export const useBlocksStore = () => blocks
export const useGroupsStore = () => groups
export const useDevicesStore = () => devices
export const useCallsStore = () => callStore
export const useSettingsStore = () => settings
export const usePushStore = () => push
export const useNotificationsStore = () => notifications
export const useReportsStore = () => reports

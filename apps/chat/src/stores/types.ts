/**
 * What the stores offer to components: state as they read it, actions as they call it.
 *
 * Every action that talks to the relay resolves when the relay has answered and rejects with a {@link Failure}
 * whose `kind` says what happened. Nothing is shown as done before.
 */
import type { MessageKey } from '@/i18n/en'
import type { FailureKind } from '@/protocol/errors'
import type { FileInfo } from '@/protocol/shapes'
import type { FailureWords } from '@/i18n/failures'

export type RoomId = string
export type UserId = string
export type MsgId = string

export type Status = 'online' | 'away' | 'dnd' | 'invisible'
export type RoomType = 'text' | 'video' | 'combo' | 'dm'

/** Why an action failed. The interface has one sentence for each in every language. */
export type ActionErrorKind = FailureKind

export interface Person {
  readonly userId: UserId
  readonly name: string
  /** `#rrggbb` */
  readonly color: string
}

// --- session ------------------------------------------------------------------------------------------------------

export interface SessionStore {
  /** The stored session has been read. */
  readonly ready: boolean
  readonly signedIn: boolean
  readonly guest: boolean
  readonly userId: UserId
  /** The account's name; null for a guest. */
  readonly username: string | null
  readonly displayName: string
  readonly color: string
  readonly status: Status
  /** Reads the stored session, and connects if there is a token. Idempotent. */
  restore(): Promise<void>
  continueAsGuest(name: string): Promise<void>
  /** A guest keeps its identity, rooms and friends; a taken name changes nothing. */
  register(username: string, password: string): Promise<void>
  /** `bring`: the rooms of the guest who was here, with their messages and keys, go along; else they are deleted here. */
  login(username: string, password: string, bring?: boolean): Promise<void>
  changePassword(oldPassword: string, newPassword: string): Promise<void>
  /** Revokes the token, closes the connection and deletes the stored data, in all tabs. */
  logout(): Promise<void>
  setProfile(change: { displayName?: string; color?: string; status?: Status }): void
}

// --- connection ---------------------------------------------------------------------------------------------------

/**
 * `idle`: nobody is signed in; `connecting`: the first try or a retry is under way; `online`;
 * `waiting`: the next try is at `retryAtMs`; `refused`: the relay refuses the token, sign in again.
 */
export type ConnectionPhase = 'idle' | 'connecting' | 'online' | 'waiting' | 'refused'

export interface ConnectionStore {
  readonly phase: ConnectionPhase
  readonly online: boolean
  /** The relay's id for this connection; another one after every reconnect. */
  readonly sessionId: string | null
  readonly serverName: string | null
  readonly retryAtMs: number | null
  /** The reason that the relay gave for a refusal or a close. */
  readonly reason: string | null
  retryNow(): void
}

// --- rooms --------------------------------------------------------------------------------------------------------

/**
 * `unknown`: not entered yet; `entering`; `inside`: the relay took the presence;
 * `passwordNeeded`, `banned`, `refused`, `missing` (no such room any more).
 */
export type RoomAccess = 'unknown' | 'entering' | 'inside' | 'passwordNeeded' | 'banned' | 'refused' | 'missing'

/** `unknown` until the room's meta was received: nothing is sent before. */
export type EncryptionState = 'unknown' | 'off' | 'waiting' | 'ready'

export interface Room {
  readonly id: RoomId
  readonly type: RoomType
  /** For a direct message: the name of the other user. */
  readonly name: string
  readonly description: string
  readonly isPublic: boolean
  readonly hasPassword: boolean
  readonly creatorId: UserId | null
  readonly creatorName: string
  readonly createdAt: number | null
  /** The group's path, e.g. `games/chess`. */
  readonly namespace: string | null
  /** The other user of a direct message. */
  readonly peerId: UserId | null
  readonly joined: boolean
  readonly access: RoomAccess
  readonly encryption: EncryptionState
  readonly unread: number
  readonly mentions: number
  readonly muted: boolean
  /** Time of the newest message known, ms; 0 without one. */
  readonly lastActivityMs: number
}

export interface NewRoom {
  name: string
  type?: 'text' | 'video' | 'combo'
  isPublic: boolean
  encrypted: boolean
  password?: string
  namespace?: string
}

export interface RoomsStore {
  /** The stored rooms are loaded; before, a room that is missing may only not be known yet. */
  readonly ready: boolean
  readonly byId: Readonly<Record<RoomId, Room>>
  /** Joined rooms without direct messages, by name. */
  readonly joined: readonly Room[]
  /** Direct messages, newest first. */
  readonly directMessages: readonly Room[]
  /** Everything in the public registry, by name. */
  readonly publicRooms: readonly Room[]
  readonly activeId: RoomId | null
  readonly active: Room | null
  /** Unread messages in rooms that are not muted. */
  readonly totalUnread: number
  readonly totalMentions: number
  create(room: NewRoom): Promise<RoomId>
  /** Reads a room from the relay, e.g. for an invitation; null: no such room. */
  lookUp(id: RoomId): Promise<Room | null>
  /** Joins; rejects with `wrongPassword` or `banned`. */
  join(id: RoomId, password?: string): Promise<void>
  leave(id: RoomId): Promise<void>
  rename(id: RoomId, name: string): Promise<void>
  setDescription(id: RoomId, description: string): Promise<void>
  setVisibility(id: RoomId, isPublic: boolean): Promise<void>
  /** null removes the password. Members must enter a new password again. */
  setPassword(id: RoomId, password: string | null): Promise<void>
  setNamespace(id: RoomId, path: string | null): Promise<void>
  /** Cannot be undone. */
  enableEncryption(id: RoomId): Promise<void>
  remove(id: RoomId): Promise<void>
  setMuted(id: RoomId, muted: boolean): void
  /** Sets the room on screen: its messages count as read while the window has the focus. */
  activate(id: RoomId | null): void
  markRead(id: RoomId): void
  inviteLink(id: RoomId): string
  /** The room id in a pasted invitation (a link or an id); null: not an invitation. */
  parseInvite(text: string): RoomId | null
}

/** What members tell the administrators. */
export interface ReportsStore {
  /** Sends a message as it is shown; rejects with `forbidden` where the relay takes no reports. */
  send(message: ChatMessage, reason: string): Promise<void>
}

// --- members ------------------------------------------------------------------------------------------------------

export type Role = 'creator' | 'admin' | 'member'

export interface Member extends Person {
  /** A piece of the user id, where somebody else in the room has a name that looks the same; else ''. */
  readonly idMark: string
  readonly role: Role
  readonly status: Status
  readonly self: boolean
  readonly joinedAt: number
  /** The relay vouches that this user has an account; a guest may choose any name. */
  readonly account: boolean
}

/** Somebody who has joined a room and is not present. */
export interface AbsentMember extends Person {
  /** As that of {@link Member}. */
  readonly idMark: string
  readonly role: Role
}

export interface Ban {
  readonly userId: UserId
  readonly name: string
  readonly bannedBy: UserId
  readonly timestamp: number
}

export interface Profile extends Person {
  readonly status: Status
}

/** What this user may do in a room: the interface offers only what the relay would accept. */
export interface Rights {
  readonly rename: boolean
  readonly visibility: boolean
  readonly password: boolean
  readonly promote: boolean
  readonly kick: boolean
  readonly ban: boolean
  readonly moderate: boolean
  readonly remove: boolean
  readonly encrypt: boolean
}

export interface MembersStore {
  /** The members present, by role and name, without other users who are invisible. */
  present(roomId: RoomId): readonly Member[]
  /** Who has joined and is not present, by name. */
  away(roomId: RoomId): readonly AbsentMember[]
  /** The other users who are typing. */
  typing(roomId: RoomId): readonly Person[]
  bans(roomId: RoomId): readonly Ban[]
  admins(roomId: RoomId): readonly UserId[]
  rights(roomId: RoomId): Rights
  /** Call it at every keystroke that leaves text in the composer; it limits its own rate. */
  noteTyping(roomId: RoomId): void
  stopTyping(roomId: RoomId): void
  promote(roomId: RoomId, userId: UserId): Promise<void>
  demote(roomId: RoomId, userId: UserId): Promise<void>
  kick(roomId: RoomId, userId: UserId): Promise<void>
  ban(roomId: RoomId, userId: UserId): Promise<void>
  unban(roomId: RoomId, userId: UserId): Promise<void>
  /** null: no profile. */
  profile(userId: UserId): Promise<Profile | null>
}

// --- messages -----------------------------------------------------------------------------------------------------

/** The delivery state of own messages. `waiting`: queued until the room key arrives. */
export type Delivery = 'queued' | 'waiting' | 'sent' | 'confirmed' | 'failed'

/**
 * `plain`: in a room without encryption; `encrypted`: decrypted here; `unreadable`: the key is not there (yet);
 * `exposed`: it came in clear text in an encrypted room and is to be marked as such.
 */
export type Secrecy = 'plain' | 'encrypted' | 'unreadable' | 'exposed'

/** `pending` while the signing key is fetched; `unsigned` shows no mark. */
export type Verification = 'unsigned' | 'pending' | 'verified' | 'unverified'

export interface Reaction {
  readonly emoji: string
  readonly count: number
  readonly mine: boolean
  readonly names: readonly string[]
}

/** A line that this client writes into a room: a key below `system` in the texts, with its parameters. */
export type SystemLine =
  | {
      readonly kind: 'joined' | 'left' | 'banned' | 'unbanned' | 'promoted' | 'demoted' | 'renamed' | 'keyChanged'
      readonly params: { readonly name: string }
    }
  | { readonly kind: 'encrypted' | 'keyReceived'; readonly params: Readonly<Record<string, never>> }

export interface Quote {
  readonly msgId: MsgId
  readonly name: string
  /** null: the quoted message is not stored here. */
  readonly text: string | null
}

export interface ChatMessage {
  readonly roomId: RoomId
  readonly msgId: MsgId
  /** null: the sender's client does not write it. */
  readonly userId: UserId | null
  readonly sessionId: string
  readonly name: string
  /** A piece of the user id, where somebody else in the room has a name that looks the same; else ''. */
  readonly idMark: string
  readonly color: string
  /** `system`: written by this client, e.g. somebody joined; `line` says what happened. */
  readonly kind: 'text' | 'image' | 'system'
  /** null for the messages of people. */
  readonly line: SystemLine | null
  readonly text: string
  /** A `data:image/…` URL. */
  readonly image: string | null
  readonly alt: string
  /** A file that the relay keeps. */
  readonly file?: FileInfo
  readonly timestamp: number
  readonly replyTo: Quote | null
  readonly edited: boolean
  readonly deleted: boolean
  /** Edited or deleted by a client that proves only its session id. */
  readonly unproven: boolean
  readonly own: boolean
  readonly delivery: Delivery
  /** Why it was not sent; null unless `delivery` is `failed`. */
  readonly failure: FailureWords | null
  readonly secrecy: Secrecy
  readonly verification: Verification
  readonly mentionsMe: boolean
  /** The member who shared this message as history, which proves nothing; null: received from its author. */
  readonly relayedBy: Person | null
  readonly reactions: readonly Reaction[]
  /** The users whose last read message is this one. */
  readonly readBy: readonly Person[]
}

export interface OutgoingImage {
  /** The result of `prepareImage`. */
  readonly dataUrl: string
  readonly alt: string
}

export interface Draft {
  readonly text: string
  readonly replyTo: MsgId | null
  readonly image: OutgoingImage | null
  /** An unfinished edit. */
  readonly edit: { readonly msgId: MsgId; readonly text: string } | null
}

export interface MessagesStore {
  /** The loaded part of the stored history, oldest first; `loadOlder` extends it. */
  timeline(roomId: RoomId): readonly ChatMessage[]
  /** Missed messages are being requested from members. */
  catchingUp(roomId: RoomId): boolean
  /** Older messages are stored. */
  hasOlder(roomId: RoomId): boolean
  /** The read position when the room was opened, ms, for the separator before new messages; null: no separator. */
  unreadSince(roomId: RoomId): number | null
  loadOlder(roomId: RoomId): Promise<void>
  /** Loads the history back to a message; false: it is not stored here. */
  reveal(roomId: RoomId, msgId: MsgId): Promise<boolean>
  /** Resolves when the message is stored and queued; its `delivery` shows the progress. */
  send(
    roomId: RoomId,
    message: { text: string; replyTo?: MsgId; image?: OutgoingImage; file?: FileInfo },
  ): Promise<void>
  edit(roomId: RoomId, msgId: MsgId, text: string): Promise<void>
  remove(roomId: RoomId, msgId: MsgId): Promise<void>
  canEdit(message: ChatMessage): boolean
  canRemove(message: ChatMessage): boolean
  retry(roomId: RoomId, msgId: MsgId): Promise<void>
  /** Deletes an own message that is not confirmed. */
  discard(roomId: RoomId, msgId: MsgId): Promise<void>
  react(roomId: RoomId, msgId: MsgId, emoji: string): Promise<void>
  /** Makes searches ready; call it when somebody is about to search. */
  prepareSearch(): Promise<void>
  search(query: string, roomId?: RoomId): Promise<readonly ChatMessage[]>
  /** Scales a file down until it fits one frame; rejects with `invalid` or `tooLarge`. */
  prepareImage(file: Blob): Promise<string>
  draft(roomId: RoomId): Draft
  setDraft(roomId: RoomId, draft: Draft): void
  /** `/roll`, `/shrug`, `/me`: for completion. */
  readonly commands: readonly { readonly name: string; readonly usage: string }[]
}

// --- files --------------------------------------------------------------------------------------------------------

/** A file on its way to the relay; its message is sent when it is there. */
export interface Upload {
  readonly id: number
  readonly roomId: RoomId
  readonly name: string
  /** Bytes; 0 while it is prepared. */
  readonly size: number
  readonly sent: number
  /** `waiting`: for others before it, or for the network. */
  readonly state: 'waiting' | 'preparing' | 'sending' | 'failed'
  readonly failure: FailureWords | null
}

/** What goes with a file. */
export interface FileMessage {
  readonly text?: string
  readonly replyTo?: MsgId
  /** The inline preview of a picture, and its description. */
  readonly image?: OutgoingImage
  /** Of a voice message. */
  readonly seconds?: number
  readonly waveform?: readonly number[]
}

export interface FilesStore {
  /** Whether this relay takes files; null: not known yet. */
  readonly enabled: boolean | null
  uploads(roomId: RoomId): readonly Upload[]
  /** Sends a file when those before it are sent; `uploads` tells how that goes. */
  send(roomId: RoomId, file: File, message?: FileMessage): void
  retry(id: number): void
  /** Ends an upload; its message is not sent. */
  cancel(id: number): void
  /** The content of a file, compared with its hash; `type` is one that may be shown, else that of any download. */
  open(file: FileInfo): Promise<Blob>
  /** Downloads a file under its name. */
  save(file: FileInfo): Promise<void>
}

// --- encryption ---------------------------------------------------------------------------------------------------

export interface KeyChange {
  /** It is the key of the whole account, of which the user says that the one before is lost. */
  readonly account: boolean
  readonly roomId: RoomId
  readonly userId: UserId
  readonly name: string
  readonly oldFingerprint: string
  readonly newFingerprint: string
}

export interface SecurityStore {
  /** Changed keys of peers, until they are accepted or dismissed. */
  keyChanges(roomId: RoomId): readonly KeyChange[]
  acceptKey(roomId: RoomId, userId: UserId): Promise<void>
  dismissKeyChange(roomId: RoomId, userId: UserId): void
  /** 16 groups of 4 hex digits; null: no key known. */
  fingerprint(roomId: RoomId, userId: UserId): string | null
  /** The own fingerprint. */
  readonly ownFingerprint: string | null
}

// --- devices ------------------------------------------------------------------------------------------------------

export interface Device {
  /** 16 hex digits, to compare with the other screen. */
  readonly deviceId: string
  readonly name: string
  readonly createdAt: number
  /** The account key has signed it: what it writes is verified. */
  readonly confirmed: boolean
  /** This browser. */
  readonly current: boolean
}

/** A sign-in of this user, which may be a browser or another program. */
export interface SignIn {
  readonly id: string
  /** What it calls itself; '' if it gave no name. */
  readonly device: string
  readonly createdAtMs: number
  readonly lastSeenMs: number
  /** This browser. */
  readonly current: boolean
}

/** A backup of the keys under a recovery phrase. `kept`: this browser writes it; `locked`: it lacks the phrase. */
export type BackupState = 'unknown' | 'none' | 'kept' | 'locked'

export interface DevicesStore {
  /** This browser first. */
  readonly devices: readonly Device[]
  /** This browser has the account key; null: not known yet. */
  readonly hasAccountKey: boolean | null
  /** This browser can confirm others. */
  readonly mayConfirm: boolean
  confirm(deviceId: string): Promise<void>
  /**
   * This browser asks the others for the keys. `url`: for a QR code that one of them scans; `code`: to be typed there once
   * one of them has answered; `received`: the keys are here, and {@link confirmKeys} takes them.
   */
  readonly asking: { readonly url: string; readonly code: string | null; readonly received: boolean } | null
  /** Takes the keys if the code is the one that the other device shows; the reason `wrongCode` ends the link. */
  confirmKeys(code: string): Promise<void>
  /** Makes a new account key in the place of one that is lost: everybody is warned, and has to accept it. */
  startOver(): Promise<void>
  /** Takes the fragment of the page's URL, if it is that of a scanned QR code; says whether it is. */
  takeFragment(hash: string): boolean
  /** The QR code of a device that has the keys was scanned here, and this one needs them. */
  readonly hasScanned: boolean
  /** Asks that device for the keys, which it sends without codes. */
  askScanned(): Promise<void>
  /** The URL for a QR code that a new device scans; null: none is shown. */
  readonly invitation: string | null
  invite(on: boolean): void
  /** Why the last request for the keys failed. */
  readonly askFailure: FailureWords | null
  askForKeys(): Promise<void>
  stopAsking(): void
  /** Other devices that ask for the keys. */
  readonly offers: readonly {
    readonly id: string
    readonly name: string
    /** It shows the code. */
    readonly ready: boolean
    /** Its QR code was scanned here, or it has scanned the one here: {@link handOverScanned} needs no code. */
    readonly scanned: boolean
    /** It has scanned the QR code of {@link invitation}. */
    readonly invited: boolean
  }[]
  /** Answers a device, which then shows a code. */
  answer(offerId: string): Promise<void>
  /**
   * Hands the keys over, and resolves with the code that belongs on the other device then; rejects with the reason
   * `wrongCode`, and the other device has to ask again then.
   */
  handOver(offerId: string, code: string): Promise<string>
  handOverScanned(offerId: string): Promise<void>
  readonly backup: BackupState
  /** The words of a new recovery phrase, which nothing uses yet. */
  newPhrase(): Promise<readonly string[]>
  /** Writes a backup of the keys under a phrase, in the place of any other. */
  startBackup(words: readonly string[]): Promise<void>
  /** Takes the keys out of the backup; rejects with the reasons `notAPhrase`, `noBackup`, `otherPhrase`. */
  recover(phrase: string): Promise<void>
  /** The sign-ins of this user; null: not loaded. */
  readonly signIns: readonly SignIn[] | null
  loadSignIns(): Promise<void>
  endSignIn(id: string): Promise<void>
}

// --- friends ------------------------------------------------------------------------------------------------------

export interface Friend extends Person {
  readonly addedAt: number
  /** Present in a room that both are in. */
  readonly online: boolean
}

export interface FriendRequest extends Person {
  /** The first message of somebody who asks for a conversation; '': a request for a friendship. */
  readonly text: string
  readonly timestamp: number
}

export interface FriendsStore {
  /** By name. */
  readonly friends: readonly Friend[]
  readonly incoming: readonly FriendRequest[]
  readonly outgoing: readonly UserId[]
  isFriend(userId: UserId): boolean
  /** Asks for a friendship, or with a text (at most 500 characters) for a conversation. */
  request(userId: UserId, text?: string): Promise<void>
  /** Resolves with the room of the conversation, where one was asked for. */
  accept(userId: UserId): Promise<RoomId | null>
  /** Blocks somebody; a friendship and a request end with it. */
  block(userId: UserId, name: string): Promise<void>
  decline(userId: UserId): Promise<void>
  remove(userId: UserId): Promise<void>
  /** Opens the direct message with a friend, and creates it if necessary. */
  openDirectMessage(userId: UserId): Promise<RoomId>
}

export interface BlocksStore {
  /** By name. */
  readonly blocked: readonly { readonly userId: UserId; readonly name: string }[]
  isBlocked(userId: UserId | null): boolean
  unblock(userId: UserId): Promise<void>
}

// --- groups -------------------------------------------------------------------------------------------------------

export interface Group {
  readonly path: string
  readonly name: string
  readonly description: string
  readonly icon: string
  readonly isPublic: boolean
  readonly createdBy: UserId | null
  readonly creatorName: string
  readonly createdAt: number | null
  /** The creator set a password, which the relay does not enforce. */
  readonly claimsPassword: boolean
  readonly pinned: boolean
  readonly mine: boolean
}

export interface GroupsStore {
  readonly byPath: Readonly<Record<string, Group>>
  /** Pinned groups in the order of their paths. */
  readonly pinned: readonly Group[]
  /** Groups directly below a path; '' for the top. */
  children(path: string): readonly Group[]
  roomsIn(path: string): readonly Room[]
  /** Subscribes to the rooms of a path; returns the function that ends it. */
  watch(path: string): () => void
  pin(path: string): void
  unpin(path: string): void
  create(group: { path: string; description: string; icon: string; isPublic: boolean }): Promise<void>
  /** Creates the group if there is none with this path. */
  ensure(path: string, isPublic: boolean): Promise<void>
  update(path: string, change: { description?: string; icon?: string; isPublic?: boolean }): Promise<void>
  remove(path: string): Promise<void>
  /** The canonical form of what was typed; null: not a valid path. */
  parsePath(text: string): string | null
}

// --- calls --------------------------------------------------------------------------------------------------------

export type CallDeviceKind = 'audioinput' | 'videoinput' | 'audiooutput'

export interface CallDevice {
  readonly id: string
  readonly kind: CallDeviceKind
  /** '' until the person allowed a microphone or a camera. */
  readonly label: string
}

/** A session in the call that this browser is in. */
export interface CallPerson {
  readonly sessionId: string
  /** Stamped by the relay; null: unknown. */
  readonly userId: UserId | null
  readonly name: string
  readonly color: string
  readonly self: boolean
  /** The microphone is on. */
  readonly heard: boolean
  /** The camera is on, or a screen is shared. */
  readonly video: boolean
  readonly screen: boolean
  readonly state: 'connecting' | 'connected' | 'interrupted'
  /** null: nothing to see or hear yet. */
  readonly stream: MediaStream | null
}

export interface CurrentCall {
  readonly roomId: RoomId
  /** The relay has not answered yet. */
  readonly joining: boolean
  /** This browser first, then by the time of joining. */
  readonly people: readonly CallPerson[]
  readonly microphone: boolean
  readonly camera: boolean
  readonly sharing: boolean
  /** The server offers a way around firewalls; null: not known yet. */
  readonly hasRelay: boolean | null
  readonly devices: readonly CallDevice[]
}

export interface CallsStore {
  /** This browser can make calls. */
  readonly supported: boolean
  readonly current: CurrentCall | null
  /** Who is in the call of a room that is watched, this browser too. */
  callers(roomId: RoomId): readonly Person[]
  isSpeaking(sessionId: string): boolean
  /** Keeps knowing who is in the call of a room; returns the function that ends it. */
  watch(roomId: RoomId): () => void
  /** Joins with microphone and camera off; leaves another call before. */
  join(roomId: RoomId): Promise<void>
  leave(): void
  setMicrophone(on: boolean): Promise<void>
  setCamera(on: boolean): Promise<void>
  share(): Promise<void>
  stopSharing(): void
  /** The chosen device; null: the browser's choice. */
  chosen(kind: CallDeviceKind): string | null
  choose(kind: CallDeviceKind, id: string | null): Promise<void>
}

// --- settings and notices -----------------------------------------------------------------------------------------

export type Theme = 'system' | 'light' | 'dark' | 'contrast'

export interface SettingsStore {
  readonly theme: Theme
  /** BCP 47; null: the browser's. */
  readonly locale: string | null
  readonly desktopNotifications: boolean
  readonly sendReceipts: boolean
  readonly collapsedGroups: readonly string[]
  readonly recentEmojis: readonly string[]
  /** The six reactions that are one press away. */
  readonly quickEmojis: readonly string[]
  set(change: {
    theme?: Theme
    locale?: string | null
    desktopNotifications?: boolean
    sendReceipts?: boolean
    quickEmojis?: readonly string[]
    collapsedGroups?: readonly string[]
  }): void
  noteEmoji(emoji: string): void
  /** All stored data as a JSON file. */
  exportData(): Promise<Blob>
  /** Rejects with `invalid`, and changes nothing, if the file is not an export. */
  importData(file: Blob): Promise<{ messages: number; keys: number }>
}

export type NoticeKind = 'info' | 'success' | 'warning' | 'error'

export interface Notice {
  readonly id: number
  readonly kind: NoticeKind
  /** The text, with its parameters. */
  readonly key: MessageKey
  readonly params: Readonly<Record<string, string | number>>
  /** The server's sentence to quote behind it; '' for none. */
  readonly quote: string
  /** A room to go to when it is clicked. */
  readonly roomId: RoomId | null
  /** A dialog to open when it is clicked. */
  readonly opens: 'friends' | null
  /** What can be done right there, on a button of its own. */
  readonly action: NoticeAction | null
}

export interface NoticeAction {
  readonly label: MessageKey
  /** Resolves with a room to go to. */
  run(): Promise<RoomId | null>
}

export interface PushStore {
  /** `unavailable`: the browser or the relay has no push messages; `blocked`: the person refused notifications. */
  readonly state: 'unavailable' | 'blocked' | 'off' | 'on'
  readonly busy: boolean
  /** Whether messages in encrypted rooms say to the relay who is mentioned, so that those people are told. */
  readonly tellsMentions: boolean
  /** Asks for permission where needed: call it from a click handler. */
  turn(on: boolean): Promise<void>
  setTellsMentions(on: boolean): void
}

export interface NotificationsStore {
  readonly notices: readonly Notice[]
  /** `default`: not asked yet. */
  readonly permission: NotificationPermission | 'unsupported'
  notify(notice: {
    kind: NoticeKind
    key: MessageKey
    params?: Readonly<Record<string, string | number>>
    quote?: string
    roomId?: RoomId | null
    opens?: Notice['opens']
    action?: Notice['action']
  }): void
  /** Shows an error as a notice. */
  fail(error: unknown): void
  dismiss(id: number): void
  /** Call it from a click handler. */
  askPermission(): Promise<void>
  /** The room of a clicked desktop notification: open it, and set this to null. */
  openRoom: string | null
}

/** Messages as components show them: with names, quotes, reactions and readers. */
import { shallowReactive } from 'vue'
import { clip, MAX_QUOTE } from '@/protocol/shapes'
import type { StoredMessage } from '@/storage/types'
import type { useMembersStore } from '../members'
import type { Runtime } from '../runtime'
import type { ChatMessage, MsgId, Person, RoomId, UserId } from '../types'
import { countReactions, type RoomReactions } from './reactions'

/** Characters of a user id that stand for a name that is not known. */
const SHORT_ID = 8

/** The fields that are shown unchanged. */
function pickShown(message: StoredMessage) {
  const { roomId, msgId, userId, sessionId, color, kind, text, image, alt, timestamp } = message
  const { edited, deleted, unproven, delivery, failure, secrecy, verification } = message
  const body = { roomId, msgId, userId, sessionId, color, kind, text, image, alt, timestamp }
  const file = message.file && { file: message.file }
  return { ...body, ...file, edited, deleted, unproven, delivery, failure, secrecy, verification }
}

/** Whether a text names somebody, as `@Name`. */
function names(text: string, name: string): boolean {
  if (name === '') return false
  const [wanted, lower] = [`@${name.toLocaleLowerCase()}`, text.toLocaleLowerCase()]
  // A longer name with the same beginning may come first: `@Annabel and @Anna`.
  for (let at = lower.indexOf(wanted); at >= 0; at = lower.indexOf(wanted, at + 1)) {
    if (!/^[\p{L}\p{N}]/u.test(lower.slice(at + wanted.length))) return true
  }
  return false
}

/** As many as the relay reads in one message. */
const MAX_MENTIONS = 20

/** The ids of the people whom a text names. */
export function peopleNamed(text: string, people: readonly { userId: UserId; name: string }[]): readonly UserId[] {
  if (!text.includes('@')) return []
  const found = people.filter(({ name }) => names(text, name)).map(({ userId }) => userId)
  return [...new Set(found)].slice(0, MAX_MENTIONS)
}

export class Views {
  private readonly made = new WeakMap<StoredMessage, { marks: unknown; rest: string; view: ChatMessage }>()
  /** Quoted messages that are stored, but not loaded; null: there is none. By room and message. */
  private readonly quoted = shallowReactive(new Map<string, StoredMessage | null>())

  constructor(
    private readonly runtime: Runtime,
    private readonly members: ReturnType<typeof useMembersStore>,
    private readonly reactions: ReadonlyMap<RoomId, RoomReactions>,
  ) {}

  clear(): void {
    this.quoted.clear()
  }

  /** Whether a text names this user. */
  namesMe(text: string): boolean {
    return names(text, this.runtime.self.name)
  }

  person(roomId: RoomId, userId: UserId): Person {
    return { userId, name: this.members.nameOf(roomId, userId), color: this.members.colorOf(userId) }
  }

  /** The name of an author: what is known of the user, before what the message says. */
  nameOf({ roomId, userId, name, relayedBy }: StoredMessage): string {
    if (relayedBy !== null || userId === null) return name
    const known = userId === this.runtime.self.userId ? this.runtime.self.name : this.members.nameOf(roomId, userId)
    return known || name || userId.slice(0, SHORT_ID)
  }

  private lookUp(roomId: RoomId, msgId: MsgId): StoredMessage | null {
    const key = `${roomId} ${msgId}`
    const known = this.quoted.get(key)
    if (known !== undefined || !this.runtime.begun) return known ?? null
    this.runtime.storage.messages.get(roomId, msgId).then(
      (found) => this.quoted.set(key, found ?? null),
      () => this.quoted.set(key, null),
    )
    return null
  }

  /** A message that was not stored before, and that a quote may have looked for. */
  arrived({ roomId, msgId }: StoredMessage): void {
    this.quoted.delete(`${roomId} ${msgId}`)
  }

  /** The quote of the message itself. What the reply says about it proves nothing. */
  private quoteOf(message: StoredMessage, byId: ReadonlyMap<MsgId, StoredMessage>): ChatMessage['replyTo'] {
    const { replyTo, roomId } = message
    if (!replyTo) return null
    const quoted = byId.get(replyTo.msgId) ?? this.lookUp(roomId, replyTo.msgId)
    if (!quoted) return { msgId: replyTo.msgId, name: '', text: null }
    const text = quoted.deleted || quoted.secrecy === 'unreadable' ? '' : clip(quoted.text, MAX_QUOTE)
    return { msgId: replyTo.msgId, name: this.nameOf(quoted), text: text || null }
  }

  view(
    message: StoredMessage,
    byId: ReadonlyMap<MsgId, StoredMessage>,
    readerIds: readonly UserId[] = [],
  ): ChatMessage {
    const { roomId, userId } = message
    const me = this.runtime.self.userId
    const marks = this.reactions.get(roomId)?.get(message.msgId)
    const name = this.nameOf(message)
    const replyTo = this.quoteOf(message, byId)
    const readBy = readerIds.map((id) => this.person(roomId, id))
    // Who is oneself is said in words.
    const idMark = userId === null || userId === me ? '' : this.members.idMark(roomId, userId, name)
    const relayedBy = message.relayedBy === null ? null : this.person(roomId, message.relayedBy)
    const rest = JSON.stringify([name, idMark, replyTo, readBy, relayedBy])
    const cached = this.made.get(message)
    if (cached?.marks === marks && cached?.rest === rest) return cached.view
    const nameOf = (id: UserId): string => (id === me ? this.runtime.self.name : this.members.nameOf(roomId, id))
    const view: ChatMessage = {
      ...pickShown(message),
      name,
      idMark,
      line: null,
      own: userId === me && message.relayedBy === null,
      relayedBy,
      replyTo,
      mentionsMe: userId !== me && this.namesMe(message.text),
      reactions: countReactions(marks, me).map(({ emoji, count, mine, userIds }) => {
        return { emoji, count, mine, names: userIds.map(nameOf).filter((each) => each !== '') }
      }),
      readBy,
    }
    this.made.set(message, { marks, rest, view })
    return view
  }
}

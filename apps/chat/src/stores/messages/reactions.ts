/** Reactions of a room: one leaf per user, plus the session lists of the original app. */
import type { ReactionValue } from '@/protocol/shapes'

interface Marks {
  /** User ids. */
  people: ReadonlySet<string>
  /** Session ids in the list of the original app. */
  sessions: readonly string[]
}

export type RoomReactions = ReadonlyMap<string, ReadonlyMap<string, Marks>>

const NONE: Marks = { people: new Set(), sessions: [] }

/** The reactions after a change. Those of other messages keep their identity. */
export function withReaction(
  reactions: RoomReactions,
  place: { msgId: string; emoji: string; userId: string | null },
  value: ReactionValue | null,
): RoomReactions {
  const { msgId, emoji, userId } = place
  const marks = reactions.get(msgId)?.get(emoji) ?? NONE
  const people = new Set(marks.people)
  let { sessions } = marks
  if (userId === null) sessions = value?.kind === 'list' ? value.sessions : []
  else if (value) people.add(userId)
  else people.delete(userId)
  const ofMessage = new Map(reactions.get(msgId))
  if (people.size + sessions.length > 0) ofMessage.set(emoji, { people, sessions })
  else ofMessage.delete(emoji)
  return new Map(reactions).set(msgId, ofMessage)
}

export interface Counted {
  emoji: string
  count: number
  mine: boolean
  userIds: readonly string[]
}

/** The reactions of a message, most frequent first. */
export function countReactions(ofMessage: ReadonlyMap<string, Marks> | undefined, me: string): Counted[] {
  return [...(ofMessage ?? [])]
    .map(([emoji, { people, sessions }]) => {
      return { emoji, count: people.size + sessions.length, mine: people.has(me), userIds: [...people] }
    })
    .sort((one, other) => other.count - one.count)
}

/**
 * Names that look alike. Anybody may take any name, so where two of them cannot be told apart, a piece of the user id is
 * shown beside them.
 */
import type { UserId } from './types'

/** Characters of a user id that tell two people with one name apart. */
const MARK_CHARS = 6
/** Names whose look is remembered; a room of a thousand asks for the same ones again and again. */
const MAX_KNOWN = 5_000

/** Letters of other alphabets and digits that look like a Latin letter, each before that letter. */
const ALIKE = 'аaвbеeкkмmнhоoрpсcтtуyхxіiјjѕsһhԁdԛqԝwαaβbεeηhιiκkμmνvοoρpτtυuχxıi0o1ili|i'
const LATIN = new Map(
  Array.from({ length: ALIKE.length / 2 }, (_, at): [string, string] => {
    return [ALIKE.charAt(2 * at), ALIKE.charAt(2 * at + 1)]
  }),
)
/** Accents, and what takes no room or turns the text around. */
const UNSEEN = /[\p{M}\p{Cf}\p{Cc}\u115f\u1160\u3164\uffa0]/gu

const known = new Map<string, string>()

/** What two names have in common that look alike at a glance. */
export function lookOf(name: string): string {
  const before = known.get(name)
  if (before !== undefined) return before
  if (known.size >= MAX_KNOWN) known.clear()
  const plain = name.normalize('NFKD').replace(UNSEEN, '').toLowerCase().trim().replace(/\s+/g, ' ')
  const look = [...plain].map((sign) => LATIN.get(sign) ?? sign).join('')
  // As they look in many fonts.
  const joined = look.replaceAll('rn', 'm').replaceAll('vv', 'w')
  known.set(name, joined)
  return joined
}

/** Who has a name that looks like this, by the look. */
export type Namesakes = ReadonlyMap<string, ReadonlySet<UserId>>

export function namesakesOf(people: Iterable<readonly [UserId, { name: string }]>): Namesakes {
  const found = new Map<string, Set<UserId>>()
  for (const [userId, { name }] of people) {
    const look = lookOf(name)
    found.set(look, (found.get(look) ?? new Set()).add(userId))
  }
  return found
}

/** What tells a user apart from others with a name that looks the same; '' where there is no other. */
export function markOf(namesakes: Namesakes, userId: UserId, name: string): string {
  for (const other of namesakes.get(lookOf(name)) ?? []) if (other !== userId) return userId.slice(0, MARK_CHARS)
  return ''
}

/** An emoji and its search words. */
export interface Emoji {
  readonly sign: string
  readonly label: string
  readonly words: string
}

export interface EmojiCategory {
  readonly key: string
  readonly label: string
  readonly emojis: readonly Emoji[]
}

interface Entry {
  readonly unicode: string
  readonly label: string
  readonly group?: number | undefined
  readonly tags?: readonly string[] | undefined
}

interface Words {
  readonly groups: readonly { readonly key: string; readonly message: string; readonly order: number }[]
}

/** The group of skin tones and hair styles, which are modifiers. */
const COMPONENTS = 'component'

type Source = () => Promise<[{ default: unknown }, { default: unknown }]>

const SOURCES: Readonly<Record<string, Source>> = {
  en: () => Promise.all([import('emojibase-data/en/compact.json'), import('emojibase-data/en/messages.json')]),
  de: () => Promise.all([import('emojibase-data/de/compact.json'), import('emojibase-data/de/messages.json')]),
}

const loaded = new Map<string, Promise<readonly EmojiCategory[]>>()

/** All emojis by category, with names in a language; English if the language is not available. */
export function loadEmojis(language: string): Promise<readonly EmojiCategory[]> {
  const source = SOURCES[language] ? language : 'en'
  const known = loaded.get(source)
  if (known) return known
  const categories = read(SOURCES[source] as Source)
  loaded.set(source, categories)
  categories.catch(() => loaded.delete(source))
  return categories
}

async function read(source: Source): Promise<readonly EmojiCategory[]> {
  const [data, words] = await source()
  const byGroup = new Map<number, Emoji[]>()
  for (const { unicode, label, group, tags = [] } of data.default as readonly Entry[]) {
    if (group === undefined) continue
    const list = byGroup.get(group) ?? []
    list.push({ sign: unicode, label, words: `${label} ${tags.join(' ')}`.toLowerCase() })
    byGroup.set(group, list)
  }
  return (words.default as Words).groups
    .filter((group) => group.key !== COMPONENTS && byGroup.has(group.order))
    .map((group) => ({ key: group.key, label: group.message, emojis: byGroup.get(group.order) ?? [] }))
}

/** The emojis that match all words of a query, at most `most`. */
export function findEmojis(categories: readonly EmojiCategory[], query: string, most: number): Emoji[] {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean)
  const found: Emoji[] = []
  for (const { emojis } of categories)
    for (const emoji of emojis) {
      if (found.length >= most) return found
      if (words.every((word) => emoji.words.includes(word))) found.push(emoji)
    }
  return found
}

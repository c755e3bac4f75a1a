/** A completion for the text at the caret. */
export interface Suggestion {
  readonly key: string
  readonly insert: string
  readonly title: string
  readonly text: string
}

/** The text to complete: a command at the beginning, or a name after `@`. */
export type Typed = { readonly kind: 'command' | 'mention'; readonly word: string; readonly from: number }

/** Finds the text to complete before the caret; null: none. */
export function typedAt(text: string, caret: number): Typed | null {
  const before = text.slice(0, caret)
  const command = /^\/([a-z]*)$/i.exec(before)
  if (command) return { kind: 'command', word: (command[1] ?? '').toLowerCase(), from: 0 }
  const mention = /(?:^|\s)@([\p{L}\p{N}_.-]*)$/u.exec(before)
  if (!mention) return null
  const word = mention[1] ?? ''
  return { kind: 'mention', word: word.toLowerCase(), from: caret - word.length - 1 }
}

/** The text with the completion inserted, and the new caret position. */
export function complete(text: string, caret: number, typed: Typed, insert: string): { text: string; caret: number } {
  const head = `${text.slice(0, typed.from)}${insert} `
  return { text: head + text.slice(caret).replace(/^ /, ''), caret: head.length }
}

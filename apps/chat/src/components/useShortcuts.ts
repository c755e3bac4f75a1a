import { onMounted, onScopeDispose } from 'vue'
import type { Messages } from '@/i18n/en'

/** Keyboard shortcuts of the chat page. `escape` returns whether it closed something. */
export interface ShortcutActions {
  help(): void
  findRoom(): void
  searchMessages(): void
  next(): void
  previous(): void
  nextUnread(): void
  compose(): void
  list(): void
  create(): void
  browse(): void
  panel(): void
  escape(): boolean
}

type Name = Exclude<keyof ShortcutActions, 'escape'>

/** The key of a shortcut's description below `shortcuts`. */
export type ShortcutLabel = keyof Messages['shortcuts']

/** The shortcuts with the keys to show. */
export const SHORTCUTS: readonly {
  readonly name: Name
  readonly keys: readonly string[]
  readonly label: ShortcutLabel
}[] = [
  { name: 'help', keys: ['?'], label: 'help' },
  { name: 'findRoom', keys: ['Ctrl', 'K'], label: 'search' },
  { name: 'searchMessages', keys: ['Ctrl', 'Shift', 'F'], label: 'searchMessages' },
  { name: 'next', keys: ['Alt', '↓'], label: 'next' },
  { name: 'previous', keys: ['Alt', '↑'], label: 'previous' },
  { name: 'nextUnread', keys: ['Alt', 'U'], label: 'nextUnread' },
  { name: 'compose', keys: ['Alt', 'C'], label: 'compose' },
  { name: 'list', keys: ['Alt', 'M'], label: 'list' },
  { name: 'create', keys: ['Alt', 'N'], label: 'newRoom' },
  { name: 'browse', keys: ['Alt', 'B'], label: 'browse' },
  { name: 'panel', keys: ['Alt', 'I'], label: 'panel' },
]

/** Alt shortcuts by `code`, because Alt produces other characters on some keyboard layouts. */
const ALT: Readonly<Record<string, Name>> = {
  ArrowDown: 'next',
  ArrowUp: 'previous',
  KeyU: 'nextUnread',
  KeyC: 'compose',
  KeyM: 'list',
  KeyN: 'create',
  KeyB: 'browse',
  KeyI: 'panel',
}

const isText = (target: EventTarget | null): boolean =>
  target instanceof HTMLElement && (target.isContentEditable || /^(input|textarea|select)$/i.test(target.tagName))

/** Whether a key press is the beginning of a text, and no field takes it. */
export const isWriting = ({ key, ctrlKey, altKey, metaKey, target }: KeyboardEvent): boolean =>
  [...key].length === 1 && key !== ' ' && !ctrlKey && !altKey && !metaKey && !isText(target)

/** The shortcut for a key press; null: none. */
export function shortcutOf(event: KeyboardEvent): Name | null {
  const command = event.ctrlKey || event.metaKey
  if (command && !event.altKey && event.code === 'KeyK' && !event.shiftKey) return 'findRoom'
  if (command && !event.altKey && event.code === 'KeyF' && event.shiftKey) return 'searchMessages'
  if (event.altKey && !command && !event.shiftKey) return ALT[event.code] ?? null
  if (event.key === '?' && !command && !event.altKey && !isText(event.target)) return 'help'
  return null
}

/** Handles shortcuts while the component is mounted and no dialog is open. */
export function useShortcuts(actions: ShortcutActions): void {
  function onKey(event: KeyboardEvent): void {
    if (event.defaultPrevented || event.isComposing) return
    if (document.querySelector('[role="dialog"], [role="alertdialog"], [role="menu"]')) return
    if (event.key === 'Escape') {
      if (actions.escape()) event.preventDefault()
      return
    }
    const name = shortcutOf(event)
    // What is typed goes into the message: the field takes the key that the focus arrives with.
    if (!name && isWriting(event)) actions.compose()
    if (!name) return
    event.preventDefault()
    actions[name]()
  }
  onMounted(() => window.addEventListener('keydown', onKey))
  onScopeDispose(() => window.removeEventListener('keydown', onKey))
}

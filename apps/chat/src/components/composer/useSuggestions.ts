import { computed, ref, watch, type Ref } from 'vue'
import { useMembersStore, useMessagesStore, type RoomId } from '@/stores'
import { typedAt, type Suggestion } from './completion'

const MOST_PEOPLE = 6

/** Completions for commands and names, and their keyboard control. */
export function useSuggestions(roomId: () => RoomId, text: Ref<string>, caret: Ref<number>) {
  const members = useMembersStore()
  const messages = useMessagesStore()
  const chosen = ref(0)
  const dismissed = ref(false)

  const typed = computed(() => (dismissed.value ? null : typedAt(text.value, caret.value)))
  const suggestions = computed<Suggestion[]>(() => {
    const word = typed.value?.word ?? ''
    if (typed.value?.kind === 'command')
      return messages.commands
        .filter((command) => command.name.startsWith(word))
        .map(({ name, usage }) => ({ key: name, insert: `/${name}`, title: `/${name}`, text: usage }))
    if (typed.value?.kind === 'mention')
      return members
        .present(roomId())
        .filter((member) => !member.self && member.name.toLowerCase().includes(word))
        .slice(0, MOST_PEOPLE)
        .map(({ userId, name }) => ({ key: userId, insert: `@${name}`, title: name, text: '' }))
    return []
  })
  watch(suggestions, () => (chosen.value = 0))

  /** Handles a key press while the list is open; false: not handled. */
  function steer(event: KeyboardEvent, take: (suggestion: Suggestion) => void): boolean {
    const count = suggestions.value.length
    const suggestion = suggestions.value[chosen.value]
    if (!suggestion) return false
    // Enter sends a command that is complete.
    const whole = event.key === 'Enter' && suggestion.insert === text.value
    if (event.key === 'ArrowDown') chosen.value = (chosen.value + 1) % count
    else if (event.key === 'ArrowUp') chosen.value = (chosen.value - 1 + count) % count
    else if (event.key === 'Escape') dismissed.value = true
    else if ((event.key === 'Tab' || (event.key === 'Enter' && !whole)) && !event.shiftKey) take(suggestion)
    else return false
    event.preventDefault()
    return true
  }

  return { typed, suggestions, chosen, dismissed, steer }
}

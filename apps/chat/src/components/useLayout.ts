import { onScopeDispose, ref, type Ref } from 'vue'

/** Whether a media query matches, updated on changes. */
export function useMedia(query: string): Ref<boolean> {
  const list = window.matchMedia(query)
  const holds = ref(list.matches)
  const update = (): void => {
    holds.value = list.matches
  }
  list.addEventListener('change', update)
  onScopeDispose(() => list.removeEventListener('change', update))
  return holds
}

/** The room list is a drawer. */
export const useNarrow = (): Ref<boolean> => useMedia('(max-width: 47.99rem)')

/** The room details are a drawer. */
export const useMedium = (): Ref<boolean> => useMedia('(max-width: 68.99rem)')

import { onScopeDispose, ref, type Ref } from 'vue'

const SHOWN_MS = 2000

/** Copies a text, and says for a moment that it was; where the browser refuses, nothing is said. */
export function useCopy(): { copied: Ref<boolean>; copy: (text: string) => Promise<void> } {
  const copied = ref(false)
  let timer = 0
  onScopeDispose(() => window.clearTimeout(timer))

  async function copy(text: string): Promise<void> {
    try {
      await navigator.clipboard.writeText(text)
    } catch {
      // Not allowed here: the text stands in a field from where it can be taken by hand.
      return
    }
    copied.value = true
    window.clearTimeout(timer)
    timer = window.setTimeout(() => (copied.value = false), SHOWN_MS)
  }

  return { copied, copy }
}

import { onScopeDispose, ref, type Ref } from 'vue'

const SHOWN_MS = 2000

/** Copies a text to the clipboard; `copied` is true for a moment afterwards. */
export function useCopy(): { copied: Ref<boolean>; copy: (text: string) => Promise<void> } {
  const copied = ref(false)
  let timer = 0
  onScopeDispose(() => window.clearTimeout(timer))

  async function copy(text: string): Promise<void> {
    try {
      await navigator.clipboard.writeText(text)
    } catch {
      // Clipboard access refused: the text can be selected and copied by hand.
      return
    }
    copied.value = true
    window.clearTimeout(timer)
    timer = window.setTimeout(() => (copied.value = false), SHOWN_MS)
  }

  return { copied, copy }
}

import { shallowRef } from 'vue'

/** The renderer, once it has been loaded. */
export const loadedRenderer = shallowRef<((text: string) => DocumentFragment) | null>(null)

let loading: Promise<void> | null = null

/** Loads the renderer with the first message that needs it. */
export function loadRenderer(): Promise<void> {
  loading ??= import('./markdown').then(
    (module) => {
      loadedRenderer.value = module.render
    },
    () => {
      // Not there, e.g. offline before it was ever stored: the text is shown as written, the next message tries again.
      loading = null
    },
  )
  return loading
}

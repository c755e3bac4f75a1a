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
      // Loading failed, e.g. offline before it was cached: show the text as written, and retry with the next message.
      loading = null
    },
  )
  return loading
}

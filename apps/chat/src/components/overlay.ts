import { defineStore } from 'pinia'
import { computed, ref, shallowRef } from 'vue'
import type { ChatMessage, RoomId, UserId } from '@/stores'

/** Dialogs over the page; only the newest one is shown. */
export type Overlay =
  | { readonly kind: 'create'; readonly namespace?: string }
  | { readonly kind: 'browse'; readonly path?: string }
  | { readonly kind: 'join'; readonly roomId: RoomId; readonly invited: boolean }
  | { readonly kind: 'invite'; readonly roomId: RoomId }
  | { readonly kind: 'group'; readonly path: string | null }
  | { readonly kind: 'friends' }
  | { readonly kind: 'profile'; readonly userId: UserId; readonly roomId: RoomId | null }
  | { readonly kind: 'safety'; readonly userId: UserId; readonly roomId: RoomId; readonly name: string }
  | { readonly kind: 'settings' }
  | { readonly kind: 'shortcuts' }
  | { readonly kind: 'search'; readonly roomId: RoomId | null }
  | { readonly kind: 'viewer'; readonly message: ChatMessage }
  | { readonly kind: 'report'; readonly message: ChatMessage }
  | {
      readonly kind: 'confirm'
      readonly title: string
      readonly text: string
      readonly action: string
      readonly run: () => Promise<unknown>
    }

/** Open dialogs and drawers, and the elements that get the focus back when they close. */
export const useOverlayStore = defineStore('overlay', () => {
  const stack = shallowRef<readonly Overlay[]>([])
  const sidebarOpen = ref(false)
  const panelOpen = ref(false)
  const origins: (Element | null)[] = []
  /** The element that has got the focus back from the last dialog. */
  const returnedTo = shallowRef<Element | null>(null)

  function open(overlay: Overlay): void {
    origins.push(document.activeElement)
    stack.value = [...stack.value, overlay]
  }

  /** Replaces the open dialog. */
  function replace(overlay: Overlay): void {
    if (!stack.value.length) open(overlay)
    else stack.value = [...stack.value.slice(0, -1), overlay]
  }

  function close(): void {
    if (!stack.value.length) return
    stack.value = stack.value.slice(0, -1)
    const origin = origins.pop()
    // After the dialog's own cleanup, which would leave the focus on the body.
    window.setTimeout(() => {
      returnedTo.value = origin ?? null
      if (origin instanceof HTMLElement && origin.isConnected) origin.focus()
    }, 0)
  }

  function closeAll(): void {
    while (stack.value.length) close()
  }

  const current = computed(() => stack.value.at(-1) ?? null)
  return { current, sidebarOpen, panelOpen, returnedTo, open, replace, close, closeAll }
})

import { computed, onScopeDispose, ref, shallowRef, type ComputedRef, type Ref, type ShallowRef } from 'vue'
import { errorText } from '@/components/ui/errors'
import type { Page } from '../shapes'
import { useI18n } from '../i18n'

export interface Loading<T> {
  /** null until it is there. */
  readonly value: ShallowRef<T | null>
  readonly busy: Ref<boolean>
  /** '' where nothing went wrong. */
  readonly failure: Ref<string>
  load(): Promise<void>
}

/** What a page reads from the relay. A newer call takes the place of one that is not answered yet. */
export function useLoad<T>(read: () => Promise<T>): Loading<T> {
  const { t } = useI18n()
  const value = shallowRef<T | null>(null)
  const busy = ref(false)
  const failure = ref('')
  let calls = 0

  async function load(): Promise<void> {
    const call = ++calls
    busy.value = true
    try {
      const result = await read()
      if (call !== calls) return
      value.value = result
      failure.value = ''
    } catch (error) {
      if (call === calls) failure.value = errorText(t, error)
    } finally {
      if (call === calls) busy.value = false
    }
  }

  return { value, busy, failure, load }
}

export interface Pages<T> extends Omit<Loading<never>, 'value'> {
  /** null until the first part is there. */
  readonly items: ComputedRef<readonly T[] | null>
  /** Whether there are more. */
  readonly more: ComputedRef<boolean>
  next(): Promise<void>
}

/** A list that comes in parts. */
export function usePages<T>(read: (after: string | null) => Promise<Page<T>>): Pages<T> {
  let goesOn = false
  const loading: Loading<Page<T>> = useLoad(readOn)
  const { value, busy, failure, load } = loading

  async function readOn(): Promise<Page<T>> {
    const before = goesOn ? loading.value.value : null
    const { items, next } = await read(before?.next ?? null)
    return { items: [...(before?.items ?? []), ...items], next }
  }

  return {
    busy,
    failure,
    items: computed(() => value.value?.items ?? null),
    more: computed(() => (value.value?.next ?? null) !== null),
    load() {
      goesOn = false
      return load()
    },
    next() {
      goesOn = true
      return load()
    },
  }
}

/** Calls again and again while the page is open and visible, never twice at the same time. */
export function usePolling(everyMs: number, poll: () => Promise<unknown>): void {
  let timer = 0
  let stopped = false
  async function turn(): Promise<void> {
    if (!document.hidden) await poll()
    if (!stopped) timer = window.setTimeout(() => void turn(), everyMs)
  }
  void turn()
  onScopeDispose(() => {
    stopped = true
    window.clearTimeout(timer)
  })
}

import { onScopeDispose, ref, type Ref } from 'vue'
import { waitOf } from './ui/errors'

/** Counts down the seconds until the next attempt is allowed. */
export function useWait(): { seconds: Ref<number>; start: (error: unknown) => void } {
  const seconds = ref(0)
  let timer = 0

  function start(error: unknown): void {
    window.clearInterval(timer)
    seconds.value = Math.ceil(waitOf(error))
    if (seconds.value <= 0) return
    timer = window.setInterval(() => {
      seconds.value -= 1
      if (seconds.value <= 0) window.clearInterval(timer)
    }, 1000)
  }

  onScopeDispose(() => window.clearInterval(timer))
  return { seconds, start }
}

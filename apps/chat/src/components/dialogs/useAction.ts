import { ref, type Ref } from 'vue'
import { useI18n } from '@/i18n'
import { errorText } from '@/components/ui/errors'

/** Runs the action of a form, with its busy state and its error text. */
export function useAction(): {
  busy: Ref<boolean>
  failure: Ref<string>
  run: (action: () => Promise<unknown>) => Promise<boolean>
} {
  const { t } = useI18n()
  const busy = ref(false)
  const failure = ref('')

  async function run(action: () => Promise<unknown>): Promise<boolean> {
    if (busy.value) return false
    busy.value = true
    failure.value = ''
    try {
      await action()
      return true
    } catch (error) {
      failure.value = errorText(t, error)
      return false
    } finally {
      busy.value = false
    }
  }

  return { busy, failure, run }
}

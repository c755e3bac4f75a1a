import { computed } from 'vue'
import { useI18n } from '@/i18n'

/** The local calendar day of a time, as a key. */
export function dayOf(timestamp: number): string {
  const date = new Date(timestamp)
  return `${date.getFullYear()}-${date.getMonth()}-${date.getDate()}`
}

const DAY_MS = 86_400_000

/** Dates and times in the language of the interface. */
export function useDates() {
  const { locale, t } = useI18n()
  const clock = computed(() => new Intl.DateTimeFormat(locale.value, { hour: '2-digit', minute: '2-digit' }))
  const date = computed(() => new Intl.DateTimeFormat(locale.value, { dateStyle: 'full' }))
  const both = computed(() => new Intl.DateTimeFormat(locale.value, { dateStyle: 'medium', timeStyle: 'short' }))

  function day(timestamp: number): string {
    const key = dayOf(timestamp)
    if (key === dayOf(Date.now())) return t('time.today')
    if (key === dayOf(Date.now() - DAY_MS)) return t('time.yesterday')
    return date.value.format(timestamp)
  }

  return {
    day,
    time: (timestamp: number): string => clock.value.format(timestamp),
    full: (timestamp: number): string => both.value.format(timestamp),
    iso: (timestamp: number): string => new Date(timestamp).toISOString(),
  }
}

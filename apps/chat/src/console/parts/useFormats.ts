import { computed } from 'vue'
import { useI18n } from '../i18n'

const UNITS = ['B', 'kB', 'MB', 'GB', 'TB']
const MINUTE_S = 60

/** Numbers, sizes and times in the language of the interface. Times are Unix seconds. */
export function useFormats() {
  const { locale, t } = useI18n()
  const whole = computed(() => new Intl.NumberFormat(locale.value, { maximumFractionDigits: 0 }))
  const short = computed(() => new Intl.NumberFormat(locale.value, { maximumSignificantDigits: 4 }))
  const moment = computed(() => new Intl.DateTimeFormat(locale.value, { dateStyle: 'medium', timeStyle: 'medium' }))
  const clock = computed(() => new Intl.DateTimeFormat(locale.value, { timeStyle: 'medium' }))

  function bytes(count: number): string {
    let size = count
    let unit = 0
    for (; size >= 1000 && unit < UNITS.length - 1; unit++) size /= 1000
    return `${short.value.format(size)}\u00a0${UNITS[unit]}`
  }

  function span(seconds: number): string {
    const rounded = Math.max(0, Math.round(seconds))
    if (rounded < 2 * MINUTE_S) return t('console.units.seconds', { count: rounded })
    const minutes = Math.round(rounded / MINUTE_S)
    if (minutes < 120) return t('console.units.minutes', { count: minutes })
    const hours = Math.round(minutes / 60)
    return hours < 48
      ? t('console.units.hours', { count: hours })
      : t('console.units.days', { count: Math.round(hours / 24) })
  }

  return {
    count: (value: number): string => whole.value.format(value),
    number: (value: number): string => short.value.format(value),
    bytes,
    span,
    at: (seconds: number): string => moment.value.format(seconds * 1000),
    time: (seconds: number): string => clock.value.format(seconds * 1000),
  }
}

/** Sizes and times of files in words. */

const UNITS = ['B', 'kB', 'MB', 'GB'] as const

/** `3.4 MB`, in the language of the page. */
export function sizeText(bytes: number, locale?: string): string {
  const unit = Math.min(UNITS.length - 1, bytes < 1000 ? 0 : Math.floor(Math.log10(bytes) / 3))
  const digits = unit === 0 ? 0 : 1
  return `${(bytes / 1000 ** unit).toLocaleString(locale, { maximumFractionDigits: digits })} ${UNITS[unit]}`
}

/** `1:05` */
export function timeText(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds))
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, '0')}`
}

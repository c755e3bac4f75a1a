import type { Translate } from '@/i18n'
import { failureText, isFailure } from '@/i18n/failures'
import type { ActionErrorKind, Notice } from '@/stores'

/** The kind of a failure that a store reported; null for any other error. */
export const kindOf = (error: unknown): ActionErrorKind | null => (isFailure(error) ? error.kind : null)

/** How long to wait before the next attempt, in seconds; 0: no wait. */
export const waitOf = (error: unknown): number => (isFailure(error) ? (error.retryAfterS ?? 0) : 0)

function quoted(t: Translate, text: string, quote: string): string {
  return quote ? `${text} ${t('errors.detail', { detail: quote })}` : text
}

/** A failure in the language of the interface. */
export function errorText(t: Translate, error: unknown): string {
  const { key, params, quote } = failureText(error)
  return quoted(t, t(key, params), quote)
}

/** A notice in the language of the interface. */
export const noticeText = (t: Translate, { key, params, quote }: Pick<Notice, 'key' | 'params' | 'quote'>): string =>
  quoted(t, t(key, params), quote)

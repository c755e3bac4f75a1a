import type { ActionErrorKind, ActionFailure, Notice } from '@/stores'

/** `t` of vue-i18n, as far as it is needed here. */
export type Translate = (key: string, named: Record<string, unknown>) => string

const KINDS: ReadonlySet<string> = new Set<ActionErrorKind>([
  'offline',
  'network',
  'credentials',
  'nameTaken',
  'identityTaken',
  'invalid',
  'tooMany',
  'signedOut',
  'forbidden',
  'wrongPassword',
  'banned',
  'missing',
  'tooLarge',
  'waitingForKey',
  'conflict',
  'timeout',
  'server',
])

/** The kind of a failure that a store reported; null: it is none of theirs. */
export function kindOf(error: unknown): ActionErrorKind | null {
  const kind = (error as Partial<ActionFailure> | null)?.kind
  return typeof kind === 'string' && KINDS.has(kind) ? (kind as ActionErrorKind) : null
}

/** How long a failure asks one to wait, in seconds; 0: not at all. */
export const waitOf = (error: unknown): number => (error as Partial<ActionFailure> | null)?.retryAfterS ?? 0

/** A failure in words of the reader's language. */
export function errorText(t: Translate, error: unknown): string {
  const kind = kindOf(error)
  if (!kind) return t('errors.unexpected', {})
  return t(`errors.${kind}`, { detail: (error as Error).message, seconds: waitOf(error) || '?' })
}

/** A notice in words, with the server's own sentence where there is one and ours does not hold it already. */
export function noticeText(t: Translate, notice: Pick<Notice, 'key' | 'params'>): string {
  const text = t(notice.key, notice.params)
  const detail = notice.params['detail']
  if (typeof detail !== 'string' || !detail || text.includes(detail)) return text
  return `${text} ${t('errors.detail', { detail })}`
}

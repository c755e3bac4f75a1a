/** How failures are put into words, for toasts, forms and failed messages alike. */
import type { FailureKind, FailureReason } from '@/protocol/errors'
import type { MessageKey } from './en'

/** What is translated about a failure; {@link Failure} and what is stored of one have this shape. */
export interface FailureWords {
  readonly kind: FailureKind
  readonly reason: FailureReason | null
  readonly detail: string
  readonly retryAfterS?: number | null
}

const KINDS: ReadonlySet<string> = new Set<FailureKind>([
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
  'storage',
  'server',
])
/** For these the app's own sentence says too little: the server's is quoted behind it. */
const QUOTED: ReadonlySet<FailureKind> = new Set<FailureKind>(['invalid', 'forbidden', 'conflict', 'server'])

export const isFailure = (error: unknown): error is FailureWords =>
  typeof error === 'object' && error !== null && 'kind' in error && KINDS.has(String(error.kind))

/** The text for an error, and the sentence of the server to quote behind it ('': none). */
export function failureText(error: unknown): {
  key: MessageKey
  params: Readonly<Record<string, string | number>>
  quote: string
} {
  if (!isFailure(error)) return { key: 'errors.unexpected', params: {}, quote: '' }
  const { kind, reason, detail, retryAfterS } = error
  if (kind === 'tooMany' && !reason && !retryAfterS) return { key: 'errors.tooManySoon', params: {}, quote: '' }
  const key: MessageKey = reason ? `reasons.${reason}` : `errors.${kind}`
  return { key, params: { seconds: retryAfterS ?? 0 }, quote: !reason && QUOTED.has(kind) ? detail : '' }
}

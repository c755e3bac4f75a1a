/** What can go wrong, by what one can do about it. Stores and components switch on `kind`, never on texts. */
export type FailureKind =
  | 'offline'
  | 'network'
  | 'credentials'
  | 'nameTaken'
  | 'identityTaken'
  | 'invalid'
  | 'tooMany'
  | 'signedOut'
  | 'forbidden'
  | 'wrongPassword'
  | 'banned'
  | 'missing'
  | 'tooLarge'
  | 'waitingForKey'
  | 'conflict'
  | 'timeout'
  | 'server'

/** A refused or failed action, with the server's own sentence as its message. */
export class Failure extends Error {
  override readonly name = 'Failure'

  constructor(
    readonly kind: FailureKind,
    message: string,
    readonly retryAfterS: number | null = null,
  ) {
    super(message)
  }
}

const KIND_BY_CODE: Readonly<Record<number, FailureKind>> = {
  200: 'invalid',
  201: 'missing',
  202: 'invalid',
  300: 'signedOut',
  301: 'forbidden',
  302: 'signedOut',
  400: 'conflict',
  401: 'conflict',
  402: 'tooLarge',
  403: 'forbidden',
  404: 'missing',
  429: 'tooMany',
}

/** The code of an ERROR by which the relay says that it was too much at once. */
export const RATE_LIMITED = 429

/** Says an ERROR of the relay as a {@link Failure}. */
export const failureOf = (code: number, message: string): Failure =>
  new Failure(KIND_BY_CODE[code] ?? 'server', message)

/** Whether the relay refuses the session itself, not something in it. */
export const endsSession = (code: number): boolean => code === 300 || code === 302

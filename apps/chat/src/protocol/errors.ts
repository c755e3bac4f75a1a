/** Failed actions, by what the caller can do about them. Stores and components switch on `kind`, never on texts. */
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
  | 'storage'
  | 'server'

/** Why the app itself refuses an input, before anything is sent. */
export type FailureReason =
  | 'nameNeeded'
  | 'roomName'
  | 'roomId'
  | 'groupPath'
  | 'groupExists'
  | 'emptyMessage'
  | 'messageTooLong'
  | 'notAnImage'
  | 'imageTooLarge'
  | 'notAnEmoji'
  | 'friendIsSelf'
  | 'friendsOnly'
  | 'requestTooLong'
  | 'fileTooLarge'
  | 'notAnExport'
  | 'notAPhrase'
  | 'otherPhrase'
  | 'noBackup'
  | 'wrongCode'
  | 'linkOver'
  | 'deviceDenied'
  | 'deviceMissing'
  | 'deviceBusy'
  | 'callFull'
  | 'noFiles'
  | 'emptyFile'
  | 'fileTooBig'
  | 'filesFull'
  | 'relayFull'
  | 'fileGone'
  | 'fileDamaged'
  | 'noMicrophone'

interface FailureOptions {
  reason?: FailureReason
  /** The server's own sentence. */
  detail?: string
  retryAfterS?: number | null
}

/**
 * A refused or failed action. The interface translates `kind` and `reason`; `message` is English and for developers;
 * `detail` is what the server said about it, '' if the failure did not come from the server.
 */
export class Failure extends Error {
  override readonly name = 'Failure'
  readonly reason: FailureReason | null
  readonly detail: string
  readonly retryAfterS: number | null

  constructor(
    readonly kind: FailureKind,
    message: string,
    { reason, detail = '', retryAfterS = null }: FailureOptions = {},
  ) {
    super(message)
    this.reason = reason ?? null
    this.detail = detail
    this.retryAfterS = retryAfterS
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

/** The ERROR code of a rate limit. */
export const RATE_LIMITED = 429

/** The {@link Failure} for an ERROR message of the relay. */
export const failureOf = (code: number, message: string): Failure =>
  new Failure(KIND_BY_CODE[code] ?? 'server', message, { detail: message })

/** Whether an ERROR refuses the whole session: its token is invalid or expired. */
export const endsSession = (code: number): boolean => code === 300 || code === 302

/** What the relay's API for administrators answers with (docs/openapi.yaml). Times are Unix seconds. */

/** A value as JSON: bytes are `{"$bytes": base64}`. */
export type JsonValue = unknown

export interface ConsoleGrant {
  readonly token: string
  readonly username: string
}

export interface Who {
  readonly username: string
  readonly userId: string
  /** The relay's own admin token, which belongs to nobody. */
  readonly isToken: boolean
  readonly expiresAt: number | null
}

export interface Page<T> {
  readonly items: T[]
  readonly next: string | null
}

export interface Overview {
  readonly name: string
  readonly version: string
  readonly started_at: number
  readonly now: number
  readonly users: number
  readonly disabled: number
  readonly sessions: number
  readonly connections: number
  readonly params: number
  readonly state_bytes: number
  readonly subscriptions: number
  readonly open_reports: number
  /** Which relay of a cluster answers; null where there is one. */
  readonly cluster: { readonly relay: string; readonly role: string } | null
}

export interface Person {
  readonly user_id: string
  readonly username: string
  readonly kind: 'user' | 'guest'
  readonly admin: boolean
  readonly disabled: boolean
  readonly created_at: number
  readonly last_seen: number | null
  readonly sessions: number
  readonly sign_ins: number
  readonly params: number
  readonly bytes: number
  readonly files: number | null
  readonly file_bytes: number | null
}

export interface Device {
  readonly id: string
  readonly device: string
  readonly created_at: number
  readonly last_seen: number
}

export interface PersonDetails extends Person {
  readonly devices: readonly Device[]
}

export interface ResetLink {
  readonly path: string
  readonly secret: string
  readonly expires_at: number
}

export type RegistrationMode = 'open' | 'invite' | 'closed'

export interface Registration {
  readonly registration: RegistrationMode
  readonly guests: boolean
  /** `option`: as the relay was started. */
  readonly source: 'option' | 'console'
}

export interface Invite {
  readonly id: string
  readonly uses_left: number
  readonly created_at: number
  readonly expires_at: number | null
}

export interface NewInvite extends Invite {
  readonly invite: string
}

export interface Room {
  readonly room_id: string
  readonly name: string | null
  readonly creator_id: string | null
  readonly is_public: boolean
  readonly is_dm: boolean
  readonly has_password: boolean
  readonly is_encrypted: boolean
  readonly members: number
  readonly present: number
  readonly banned: number
  readonly params: number
  readonly bytes: number
  readonly history: { readonly entries: number; readonly bytes: number } | null
}

export interface RoomPerson {
  readonly user_id: string
  readonly name: string | null
  readonly role: 'creator' | 'admin' | 'member'
  readonly member: boolean
  readonly present: boolean
}

export interface RoomDetails extends Room {
  readonly meta: JsonValue
  readonly people: readonly RoomPerson[]
  readonly bans: readonly { readonly user_id: string; readonly value: JsonValue }[]
}

export interface Report {
  readonly id: string
  readonly room_id: string
  readonly message: JsonValue
  readonly reason: string | null
  readonly reporter: string
  readonly reporter_name: string | null
  readonly created_at: number
  readonly resolved: { readonly at: number; readonly by: string; readonly note: string | null } | null
}

/** A message, or an edit of it, as the relay's history has it. */
export interface KeptMessage {
  /** The relay's word. */
  readonly author: string
  readonly at_s: number
  /** null: encrypted. */
  readonly text: string | null
  readonly has_attachment: boolean
}

export interface KeptMessages {
  readonly state: 'kept' | 'missing' | 'off'
  /** The message, then its edits. */
  readonly messages: readonly KeptMessage[]
  /** null: nothing to compare. */
  readonly same_author: boolean | null
  readonly same_text: boolean | null
}

/** What becomes of the messages of somebody who is deleted. */
export type Messages = 'keep' | 'erase'

export interface Deletion {
  /** Otherwise the rest is done later. */
  readonly finished: boolean
}

export interface AuditEntry {
  readonly seq: number
  readonly at: number
  readonly action: string
  readonly outcome: string
  readonly actor: string
  readonly actor_name: string
  readonly target: string
  readonly address: string
  readonly detail: Readonly<Record<string, unknown>>
}

export interface OpenSession {
  readonly id: string
  readonly subject: string
  readonly username: string | null
  readonly address: string
  readonly client: string
  readonly door: string
  readonly connected_at: number
  readonly subscriptions: number
  readonly received: number
  readonly errors: number
  readonly rate: number
  readonly backlog_bytes: number
  readonly kept_bytes: number
}

export interface SessionDetails extends OpenSession {
  readonly patterns: readonly {
    readonly id: number
    readonly pattern: string
    readonly max_rate: number | null
    readonly epsilon: number | null
  }[]
}

export interface Door {
  readonly door: string
  readonly clients: number
  readonly messages: number
  readonly refused: number
  readonly connected: readonly OpenSession[]
}

export interface Metric {
  readonly name: string
  readonly type: 'counter' | 'gauge' | 'histogram'
  readonly help: string
  readonly samples: readonly {
    readonly name: string
    readonly labels: Readonly<Record<string, string>>
    readonly value: number
  }[]
}

export interface Metrics {
  readonly at: number
  readonly metrics: readonly Metric[]
}

export interface Explanation {
  readonly allowed: boolean
  readonly lines: readonly string[]
}

export interface LogLine {
  readonly seq: number
  readonly at: number
  readonly level: 'debug' | 'info' | 'warn' | 'error' | 'critical'
  readonly part: string
  readonly line: string
}

export interface ParamDetails {
  readonly address: string
  readonly value: JsonValue
  readonly revision: number
  /** Microseconds. */
  readonly timestamp: number
  readonly writer: string | null
  readonly type: string
  readonly subject: string | null
  readonly expires_at: number | null
  readonly locked_by: string | null
  readonly bytes: number
}

/** An entry of history. `timestamp` in microseconds. */
export interface HistoryEntry {
  readonly seq: number
  readonly timestamp: number
  readonly author: string
  readonly address: string
  readonly signal_type: string
  readonly value: JsonValue
  readonly revision: number | null
}

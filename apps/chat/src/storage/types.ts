/** The records in the storage. */
import type { FailureKind, FailureReason } from '@/protocol/errors'
import type { FileInfo, Quote, RoomMessage, RoomMeta } from '@/protocol/shapes'

/**
 * What is known about who wrote an event.
 *
 * `pending`: not checked yet; `verified`: signed by a device of the account, or with the original's key;
 * `unverified`: it has a signature, which does not verify; `unsigned`: it has none;
 * `denied`: another member handed it on without a signature that verifies, although its author's devices sign.
 */
export type Proof = 'pending' | 'verified' | 'unverified' | 'unsigned' | 'denied'

/** An event of a room's log. The event itself never changes; what is found out about it is beside it. */
export interface StoredEvent {
  roomId: string
  /** The id of the message that it is, or changes. */
  target: string
  /** Hash of the event. */
  id: string
  event: RoomMessage
  /** When the relay accepted it, by the relay's clock, ms; of an event that was handed on, the time that it claims. */
  at: number
  /** The relay itself said when; otherwise `at` is the relay's time at which it arrived here. */
  dated?: true
  /** `own`: written here; `live`: from the relay, which knows its author; `shared`: handed on by a member. */
  via: 'own' | 'live' | 'shared'
  sharedBy: string | null
  /** Its author was the creator or an admin when it arrived. */
  moderator: boolean
  secrecy: 'plain' | 'encrypted' | 'exposed'
  /** The content of an encrypted event once a key has decrypted it; null: not yet, or not encrypted. */
  content: { text: string; image: string | null; alt: string; file?: FileInfo } | null
  proof: Proof
}

/** A message as it is shown: the projection of the events about it, or an own message that is not sent yet. */
export interface StoredMessage {
  roomId: string
  msgId: string
  userId: string | null
  sessionId: string
  name: string
  color: string
  kind: 'text' | 'image'
  text: string
  image: string | null
  alt: string
  /** When the relay accepted it, ms, which is its place in the timeline: clocks of senders may be wrong. */
  file?: FileInfo
  timestamp: number
  /** What its sender's clock said, ms; absent where that is the same, or more than five minutes off. */
  writtenAt?: number
  replyTo: Quote | null
  edited: boolean
  deleted: boolean
  /** Edited or deleted by a client that proved only its session id. */
  unproven: boolean
  delivery: 'queued' | 'waiting' | 'sent' | 'confirmed' | 'failed'
  /** Why it was not sent. */
  failure: { kind: FailureKind; reason: FailureReason | null; detail: string } | null
  secrecy: 'plain' | 'encrypted' | 'unreadable' | 'exposed'
  verification: 'unsigned' | 'pending' | 'verified' | 'unverified'
  /** User id of the member who handed it on without proof of its author; null: its author is known. */
  relayedBy: string | null
}

export interface StoredRoom {
  id: string
  joined: boolean
  muted: boolean
  /** The last known meta, so that the room has a name offline. */
  meta: RoomMeta | null
  joinedAt: number
  lastReadMs: number
  lastActivityMs: number
  /** In a direct message: the name of the other user. */
  peerName: string
}

export interface StoredDraft {
  roomId: string
  text: string
  replyTo: string | null
  image: { dataUrl: string; alt: string } | null
  edit: { msgId: string; text: string } | null
}

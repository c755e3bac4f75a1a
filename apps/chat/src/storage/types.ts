/** What this browser keeps. */
import type { FailureKind, FailureReason } from '@/protocol/errors'
import type { ChangeMessage, Quote, RoomMeta, Sealed } from '@/protocol/shapes'

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
  timestamp: number
  replyTo: Quote | null
  edited: boolean
  deleted: boolean
  /** Edited or deleted by who proved only the session, not the person. */
  unproven: boolean
  delivery: 'queued' | 'waiting' | 'sent' | 'confirmed' | 'failed'
  /** Why it was not sent. */
  failure: { kind: FailureKind; reason: FailureReason | null; detail: string } | null
  secrecy: 'plain' | 'encrypted' | 'unreadable' | 'exposed'
  verification: 'unsigned' | 'pending' | 'verified' | 'forged'
  /** User id of the member who shared it as history; null: received from its author. */
  relayedBy: string | null
  /** The ciphertexts, kept until they can be read. */
  sealed: { text: Sealed; image: Sealed | null; alt: Sealed | null; keyId: string | null } | null
  /** What to verify: the signature, the text under it, and the time that its sender wrote. */
  signature: { text: string; value: string; timestamp: number } | null
  /** The last edit or delete, where it is signed: with it, members who were away can check it. */
  change: ChangeMessage | null
}

export interface StoredRoom {
  id: string
  joined: boolean
  muted: boolean
  /** The last meta seen, so that the room has a name offline. */
  meta: RoomMeta | null
  joinedAt: number
  lastReadMs: number
  lastActivityMs: number
  /** The name of the other one, in a direct message. */
  peerName: string
}

export interface StoredDraft {
  roomId: string
  text: string
  replyTo: string | null
  image: { dataUrl: string; alt: string } | null
  edit: { msgId: string; text: string } | null
}

/** The records in the storage. */
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
  /** Edited or deleted by a client that proved only its session id. */
  unproven: boolean
  delivery: 'queued' | 'waiting' | 'sent' | 'confirmed' | 'failed'
  /** Why it was not sent. */
  failure: { kind: FailureKind; reason: FailureReason | null; detail: string } | null
  secrecy: 'plain' | 'encrypted' | 'unreadable' | 'exposed'
  verification: 'unsigned' | 'pending' | 'verified' | 'forged'
  /** User id of the member who shared it as history; null: received from its author. */
  relayedBy: string | null
  /** The ciphertexts, kept until a key decrypts them. */
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

/**
 * Events for messages that are known only as rows: those of an imported file, and those that version 1 of the database
 * stored. Their projection is the row again.
 */
import type { RoomMessage, Sealed, TextMessage } from '@/protocol/shapes'
import type { Proof, StoredEvent, StoredMessage } from './types'

/** What rows of version 1 have in addition. */
export interface RowV1 extends Omit<StoredMessage, 'verification'> {
  verification: StoredMessage['verification'] | 'forged'
  sealed?: { text: Sealed; image: Sealed | null; alt: Sealed | null; keyId: string | null } | null
  signature?: { text: string; value: string; timestamp: number } | null
  change?: { timestamp: number } | null
}

const PROOFS: Readonly<Record<RowV1['verification'], Proof>> = {
  unsigned: 'unsigned',
  // Its signature is gone with the row.
  pending: 'unsigned',
  verified: 'verified',
  unverified: 'unverified',
  forged: 'unverified',
}

function textOf(row: RowV1): TextMessage {
  const { msgId, userId, sessionId, name, color, kind, text, image, alt, timestamp, replyTo, sealed } = row
  return {
    kind: 'message',
    type: kind,
    msgId,
    userId,
    fromId: sessionId,
    from: name,
    avatarColor: color,
    timestamp,
    deviceId: null,
    sig2: null,
    text,
    image,
    alt,
    sealed: sealed?.text ?? null,
    sealedImage: sealed?.image ?? null,
    sealedAlt: sealed?.alt ?? null,
    keyId: sealed?.keyId ?? null,
    replyTo,
    signature: null,
  }
}

/** The events of a row, oldest first; none for a message that was not sent. */
export function eventsOfRow(row: RowV1): StoredEvent[] {
  if (row.delivery !== 'confirmed') return []
  const { roomId, msgId, userId, sessionId, text, timestamp, relayedBy, unproven } = row
  const known = {
    roomId,
    target: msgId,
    at: timestamp,
    via: relayedBy === null ? ('live' as const) : ('shared' as const),
    sharedBy: relayedBy,
    secrecy: row.secrecy === 'unreadable' ? ('encrypted' as const) : row.secrecy,
    content: null,
  }
  const proof = PROOFS[row.verification]
  const events: StoredEvent[] = [{ ...known, id: `row ${msgId}`, event: textOf(row), moderator: false, proof }]
  const changedAt = row.change?.timestamp ?? timestamp
  const head = { fromId: sessionId, userId: unproven ? null : userId, timestamp: changedAt, deviceId: null, sig2: null }
  const change = (event: RoomMessage, id: string): void => {
    // The row says that it was applied, whoever made it.
    events.push({ ...known, id, event, moderator: true, proof: relayedBy === null ? 'unsigned' : 'verified' })
  }
  const ids = { msgId: null, targetId: msgId }
  if (row.edited) change({ kind: 'edit', ...head, ...ids, text, sealed: null, keyId: null }, `row edit ${msgId}`)
  if (row.deleted) change({ kind: 'delete', ...head, ...ids, moderator: !unproven }, `row delete ${msgId}`)
  return events
}

/** A row of version 1 as it is stored now. */
export function rowOf({ sealed: _sealed, signature: _signature, change: _change, ...row }: RowV1): StoredMessage {
  const { verification } = row
  const now = verification === 'forged' ? 'unverified' : verification === 'pending' ? 'unsigned' : verification
  return { ...row, verification: now }
}

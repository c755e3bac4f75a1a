/** Encrypts and signs outgoing messages. */
import { Failure } from '@/protocol/errors'
import { asValue, MAX_QUOTE } from '@/protocol/shapes'
import type { Value } from '@/protocol/codec'
import type { Identity } from './identity'
import type { Closed, RoomCrypto } from './roomCrypto'
import { sign, signedChange } from './signing'

interface Author {
  /** The session id of the sender. */
  fromId: string
  userId: string
  timestamp: number
}

export interface OutgoingText extends Author {
  kind: 'message'
  from: string
  avatarColor: string
  msgId: string
  text: string
  image: string | null
  alt: string
  replyTo: { msgId: string; from: string; text: string } | null
}

export interface OutgoingEdit extends Author {
  kind: 'edit'
  targetId: string
  text: string
}

export interface OutgoingDelete extends Author {
  kind: 'delete'
  targetId: string
  moderator: boolean
}

export type Outgoing = OutgoingText | OutgoingEdit | OutgoingDelete

export interface Envelope {
  value: Value
  /** Whether it may still be sent. */
  guard: () => boolean
}

type Room = Pick<RoomCrypto, 'close' | 'state'>

const isClear = (closed: Closed): closed is { clear: string } => 'clear' in closed

const body = (closed: Closed): object =>
  isClear(closed) ? { text: closed.clear } : { text: closed.text, iv: closed.iv, encrypted: true, keyId: closed.keyId }

async function sealText(room: Room, identity: Identity, message: OutgoingText): Promise<Envelope> {
  const { from, fromId, userId, msgId, timestamp, avatarColor, image, alt, replyTo } = message
  const parts = [message.text, ...(image === null ? [] : [image]), ...(image !== null && alt ? [alt] : [])]
  const { closed, guard } = await room.close(parts)
  const [text, picture, caption] = closed as [Closed, Closed?, Closed?]
  const covered = isClear(text) ? text.clear : text.text
  const signature = await sign(identity.signingKey, { text: covered, fromId, msgId, timestamp })
  const value = {
    from,
    fromId,
    userId,
    msgId,
    ...body(text),
    timestamp,
    avatarColor,
    type: picture ? 'image' : 'text',
    ...(picture && pictureFields(picture)),
    ...(caption && captionFields(caption)),
    // A signature over the plain text would let readers without the key confirm a guess of it.
    ...(isClear(text) ? { signature } : { cipherSignature: signature }),
    // The quoted text may be encrypted itself: readers look it up by its id.
    ...(replyTo && { replyTo: { ...replyTo, text: isClear(text) ? replyTo.text.slice(0, MAX_QUOTE) : '' } }),
  }
  return { value: asValue(value), guard }
}

const pictureFields = (closed: Closed): object =>
  isClear(closed) ? { image: closed.clear } : { encryptedImage: closed.text, imageIv: closed.iv }

const captionFields = (closed: Closed): object =>
  isClear(closed) ? { alt: closed.clear } : { encryptedAlt: closed.text, altIv: closed.iv }

/**
 * The value to emit for a message.
 *
 * @throws {Failure} `waitingForKey` if the room key is missing, or the encryption state is not known yet.
 */
export async function seal(room: Room, identity: Identity, message: Outgoing): Promise<Envelope> {
  if (message.kind === 'message') return sealText(room, identity, message)
  const { fromId, userId, targetId, timestamp } = message
  const head = { type: message.kind, fromId, userId, targetId, timestamp }
  const signChange = (covered: string, signer: string): Promise<string> =>
    sign(identity.signingKey, {
      text: signedChange(message.kind, covered),
      fromId: signer,
      msgId: targetId,
      timestamp,
    })
  if (message.kind === 'edit') {
    const { closed, guard } = await room.close([message.text])
    const text = closed[0] as Closed
    const signature = await signChange(isClear(text) ? text.clear : text.text, fromId)
    const proof = isClear(text) ? { signature } : { cipherSignature: signature }
    return { value: asValue({ ...head, ...body(text), ...proof }), guard }
  }
  if (room.state === 'unknown') throw new Failure('waitingForKey', 'encryption state of the room not known yet')
  // The original app expects the user id of a moderator in `fromId`.
  const value = message.moderator ? { ...head, fromId: userId, isModAction: true } : head
  const signature = await signChange('', value.fromId)
  return { value: asValue({ ...value, signature }), guard: () => true }
}

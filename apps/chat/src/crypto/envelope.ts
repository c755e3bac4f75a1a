/** Encrypts and signs outgoing messages. */
import { Failure } from '@/protocol/errors'
import { asValue, clip, fileFields, MAX_QUOTE, parseMessage, type FileInfo, type RoomMessage } from '@/protocol/shapes'
import type { Value } from '@/protocol/codec'
import { signEvent } from './devices'
import type { Identity } from './identity'
import type { Closed, RoomCrypto } from './roomCrypto'
import { sign } from './signing'

interface Author {
  /** The session id of the sender. */
  fromId: string
  userId: string
  msgId: string
  timestamp: number
}

export interface OutgoingText extends Author {
  kind: 'message'
  from: string
  avatarColor: string
  text: string
  image: string | null
  alt: string
  file?: FileInfo
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
  /** The same, as receivers read it. */
  event: RoomMessage
  /** Whether it may still be sent. */
  guard: () => boolean
}

type Room = Pick<RoomCrypto, 'close' | 'state'>

const isClear = (closed: Closed): closed is { clear: string } => 'clear' in closed

const body = (closed: Closed): object =>
  isClear(closed) ? { text: closed.clear } : { text: closed.text, iv: closed.iv, encrypted: true, keyId: closed.keyId }

const pictureFields = (closed: Closed): object =>
  isClear(closed) ? { image: closed.clear } : { encryptedImage: closed.text, imageIv: closed.iv }

const captionFields = (closed: Closed): object =>
  isClear(closed) ? { alt: closed.clear } : { encryptedAlt: closed.text, altIv: closed.iv }

const attachmentFields = (closed: Closed, file: FileInfo): object =>
  isClear(closed) ? { file: fileFields(file) } : { encryptedFile: closed.text, fileIv: closed.iv }

type Fields = Readonly<Record<string, unknown>>

async function textFields(room: Room, identity: Identity, message: OutgoingText): Promise<[Fields, () => boolean]> {
  const { from, fromId, msgId, timestamp, avatarColor, image, alt, file, replyTo } = message
  const pictures = image === null ? [] : [image, ...(alt ? [alt] : [])]
  const parts = [message.text, ...pictures, ...(file ? [JSON.stringify(fileFields(file))] : [])]
  const { closed, guard } = await room.close(parts)
  const text = closed[0] as Closed
  const [picture, caption] = closed.slice(1, 1 + pictures.length)
  const attachment = closed[1 + pictures.length]
  const fields = {
    from,
    ...body(text),
    avatarColor,
    type: picture ? 'image' : 'text',
    ...(picture && pictureFields(picture)),
    ...(caption && captionFields(caption)),
    ...(file && attachment && attachmentFields(attachment, file)),
    // For the original. Over an encrypted text it would let readers without the key confirm a guess of it.
    ...(isClear(text) && {
      signature: await sign(identity.signingKey, { text: text.clear, fromId, msgId, timestamp }),
    }),
    // The quoted text may be encrypted itself: readers look it up by its id.
    ...(replyTo && { replyTo: { ...replyTo, text: isClear(text) ? clip(replyTo.text, MAX_QUOTE) : '' } }),
  }
  return [fields, guard]
}

async function changeFields(room: Room, message: OutgoingEdit | OutgoingDelete): Promise<[Fields, () => boolean]> {
  const { kind, targetId, userId } = message
  if (message.kind === 'edit') {
    const { closed, guard } = await room.close([message.text])
    return [{ type: kind, targetId, ...body(closed[0] as Closed) }, guard]
  }
  if (room.state === 'unknown') throw new Failure('waitingForKey', 'encryption state of the room not known yet')
  // The original app expects the user id of a moderator in `fromId`.
  const moderator = message.moderator && { fromId: userId, isModAction: true }
  return [{ type: kind, targetId, ...moderator }, () => true]
}

/**
 * The value to emit for a message, an edit or a delete, signed by this device.
 *
 * @throws {Failure} `waitingForKey` if the room key is missing, or the encryption state is not known yet.
 */
export async function seal(room: Room, identity: Identity, roomId: string, message: Outgoing): Promise<Envelope> {
  const { kind, fromId, userId, msgId, timestamp } = message
  const [fields, guard] = await (kind === 'message' ? textFields(room, identity, message) : changeFields(room, message))
  const { deviceId } = identity
  const value = { kind, fromId, userId, msgId, timestamp, deviceId, ...fields }
  const event = parseMessage(value)
  const sig2 = event && (await signEvent(identity.signingKey, roomId, event))
  if (!event || !sig2) throw new Failure('invalid', 'the message cannot be read back')
  return { value: asValue({ ...value, sig2 }), event: { ...event, sig2 }, guard }
}

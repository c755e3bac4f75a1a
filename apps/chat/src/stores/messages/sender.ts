/** Sending messages, edits and deletes. What waits is a row; once the relay has it, it is an event of the log. */
import { seal, type Outgoing, type OutgoingText } from '@/crypto/envelope'
import { address } from '@/protocol/addresses'
import { Failure } from '@/protocol/errors'
import * as shapes from '@/protocol/shapes'
import type { StoredMessage } from '@/storage/types'
import type { Runtime } from '../runtime'
import type { MsgId, OutgoingImage, RoomId } from '../types'
import { expandCommand } from './commands'
import type { Arrival } from './log'
import { MAX_SKEW_MS } from './projection'

export const MAX_TEXT = 2_000
const MAX_ALT = 500
const MSG_ID_DIGITS = 6

export interface SenderContext {
  runtime: Runtime
  inOrder: <T>(roomId: RoomId, work: () => Promise<T>) => Promise<T>
  find: (roomId: RoomId, msgId: MsgId) => Promise<StoredMessage | undefined>
  /** Shows and stores a row. */
  keep: (row: StoredMessage) => Promise<void>
  drop: (roomId: RoomId, msgId: MsgId) => Promise<void>
  /** Adds an own event to the log, in the room's turn. */
  append: (roomId: RoomId, arrival: Arrival) => Promise<void>
  mayModerate: (roomId: RoomId) => boolean
  /** The people whom a message names, as far as the relay may know. */
  mentions: (roomId: RoomId, text: string, encrypted: boolean) => readonly string[]
}

export class Sender {
  /** By outbox id: what was sent last, to be an event of the log when the relay has confirmed it. */
  private readonly sent = new Map<string, shapes.RoomMessage>()

  constructor(private readonly context: SenderContext) {}

  clear(): void {
    this.sent.clear()
  }

  private get me(): string {
    return this.context.runtime.self.userId
  }

  /** The relay's time, ms: the clock of this device may be wrong. */
  private now(): number {
    return Math.round(this.context.runtime.connection.serverNow())
  }

  private newMsgId(): MsgId {
    const number = Math.floor(this.context.runtime.platform.random() * 36 ** MSG_ID_DIGITS)
    return `${this.now()}-${number.toString(36).padStart(MSG_ID_DIGITS, '0')}`
  }

  private get sessionId(): string {
    return this.context.runtime.connection.status.sessionId ?? ''
  }

  private outgoing({
    msgId,
    text,
    timestamp,
    image,
    alt,
    file,
    replyTo,
    name,
    color,
    sessionId,
  }: StoredMessage): OutgoingText {
    const head = { kind: 'message' as const, from: name, fromId: sessionId, userId: this.me, avatarColor: color, msgId }
    return { ...head, text, timestamp, image, alt, ...(file && { file }), replyTo }
  }

  /**
   * Updates a message for sending: to the present session, and, if it waited for long, to the present time, so that
   * receivers sort it among the new messages.
   */
  private async restamp(message: StoredMessage): Promise<StoredMessage> {
    const { find, keep } = this.context
    const current = await find(message.roomId, message.msgId)
    const { sessionId } = this
    const { timestamp: written } = current ?? message
    const timestamp = this.now() - written > MAX_SKEW_MS ? this.now() : written
    const restamped = { ...(current ?? message), sessionId, timestamp }
    if (current && (current.sessionId !== sessionId || timestamp !== written)) await keep(restamped)
    return restamped
  }

  /** Gives a stored message to the outbox, which encrypts and signs it at the moment of sending. */
  post(message: StoredMessage): void {
    const { roomId, msgId } = message
    const { runtime, inOrder } = this.context
    const id = `${roomId} ${msgId}`
    runtime.outbox.add({
      id,
      lane: roomId,
      address: address.messages(roomId),
      seal: async () => {
        const live = runtime.rooms.get(roomId)
        if (!live) throw new Failure('missing', `not a member of room ${roomId}`)
        // Before, the relay would refuse it.
        if (live.access === 'entering') throw new Failure('offline', `not inside room ${roomId} yet`)
        const current = await inOrder(roomId, () => this.restamp(message))
        const { event, ...envelope } = await seal(await live.room(), runtime.identity, roomId, this.outgoing(current))
        this.sent.set(id, event)
        const mentions = this.context.mentions(roomId, current.text, 'sealed' in event && event.sealed !== null)
        if (mentions.length === 0) return envelope
        return { ...envelope, value: shapes.asValue({ ...(envelope.value as object), mentions }) }
      },
    })
  }

  async send(
    roomId: RoomId,
    message: { text: string; replyTo?: MsgId; image?: OutgoingImage; file?: shapes.FileInfo },
  ): Promise<void> {
    const { runtime, inOrder, keep } = this.context
    const { name, color, userId } = runtime.self
    const { file } = message
    const image = message.image?.dataUrl ?? null
    const said = expandCommand(message.text.trim(), runtime.platform.random, name)
    // Apps that know no files show a message by its picture or its text.
    const text = said === '' && file && image === null ? shapes.fileText(file) : said
    if (image === null) checkText(text)
    else checkImage(image, text)
    if (!runtime.rooms.has(roomId)) throw new Failure('missing', `not a member of room ${roomId}`)
    const quoted = message.replyTo ? await this.context.find(roomId, message.replyTo) : undefined
    const stored: StoredMessage = {
      roomId,
      msgId: this.newMsgId(),
      userId,
      sessionId: this.sessionId,
      name,
      color,
      kind: image === null ? 'text' : 'image',
      text,
      image,
      alt: (message.image?.alt ?? '').trim().slice(0, MAX_ALT),
      ...(file && { file }),
      timestamp: this.now(),
      replyTo: quoted
        ? { msgId: quoted.msgId, from: quoted.name, text: shapes.clip(quoted.text, shapes.MAX_QUOTE) }
        : null,
      edited: false,
      deleted: false,
      unproven: false,
      delivery: 'queued',
      failure: null,
      secrecy: runtime.rooms.get(roomId)?.encryption === 'off' ? 'plain' : 'encrypted',
      verification: 'verified',
      relayedBy: null,
    }
    await inOrder(roomId, () => keep(stored))
    this.post(stored)
  }

  /** What became of a message in the outbox. */
  takeDelivery(id: string, state: StoredMessage['delivery'], failure: Failure | null): void {
    const { runtime, inOrder, find, keep, append } = this.context
    const [roomId, msgId] = id.split(' ') as [RoomId, MsgId]
    if (!runtime.begun) return
    const event = this.sent.get(id)
    if (state === 'confirmed') this.sent.delete(id)
    void inOrder(roomId, async () => {
      const message = await find(roomId, msgId)
      if (!message || message.delivery === state) return
      if (state === 'confirmed' && event) return append(roomId, this.own(event))
      const words = failure && { kind: failure.kind, reason: failure.reason, detail: failure.detail }
      await keep({ ...message, delivery: state, failure: words })
    })
  }

  private own(event: shapes.RoomMessage): Arrival {
    const moderator = event.kind === 'delete' && event.moderator
    return { event, at: this.now(), via: 'own', sharedBy: null, moderator, encrypted: false }
  }

  async retry(roomId: RoomId, msgId: MsgId): Promise<void> {
    if (this.context.runtime.outbox.retry(`${roomId} ${msgId}`)) return
    const message = await this.context.find(roomId, msgId)
    if (message && message.delivery !== 'confirmed') this.post(message)
  }

  async discard(roomId: RoomId, msgId: MsgId): Promise<void> {
    const { runtime, inOrder, find, drop } = this.context
    runtime.outbox.discard(`${roomId} ${msgId}`)
    await inOrder(roomId, async () => {
      const message = await find(roomId, msgId)
      if (message && message.delivery !== 'confirmed') await drop(roomId, msgId)
    })
  }

  /** Sends an edit or a delete; resolves when the relay has accepted it. */
  private async publishChange(roomId: RoomId, change: Outgoing): Promise<void> {
    const { runtime, inOrder, append } = this.context
    const live = runtime.rooms.get(roomId)
    if (!live) throw new Failure('missing', `not a member of room ${roomId}`)
    const { value, event, guard } = await seal(await live.room(), runtime.identity, roomId, change)
    await runtime.connection.publish(address.messages(roomId), value, { guard, urgent: true })
    await inOrder(roomId, () => append(roomId, this.own(event)))
  }

  private head() {
    return { fromId: this.sessionId, userId: this.me, msgId: this.newMsgId(), timestamp: this.now() }
  }

  private async target(roomId: RoomId, msgId: MsgId): Promise<StoredMessage> {
    const message = await this.context.find(roomId, msgId)
    if (!message || message.deleted) throw new Failure('missing', `no such message: ${msgId}`)
    return message
  }

  async edit(roomId: RoomId, msgId: MsgId, newText: string): Promise<void> {
    const text = newText.trim()
    checkText(text)
    const message = await this.target(roomId, msgId)
    if (message.userId !== this.me || message.relayedBy !== null)
      throw new Failure('forbidden', 'not the author of the message')
    await this.publishChange(roomId, { kind: 'edit', ...this.head(), targetId: msgId, text })
  }

  async remove(roomId: RoomId, msgId: MsgId): Promise<void> {
    const message = await this.target(roomId, msgId)
    const own = message.userId === this.me && message.relayedBy === null
    if (!own && !this.context.mayModerate(roomId)) throw new Failure('forbidden', 'neither author nor moderator')
    await this.publishChange(roomId, { kind: 'delete', ...this.head(), targetId: msgId, moderator: !own })
  }

  /** Queues what an earlier page left unsent. */
  async resume(roomId: RoomId): Promise<void> {
    const { runtime } = this.context
    for (const message of await runtime.storage.messages.undelivered(roomId)) {
      const known = runtime.outbox.has(`${roomId} ${message.msgId}`)
      if (message.delivery !== 'failed' && !known) this.post(message)
    }
  }
}

function checkText(text: string): void {
  if (text === '') throw new Failure('invalid', 'empty message', { reason: 'emptyMessage' })
  checkLength(text)
}

function checkLength(text: string): void {
  if (text.length > MAX_TEXT) throw new Failure('tooLarge', 'message too long', { reason: 'messageTooLong' })
}

function checkImage(image: string, text: string): void {
  checkLength(text)
  if (!shapes.isImage(image)) throw new Failure('invalid', 'not an image data URL', { reason: 'notAnImage' })
}

/** How far each user has read a room: others' receipts, and the own one. */
import { shallowReactive } from 'vue'
import { address } from '@/protocol/addresses'
import { parseReceipt, type Receipt } from '@/protocol/shapes'
import type { StoredMessage } from '@/storage/types'
import type { Runtime } from '../runtime'
import type { MsgId, RoomId, UserId } from '../types'

const RECEIPT_DELAY_MS = 1_000

export interface ReceiptsContext {
  runtime: Runtime
  messages: (roomId: RoomId) => readonly StoredMessage[]
  isWatched: (roomId: RoomId) => boolean
  wanted: () => boolean
}

export class Receipts {
  private readonly rooms = shallowReactive(new Map<RoomId, ReadonlyMap<UserId, Receipt>>())
  private readonly timers = new Map<RoomId, () => void>()

  constructor(private readonly context: ReceiptsContext) {}

  clear(): void {
    this.rooms.clear()
    for (const stop of this.timers.values()) stop()
    this.timers.clear()
  }

  hear(roomId: RoomId, userId: UserId, value: unknown): void {
    const receipt = parseReceipt(value)
    const changed = new Map(this.rooms.get(roomId))
    if (receipt) changed.set(userId, receipt)
    else changed.delete(userId)
    this.rooms.set(roomId, changed)
  }

  /** The other users by the last message that they have read. */
  readersByMessage(roomId: RoomId, messages: readonly StoredMessage[]): Map<MsgId, UserId[]> {
    const readers = new Map<MsgId, UserId[]>()
    for (const [userId, receipt] of this.rooms.get(roomId) ?? []) {
      if (userId === this.context.runtime.self.userId) continue
      const named = messages.find((message) => message.msgId === receipt.msgId)
      // An older message, or one that is not here: the original tells by its time.
      const last = named ?? messages.findLast((message) => message.timestamp <= receipt.timestamp)
      if (!last) continue
      readers.set(last.msgId, [...(readers.get(last.msgId) ?? []), userId])
    }
    return readers
  }

  /** A room was read: tells the others, a moment later. */
  plan(roomId: RoomId): void {
    if (!this.context.isWatched(roomId) || this.timers.has(roomId)) return
    const { clock } = this.context.runtime.platform
    this.timers.set(
      roomId,
      clock.after(RECEIPT_DELAY_MS, () => this.send(roomId)),
    )
  }

  private send(roomId: RoomId): void {
    const { runtime, messages, wanted } = this.context
    const { userId } = runtime.self
    this.timers.delete(roomId)
    const shown = messages(roomId)
    const last = shown.findLast((message) => message.userId !== userId)
    const sent = this.rooms.get(roomId)?.get(userId)
    if (!last || !wanted() || (sent && isRead(shown, sent, last))) return
    // The original compares with what the sender's clock said.
    const value = { userId, msgId: last.msgId, timestamp: Math.round(last.writtenAt ?? last.timestamp) }
    // Only the newest receipt matters: the next one replaces a lost one.
    runtime.connection.set(address.receipt(roomId, userId), value).catch(() => undefined)
  }
}

/** Whether a receipt says that a message was read. */
function isRead(messages: readonly StoredMessage[], { msgId, timestamp }: Receipt, message: StoredMessage): boolean {
  const place = messages.findLastIndex((each) => each.msgId === msgId)
  return place < 0 ? timestamp >= message.timestamp : place >= messages.indexOf(message)
}

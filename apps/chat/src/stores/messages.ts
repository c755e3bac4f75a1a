import { defineStore } from 'pinia'
import { computed, shallowReactive, type ComputedRef } from 'vue'
import { seal, type Outgoing, type OutgoingText } from '@/crypto/envelope'
import type { RoomCrypto } from '@/crypto/roomCrypto'
import { address, isEmoji } from '@/protocol/addresses'
import type { Update } from '@/protocol/connection'
import { Failure } from '@/protocol/errors'
import * as shapes from '@/protocol/shapes'
import type { StoredDraft, StoredMessage } from '@/storage/types'
import type { RoomEvent } from './live/liveRoom'
import { useMembersStore } from './members'
import { CatchUp } from './messages/catchUp'
import { COMMANDS, expandCommand } from './messages/commands'
import { HistoryExchange, type Received } from './messages/history'
import { prepareImage } from './messages/images'
import { countReactions, withReaction, type RoomReactions } from './messages/reactions'
import { applyDelete, applyEdit, authorship, MAX_SKEW_MS, open, readHistory, readText } from './messages/reading'
import { lineMessage, merged, SystemLines, withLine } from './messages/systemLines'
import { EMPTY, withMessage, withOlder, withoutMessage, type Timeline } from './messages/timeline'
import { Verifier } from './messages/verifier'
import { useNotificationsStore } from './notifications'
import { useRoomsStore } from './rooms'
import { useRuntime } from './runtime'
import { useSettingsStore } from './settings'
import type { ChatMessage, Draft, MsgId, OutgoingImage, Person, RoomId, UserId } from './types'

/** The fields that are shown unchanged. */
function pickShown(message: StoredMessage) {
  const { roomId, msgId, userId, sessionId, name, color, kind, text, image, alt, timestamp } = message
  const { edited, deleted, unproven, delivery, failure, secrecy, verification } = message
  const body = { roomId, msgId, userId, sessionId, name, color, kind, text, image, alt, timestamp }
  return { ...body, edited, deleted, unproven, delivery, failure, secrecy, verification }
}

const PAGE = 50
export const MAX_TEXT = 2_000
const MAX_ALT = 500
const RECEIPT_DELAY_MS = 1_000

export const useMessagesStore = defineStore('messages', () => {
  const runtime = useRuntime()
  const rooms = useRoomsStore()
  const members = useMembersStore()
  const settings = useSettingsStore()
  const notifications = useNotificationsStore()
  const { clock, random } = runtime.platform

  const timelines = shallowReactive(new Map<RoomId, Timeline>())
  const reactions = shallowReactive(new Map<RoomId, RoomReactions>())
  const receipts = shallowReactive(new Map<RoomId, ReadonlyMap<UserId, shapes.Receipt>>())
  const drafts = shallowReactive(new Map<RoomId, StoredDraft>())
  const loading = new Map<RoomId, Promise<void>>()
  /** Keys of the messages that this tab has received. */
  const received = new Set<string>()
  const shown = new Map<RoomId, ComputedRef<readonly ChatMessage[]>>()
  /** By room: the last task. Tasks of a room run in order, although decryption is asynchronous. */
  const tails = new Map<RoomId, Promise<unknown>>()
  const lines = shallowReactive(new Map<RoomId, readonly ChatMessage[]>())
  const systemLines = new SystemLines(members.nameOf)
  let lineCount = 0
  let storageFailed = false
  const verifier = new Verifier(runtime)
  const me = (): UserId => runtime.self.userId
  const othersIn = (roomId: RoomId) => members.presentIds(roomId).filter((userId) => userId !== me())
  const catchingUp = shallowReactive(new Set<RoomId>())
  const history = new HistoryExchange(runtime, takeHistory, members.presentIds)
  const catchUp = new CatchUp({
    clock,
    inside: (roomId) => runtime.rooms.get(roomId)?.access === 'inside',
    since: (roomId, leftAtMs) => history.since(roomId, leftAtMs),
    ask: (roomId, sinceMs) => history.ask(roomId, sinceMs),
    cancel: (roomId) => history.cancel(roomId),
    othersIn,
    catchingUp: (roomId, busy) => (busy ? catchingUp.add(roomId) : catchingUp.delete(roomId)),
  })

  /** The relay's time, ms: the clock of this device may be wrong. */
  const now = (): number => Math.round(runtime.connection.serverNow())
  const storage = () => runtime.storage.messages

  function inOrder<T>(roomId: RoomId, work: () => Promise<T>): Promise<T> {
    const result = (tails.get(roomId) ?? Promise.resolve()).then(work)
    tails.set(
      roomId,
      result.catch(() => undefined),
    )
    return result
  }

  // --- the timeline ---

  function load(roomId: RoomId): Promise<void> {
    const running = loading.get(roomId)
    if (running) return running
    const loaded = inOrder(roomId, async () => {
      const newest = await storage().before(roomId, PAGE)
      const before = timelines.get(roomId) ?? EMPTY
      timelines.set(roomId, withOlder(before, newest, newest.length === PAGE))
    })
    loading.set(roomId, loaded)
    return loaded
  }

  async function loadOlder(roomId: RoomId): Promise<void> {
    await load(roomId)
    await inOrder(roomId, async () => {
      const timeline = timelines.get(roomId) ?? EMPTY
      if (!timeline.hasOlder) return
      const older = await storage().before(roomId, PAGE, timeline.messages[0])
      timelines.set(roomId, withOlder(timeline, older, older.length === PAGE))
    })
  }

  async function reveal(roomId: RoomId, msgId: MsgId): Promise<boolean> {
    await load(roomId)
    return inOrder(roomId, async () => {
      const timeline = timelines.get(roomId) ?? EMPTY
      if (timeline.messages.some((message) => message.msgId === msgId)) return true
      const target = await storage().get(roomId, msgId)
      if (!target) return false
      const stretch = await storage().from(roomId, target.timestamp, msgId)
      const before = await storage().before(roomId, PAGE, target)
      timelines.set(roomId, withOlder(timeline, [...before, ...stretch], before.length === PAGE))
      return true
    })
  }

  /** Shows a message and stores it. Where the browser's store is full, it is shown all the same. */
  async function keep(message: StoredMessage): Promise<void> {
    show(message)
    try {
      await storage().put(message)
    } catch (error) {
      reportStorage(error)
    }
  }

  /** Reports once, not for every message, that the browser cannot store. */
  function reportStorage(error: unknown): void {
    if (storageFailed || !runtime.begun) return
    storageFailed = true
    notifications.fail(new Failure('storage', error instanceof Error ? error.message : 'storage failed'))
  }

  /** A message as it is stored, or, where it could not be stored, as it is shown. */
  async function find(roomId: RoomId, msgId: MsgId): Promise<StoredMessage | undefined> {
    const shownOnly = timelines.get(roomId)?.messages.find((message) => message.msgId === msgId)
    return (await storage().get(roomId, msgId)) ?? shownOnly
  }

  function show(message: StoredMessage): void {
    const timeline = timelines.get(message.roomId)
    if (timeline) timelines.set(message.roomId, withMessage(timeline, message))
  }

  // --- for components ---

  const views = new WeakMap<StoredMessage, { marks: unknown; readers: string; view: ChatMessage }>()

  function namesMe(text: string): boolean {
    const { name } = runtime.self
    if (name === '') return false
    const [wanted, lower] = [`@${name.toLocaleLowerCase()}`, text.toLocaleLowerCase()]
    // A longer name with the same beginning may come first: `@Annabel and @Anna`.
    for (let at = lower.indexOf(wanted); at >= 0; at = lower.indexOf(wanted, at + 1)) {
      if (!/^[\p{L}\p{N}]/u.test(lower.slice(at + wanted.length))) return true
    }
    return false
  }

  function quoteOf(message: StoredMessage, byId: ReadonlyMap<MsgId, StoredMessage>): ChatMessage['replyTo'] {
    const { replyTo } = message
    if (!replyTo) return null
    const quoted = byId.get(replyTo.msgId)
    const text = quoted && !quoted.deleted && !quoted.sealed ? quoted.text.slice(0, shapes.MAX_QUOTE) : replyTo.text
    return { msgId: replyTo.msgId, name: quoted?.name ?? replyTo.from, text: text || null }
  }

  function view(
    message: StoredMessage,
    byId: ReadonlyMap<MsgId, StoredMessage>,
    readBy: readonly Person[],
  ): ChatMessage {
    const marks = reactions.get(message.roomId)?.get(message.msgId)
    const quoted = message.replyTo ? byId.get(message.replyTo.msgId) : undefined
    const shared = message.relayedBy === null ? '' : members.nameOf(message.roomId, message.relayedBy)
    const names = readBy.map((reader) => `${reader.userId} ${reader.name}`).join()
    const readers = `${names} ${quoted?.text ?? ''} ${quoted?.deleted ?? ''} ${shared}`
    const cached = views.get(message)
    if (cached?.marks === marks && cached?.readers === readers) return cached.view
    const { roomId, userId } = message
    const nameOf = (id: UserId): string => (id === me() ? runtime.self.name : members.nameOf(roomId, id))
    const made: ChatMessage = {
      ...pickShown(message),
      line: null,
      own: userId === me() && message.relayedBy === null,
      relayedBy: message.relayedBy === null ? null : personOf(roomId, message.relayedBy),
      replyTo: quoteOf(message, byId),
      mentionsMe: userId !== me() && namesMe(message.text),
      reactions: countReactions(marks, me()).map(({ emoji, count, mine, userIds }) => {
        return { emoji, count, mine, names: userIds.map(nameOf).filter((name) => name !== '') }
      }),
      readBy,
    }
    views.set(message, { marks, readers, view: made })
    return made
  }

  const personOf = (roomId: RoomId, userId: UserId): Person => {
    return { userId, name: members.nameOf(roomId, userId), color: members.colorOf(userId) }
  }

  function readersByMessage(roomId: RoomId, messages: readonly StoredMessage[]): Map<MsgId, Person[]> {
    const readers = new Map<MsgId, Person[]>()
    for (const [userId, receipt] of receipts.get(roomId) ?? []) {
      if (userId === me()) continue
      const last = messages.findLast((message) => message.timestamp <= receipt.timestamp)
      if (!last) continue
      readers.set(last.msgId, [...(readers.get(last.msgId) ?? []), personOf(roomId, userId)])
    }
    return readers
  }

  function shownOf(roomId: RoomId): ComputedRef<readonly ChatMessage[]> {
    const known = shown.get(roomId)
    if (known) return known
    const made = computed(() => {
      const { messages } = timelines.get(roomId) ?? EMPTY
      const byId = new Map(messages.map((message) => [message.msgId, message]))
      const readers = readersByMessage(roomId, messages)
      const views = messages.map((message) => view(message, byId, readers.get(message.msgId) ?? []))
      return merged(views, lines.get(roomId) ?? [])
    })
    shown.set(roomId, made)
    return made
  }

  function timeline(roomId: RoomId): readonly ChatMessage[] {
    if (runtime.begun) void load(roomId)
    return shownOf(roomId).value
  }

  // --- receiving ---

  function hear(roomId: RoomId, event: RoomEvent & { type: 'update' }): void {
    const { place, update } = event
    if (place.kind === 'messages' && update.kind === 'publish') void inOrder(roomId, () => receive(roomId, update))
    else if (place.kind === 'reaction') {
      const value = shapes.parseReaction(update.value)
      reactions.set(roomId, withReaction(reactions.get(roomId) ?? new Map(), place, value))
    } else if (place.kind === 'receipt') {
      const receipt = shapes.parseReceipt(update.value)
      const changed = new Map(receipts.get(roomId))
      if (receipt) changed.set(place.userId, receipt)
      else changed.delete(place.userId)
      receipts.set(roomId, changed)
    } else if (place.kind === 'presence') {
      if (place.userId !== me() && members.presentIds(roomId).includes(place.userId)) catchUp.saw(roomId, place.userId)
    } else if (place.kind === 'historyCall') {
      const call = shapes.parseHistoryCall(update.value)
      if (call) history.hearCall(roomId, call)
    } else if (place.kind === 'historyFor' && place.userId === me()) {
      const mail = shapes.parseHistoryMail(update.value)
      if (mail) void history.hearMail(roomId, mail)
    }
  }

  async function receive(roomId: RoomId, update: Update): Promise<void> {
    const message = shapes.parseMessage(update.value)
    const live = runtime.rooms.get(roomId)
    if (!message || !live) return
    // A relay without the chat's policy would deliver messages of banned users.
    if (message.userId !== null && members.bans(roomId).some((ban) => ban.userId === message.userId)) return
    const room = await live.room()
    if (message.kind === 'edit') await receiveEdit(roomId, message)
    else if (message.kind === 'delete') await receiveDelete(roomId, message)
    else await receiveOnce(roomId, message, room)
  }

  /** A message may arrive twice, repeated by its author, and another tab may have stored it already. */
  async function receiveOnce(roomId: RoomId, message: shapes.TextMessage, room: RoomCrypto): Promise<void> {
    const key = `${roomId} ${message.msgId}`
    if (received.has(key)) return
    received.add(key)
    const stored = await storage().get(roomId, message.msgId)
    // A message from its author replaces the copy that another member shared.
    if (!stored || stored.relayedBy !== null) {
      return receiveText(await withQuote(await readText(room, roomId, message, now())))
    }
    show(stored)
    rooms.noteMessage(roomId, stored.timestamp, stored.userId === me(), stored.userId !== me() && namesMe(stored.text))
  }

  /** In an encrypted room, a reply does not contain the quoted text: it is looked up in the storage. */
  async function withQuote(message: StoredMessage): Promise<StoredMessage> {
    const { roomId, replyTo } = message
    const quoted = replyTo && replyTo.text === '' ? await storage().get(roomId, replyTo.msgId) : undefined
    if (!replyTo || !quoted || quoted.sealed) return message
    return { ...message, replyTo: { ...replyTo, text: quoted.text.slice(0, shapes.MAX_QUOTE) } }
  }

  async function receiveText(message: StoredMessage): Promise<void> {
    const { roomId, timestamp, userId } = message
    await keep(message)
    const own = userId === me()
    const mention = !own && namesMe(message.text)
    rooms.noteMessage(roomId, timestamp, own, mention)
    if (message.sealed) await runtime.rooms.get(roomId)?.tell({ type: 'unreadable' })
    void verifyLater(message)
    if (!own) alertAbout(message, mention)
  }

  function alertAbout(message: StoredMessage, mention: boolean): void {
    const room = rooms.byId[message.roomId]
    const { status } = runtime.self
    if (!room || room.muted || status === 'dnd' || rooms.isWatched(message.roomId)) return
    if (mention && message.roomId !== rooms.activeId) {
      const params = { name: message.name, room: room.name }
      notifications.notify({ kind: 'info', key: 'notices.mention', params, roomId: message.roomId })
    }
    if (!settings.desktopNotifications) return
    const text = message.secrecy === 'unreadable' ? '' : message.text || message.alt
    notifications.desktop({ title: `${message.name} · ${room.name}`, body: text, roomId: message.roomId, mention })
  }

  async function receiveEdit(roomId: RoomId, edit: shapes.EditMessage): Promise<void> {
    const target = await storage().get(roomId, edit.targetId)
    const author = target ? authorship(edit, target) : 'no'
    const room = await runtime.rooms.get(roomId)?.room()
    if (!target || !room || author === 'no') return
    const edited = await applyEdit(room, target, edit, author === 'session')
    if (edited) await keep(edited)
    else await runtime.rooms.get(roomId)?.tell({ type: 'unreadable' })
  }

  async function receiveDelete(roomId: RoomId, change: shapes.DeleteMessage): Promise<void> {
    const target = await storage().get(roomId, change.targetId)
    if (!target) return
    const author = authorship(change, target)
    const moderator = change.moderator && change.userId !== null && members.roleOf(roomId, change.userId) !== 'member'
    if (author !== 'no' || moderator) await keep(applyDelete(target, change, author === 'session'))
  }

  /** An edit or delete that another member shared as history: applied if its author signed it and had the right to. */
  async function takeChange(roomId: RoomId, change: shapes.ChangeMessage): Promise<void> {
    const target = await storage().get(roomId, change.targetId)
    if (!target || target.deleted || change.timestamp <= (target.change?.timestamp ?? 0)) return
    const { userId } = change
    const moderator = change.kind === 'delete' && userId !== null && members.roleOf(roomId, userId) !== 'member'
    if (authorship(change, target) !== 'yes' && !moderator) return
    if (change.kind === 'delete') return keep(applyDelete(target, change, false))
    const room = await runtime.rooms.get(roomId)?.room()
    const edited = room && (await applyEdit(room, target, change, false))
    if (edited) await keep(edited)
  }

  async function verifyLater(message: StoredMessage): Promise<void> {
    if (message.verification !== 'pending') return
    const verification = await verifier.check(message)
    await inOrder(message.roomId, async () => {
      const current = await storage().get(message.roomId, message.msgId)
      if (current?.verification === 'pending') await keep({ ...current, verification })
    })
  }

  /** After new keys arrived: decrypts messages that were unreadable. */
  async function readAgain(roomId: RoomId): Promise<void> {
    await inOrder(roomId, async () => {
      const room = await runtime.rooms.get(roomId)?.room()
      if (!room) return
      for (const message of await storage().unreadable(roomId)) {
        if (!message.sealed) continue
        const opened = await open(room, message.sealed)
        if (opened.sealed) continue
        const readable = { ...message, ...opened }
        await keep(readable)
        void verifyLater(readable)
      }
    })
    runtime.outbox.resume(roomId)
  }

  async function takeHistory({ roomId, rows, from, encrypted }: Received): Promise<void> {
    const changes = rows.map((row) => row.change).filter((change) => change !== null)
    // Before the room's turn: a signing key may have to be fetched.
    const proven = await Promise.all(changes.map(async (change) => ((await verifier.proves(change)) ? change : null)))
    await inOrder(roomId, async () => {
      const kept = rows.filter((row) => !row.deleted)
      const added = await storage().addMissing(kept.map((row) => readHistory(roomId, row, from, encrypted, now())))
      const fresh = new Set(added.map((message) => message.msgId))
      for (const change of proven) if (change && !fresh.has(change.targetId)) await takeChange(roomId, change)
      if (added.length === 0) return
      for (const message of added) show(message)
      const newest = added.reduce((one, { timestamp }) => Math.max(one, timestamp), 0)
      const lastReadMs = rooms.lastRead(roomId)
      for (const { timestamp, userId, text } of added) {
        if (timestamp > lastReadMs) rooms.noteMessage(roomId, timestamp, userId === me(), namesMe(text))
      }
      rooms.noteActivity(roomId, newest)
    })
  }

  // --- sending ---

  const newMsgId = (): MsgId =>
    `${now()}-${Math.floor(random() * 36 ** 6)
      .toString(36)
      .padStart(6, '0')}`

  function outgoing(message: StoredMessage, fromId: string): OutgoingText {
    const { msgId, text, timestamp, image, alt, replyTo, name, color } = message
    return {
      kind: 'message',
      from: name,
      fromId,
      userId: me(),
      avatarColor: color,
      msgId,
      text,
      timestamp,
      image,
      alt,
      replyTo,
    }
  }

  /**
   * Updates a message for sending: to the present session, and, if it waited for long, to the present time, so that
   * receivers sort it among the new messages.
   */
  async function restamp(message: StoredMessage): Promise<StoredMessage> {
    const { roomId, msgId } = message
    const current = await find(roomId, msgId)
    const sessionId = runtime.connection.status.sessionId ?? ''
    const { timestamp: written } = current ?? message
    const timestamp = now() - written > MAX_SKEW_MS ? now() : written
    const restamped = { ...(current ?? message), sessionId, timestamp }
    if (current && (current.sessionId !== sessionId || timestamp !== written)) await keep(restamped)
    return restamped
  }

  /** Gives a stored message to the outbox, which encrypts and signs it at the moment of sending. */
  function post(message: StoredMessage): void {
    const { roomId, msgId } = message
    runtime.outbox.add({
      id: `${roomId} ${msgId}`,
      lane: roomId,
      address: address.messages(roomId),
      seal: async () => {
        const live = runtime.rooms.get(roomId)
        if (!live) throw new Failure('missing', `not a member of room ${roomId}`)
        const current = await inOrder(roomId, () => restamp(message))
        return seal(await live.room(), runtime.identity, outgoing(current, current.sessionId))
      },
    })
  }

  async function send(
    roomId: RoomId,
    message: { text: string; replyTo?: MsgId; image?: OutgoingImage },
  ): Promise<void> {
    const text = expandCommand(message.text.trim(), random, runtime.self.name)
    const image = message.image?.dataUrl ?? null
    if (text === '' && image === null) throw new Failure('invalid', 'empty message', { reason: 'emptyMessage' })
    if (text.length > MAX_TEXT) throw new Failure('tooLarge', 'message too long', { reason: 'messageTooLong' })
    if (image !== null && !shapes.isImage(image))
      throw new Failure('invalid', 'not an image data URL', { reason: 'notAnImage' })
    if (!runtime.rooms.has(roomId)) throw new Failure('missing', `not a member of room ${roomId}`)
    const quoted = message.replyTo ? await storage().get(roomId, message.replyTo) : undefined
    const { name, color, userId } = runtime.self
    const stored: StoredMessage = {
      roomId,
      msgId: newMsgId(),
      userId,
      sessionId: runtime.connection.status.sessionId ?? '',
      name,
      color,
      kind: image === null ? 'text' : 'image',
      text,
      image,
      alt: (message.image?.alt ?? '').trim().slice(0, MAX_ALT),
      timestamp: now(),
      replyTo: quoted ? { msgId: quoted.msgId, from: quoted.name, text: quoted.text.slice(0, shapes.MAX_QUOTE) } : null,
      edited: false,
      deleted: false,
      unproven: false,
      delivery: 'queued',
      failure: null,
      secrecy: runtime.rooms.get(roomId)?.encryption === 'off' ? 'plain' : 'encrypted',
      verification: 'verified',
      relayedBy: null,
      sealed: null,
      signature: null,
      change: null,
    }
    await inOrder(roomId, () => keep(stored))
    rooms.noteMessage(roomId, stored.timestamp, true, false)
    members.stopTyping(roomId)
    post(stored)
  }

  function takeDelivery({
    id,
    state,
    failure,
  }: {
    id: string
    state: StoredMessage['delivery']
    failure: Failure | null
  }) {
    const [roomId, msgId] = id.split(' ') as [RoomId, MsgId]
    if (!runtime.begun) return
    void inOrder(roomId, async () => {
      const message = await find(roomId, msgId)
      if (!message || message.delivery === state) return
      await keep({
        ...message,
        delivery: state,
        failure: failure && { kind: failure.kind, reason: failure.reason, detail: failure.detail },
      })
    })
  }

  async function retry(roomId: RoomId, msgId: MsgId): Promise<void> {
    if (runtime.outbox.retry(`${roomId} ${msgId}`)) return
    const message = await find(roomId, msgId)
    if (message && message.delivery !== 'confirmed') post(message)
  }

  async function discard(roomId: RoomId, msgId: MsgId): Promise<void> {
    runtime.outbox.discard(`${roomId} ${msgId}`)
    await inOrder(roomId, async () => {
      const message = await find(roomId, msgId)
      if (!message || message.delivery === 'confirmed') return
      await storage().remove(roomId, msgId)
      timelines.set(roomId, withoutMessage(timelines.get(roomId) ?? EMPTY, msgId))
    })
  }

  /** Sends an edit or a delete; resolves with it when the relay has accepted it. */
  async function publishChange(roomId: RoomId, change: Outgoing): Promise<shapes.RoomMessage | null> {
    const live = runtime.rooms.get(roomId)
    if (!live) throw new Failure('missing', `not a member of room ${roomId}`)
    const { value, guard } = await seal(await live.room(), runtime.identity, change)
    await runtime.connection.publish(address.messages(roomId), value, { guard })
    return shapes.parseMessage(value)
  }

  const head = () => ({ fromId: runtime.connection.status.sessionId ?? '', userId: me(), timestamp: now() })

  async function target(roomId: RoomId, msgId: MsgId): Promise<StoredMessage> {
    const message = await find(roomId, msgId)
    if (!message || message.deleted) throw new Failure('missing', `no such message: ${msgId}`)
    return message
  }

  async function edit(roomId: RoomId, msgId: MsgId, newText: string): Promise<void> {
    const text = newText.trim()
    if (text === '') throw new Failure('invalid', 'empty message', { reason: 'emptyMessage' })
    if (text.length > MAX_TEXT) throw new Failure('tooLarge', 'message too long', { reason: 'messageTooLong' })
    const message = await target(roomId, msgId)
    if (message.userId !== me() || message.relayedBy !== null)
      throw new Failure('forbidden', 'not the author of the message')
    const sent = await publishChange(roomId, { kind: 'edit', ...head(), targetId: msgId, text })
    const change = sent?.kind === 'edit' ? sent : null
    const state = { edited: true, verification: 'unsigned', signature: null, change } as const
    await inOrder(roomId, () => keep({ ...message, ...state, text }))
  }

  async function remove(roomId: RoomId, msgId: MsgId): Promise<void> {
    const message = await target(roomId, msgId)
    const own = message.userId === me() && message.relayedBy === null
    if (!own && !members.rights(roomId).moderate) throw new Failure('forbidden', 'neither author nor moderator')
    const sent = await publishChange(roomId, { kind: 'delete', ...head(), targetId: msgId, moderator: !own })
    if (sent?.kind === 'delete') await inOrder(roomId, () => keep(applyDelete(message, sent, false)))
  }

  async function react(roomId: RoomId, msgId: MsgId, emoji: string): Promise<void> {
    if (!isEmoji(emoji)) throw new Failure('invalid', 'not an emoji', { reason: 'notAnEmoji' })
    const mine = reactions.get(roomId)?.get(msgId)?.get(emoji)?.people.has(me()) ?? false
    const value = mine ? null : { userId: me(), timestamp: clock.now() }
    await runtime.connection.set(address.reaction(roomId, msgId, emoji, me()), value)
    if (!mine) settings.noteEmoji(emoji)
  }

  // --- receipts ---

  const receiptTimers = new Map<RoomId, () => void>()

  function sendReceipt(roomId: RoomId): void {
    receiptTimers.delete(roomId)
    const last = (timelines.get(roomId) ?? EMPTY).messages.findLast((message) => message.userId !== me())
    const sent = receipts.get(roomId)?.get(me())
    if (!last || !settings.sendReceipts || (sent && sent.timestamp >= last.timestamp)) return
    const value = { userId: me(), msgId: last.msgId, timestamp: last.timestamp }
    runtime.connection.set(address.receipt(roomId, me()), value).catch(() => undefined)
  }

  function planReceipt(roomId: RoomId): void {
    if (!rooms.isWatched(roomId) || receiptTimers.has(roomId)) return
    receiptTimers.set(
      roomId,
      clock.after(RECEIPT_DELAY_MS, () => sendReceipt(roomId)),
    )
  }

  // --- drafts, search ---

  const draft = (roomId: RoomId): Draft => drafts.get(roomId) ?? { text: '', replyTo: null, image: null, edit: null }

  function setDraft(roomId: RoomId, { text, replyTo, image, edit }: Draft): void {
    // After a sign-out there is no storage; the composer still reports its draft when it is unmounted.
    if (!runtime.begun) return
    const kept = { roomId, text, replyTo, image, edit }
    drafts.set(roomId, kept)
    runtime.storage.putDraft(kept).catch(reportStorage)
  }

  async function search(query: string, roomId?: RoomId): Promise<readonly ChatMessage[]> {
    const found = await storage().search(query, roomId ?? null)
    const byId = new Map(found.map((message) => [message.msgId, message]))
    return found.map((message) => view(message, byId, []))
  }

  // --- life ---

  async function resumeOutbox(roomId: RoomId): Promise<void> {
    for (const message of await storage().undelivered(roomId)) {
      const known = runtime.outbox.has(`${roomId} ${message.msgId}`)
      if (message.delivery !== 'failed' && !known) post(message)
    }
  }

  function takeRoomEvent(event: RoomEvent): void {
    const { roomId } = event
    const line = systemLines.take(event)
    if (line) {
      lineCount += 1
      lines.set(roomId, withLine(lines.get(roomId) ?? [], lineMessage(roomId, line, now(), lineCount)))
    }
    if (event.type === 'update') hear(roomId, event)
    else if (event.type === 'keysArrived') void readAgain(roomId)
    else if (event.type === 'encryption') runtime.outbox.resume(roomId)
    else if (event.type === 'access' && event.access === 'inside') catchUp.entered(roomId)
    else if (event.type === 'access' || event.type === 'kicked') catchUp.left(roomId)
  }

  async function begin(): Promise<void> {
    for (const stored of await runtime.storage.drafts()) drafts.set(stored.roomId, stored)
  }

  async function resumeOutboxes(): Promise<void> {
    for (const room of await runtime.storage.rooms()) if (room.joined) await resumeOutbox(room.id)
  }

  runtime.on('begin', () => void begin())
  runtime.on('alone', () => void resumeOutboxes())
  runtime.on('room', takeRoomEvent)
  runtime.on('delivery', takeDelivery)
  runtime.on('read', ({ roomId }) => planReceipt(roomId))
  runtime.on('end', () => {
    for (const map of [timelines, reactions, receipts, drafts, loading, shown, tails, lines]) map.clear()
    for (const stop of receiptTimers.values()) stop()
    receiptTimers.clear()
    received.clear()
    storageFailed = false
    systemLines.clear()
    catchUp.clear()
    history.clear()
    verifier.clear()
  })

  return {
    timeline,
    catchingUp: (roomId: RoomId) => catchingUp.has(roomId) && othersIn(roomId).length > 0,
    hasOlder: (roomId: RoomId) => timelines.get(roomId)?.hasOlder ?? false,
    unreadSince: rooms.unreadSince,
    loadOlder,
    reveal,
    send,
    edit,
    remove,
    canEdit: (message: ChatMessage) =>
      message.own && message.kind === 'text' && !message.deleted && message.delivery === 'confirmed',
    canRemove: (message: ChatMessage) =>
      !message.deleted && message.delivery === 'confirmed' && (message.own || members.rights(message.roomId).moderate),
    retry,
    discard,
    react,
    search,
    prepareImage,
    draft,
    setDraft,
    commands: COMMANDS.map(({ name, usage }) => ({ name, usage })),
  }
})

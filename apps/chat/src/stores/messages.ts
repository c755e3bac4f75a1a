import { defineStore } from 'pinia'
import { computed, shallowReactive, type ComputedRef } from 'vue'
import { address, isEmoji } from '@/protocol/addresses'
import type { ReplayedEvent, Update } from '@/protocol/connection'
import { Failure } from '@/protocol/errors'
import * as shapes from '@/protocol/shapes'
import type { StoredDraft, StoredMessage } from '@/storage/types'
import type { RoomEvent } from './live/liveRoom'
import { useBlocksStore } from './blocks'
import { useMembersStore } from './members'
import { CatchUp } from './messages/catchUp'
import { COMMANDS } from './messages/commands'
import { HistoryExchange, type Received } from './messages/history'
import { Log, type Arrival, type Shown } from './messages/log'
import { withReaction, type RoomReactions } from './messages/reactions'
import { Receipts } from './messages/receipts'
import { Replays } from './messages/replays'
import { Sender } from './messages/sender'
import { lineMessage, merged, SystemLines, withLine } from './messages/systemLines'
import { EMPTY, withMessage, withOlder, withoutMessage, type Timeline } from './messages/timeline'
import { Verifier } from './messages/verifier'
import { peopleNamed, Views } from './messages/views'
import { useNotificationsStore } from './notifications'
import { usePushStore } from './push'
import { useRoomsStore } from './rooms'
import { useRuntime } from './runtime'
import { useSettingsStore } from './settings'
import type { ChatMessage, Draft, MsgId, RoomId, UserId } from './types'

const PAGE = 50
/** Between what arrives in one moment, as the clock counts it. */
const BETWEEN_MS = 0.001
const SAME_MOMENT_MS = 100
/** An event of the relay arrives within this time; where it carries another one, that is no time of the relay. */
const MAX_TRANSIT_MS = 30_000

export const useMessagesStore = defineStore('messages', () => {
  const runtime = useRuntime()
  const rooms = useRoomsStore()
  const members = useMembersStore()
  const push = usePushStore()
  const blocks = useBlocksStore()
  const settings = useSettingsStore()
  const notifications = useNotificationsStore()
  const { clock } = runtime.platform

  const timelines = shallowReactive(new Map<RoomId, Timeline>())
  const reactions = shallowReactive(new Map<RoomId, RoomReactions>())
  const drafts = shallowReactive(new Map<RoomId, StoredDraft>())
  const loading = new Map<RoomId, Promise<void>>()
  /** Keys of the messages that this tab has counted. */
  const received = new Set<string>()
  const shown = new Map<RoomId, ComputedRef<readonly ChatMessage[]>>()
  /** By room: the last task. Tasks of a room run in order, although decryption is asynchronous. */
  const tails = new Map<RoomId, Promise<unknown>>()
  const lines = shallowReactive(new Map<RoomId, readonly ChatMessage[]>())
  const systemLines = new SystemLines(members.nameOf)
  let lineCount = 0
  let storageFailed = false
  /** The time of the last arrival that the relay did not date, ms. */
  let lastArrival = 0
  const verifier = new Verifier(runtime)
  const views = new Views(runtime, members, reactions)
  const me = (): UserId => runtime.self.userId
  const othersIn = (roomId: RoomId) => members.presentIds(roomId).filter((userId) => userId !== me())
  const catchingUp = shallowReactive(new Set<RoomId>())
  const history = new HistoryExchange(runtime, takeHistory, members.presentIds)
  const replayed = new Replays(runtime, takeReplayed)
  const catchUp = new CatchUp({
    clock,
    inside: (roomId) => runtime.rooms.get(roomId)?.access === 'inside',
    since: (roomId, leftAtMs) => history.since(roomId, leftAtMs),
    replay: (roomId) => replayed.catchUp(roomId),
    ask: (roomId, sinceMs) => history.ask(roomId, sinceMs),
    cancel: (roomId) => history.cancel(roomId),
    othersIn,
    catchingUp: (roomId, busy) => (busy ? catchingUp.add(roomId) : catchingUp.delete(roomId)),
  })

  const log = new Log({
    storage: () => runtime.storage.messages,
    active: () => runtime.begun,
    prove: (roomId, event) => verifier.prove(roomId, event),
    show: showAll,
    report: reportStorage,
    proven: count,
    inOrder,
  })
  const sender = new Sender({
    runtime,
    inOrder,
    find,
    keep,
    drop: async (roomId, msgId) => {
      await storage().remove(roomId, msgId)
      timelines.set(roomId, withoutMessage(timelines.get(roomId) ?? EMPTY, msgId))
    },
    append: async (roomId, arrival) => {
      await log.append(roomId, (await runtime.rooms.get(roomId)?.room()) ?? null, [{ ...arrival, at: arrivalTime() }])
    },
    mayModerate: (roomId) => members.rights(roomId).moderate,
    mentions: (roomId, text, encrypted) =>
      encrypted && !push.tellsMentions ? [] : peopleNamed(text, [...members.present(roomId), ...members.away(roomId)]),
  })
  const receipts = new Receipts({
    runtime,
    messages: (roomId) => (timelines.get(roomId) ?? EMPTY).messages,
    isWatched: rooms.isWatched,
    wanted: () => settings.sendReceipts,
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
      void log.proveRest(roomId)
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

  function showAll(roomId: RoomId, rows: readonly StoredMessage[], gone: readonly string[]): void {
    const timeline = timelines.get(roomId)
    if (timeline && gone.length > 0)
      timelines.set(
        roomId,
        gone.reduce((rest, msgId) => withoutMessage(rest, msgId), timeline),
      )
    for (const row of rows) {
      views.arrived(row)
      show(row)
    }
  }

  /** Nothing is shown of people who are blocked. */
  const isHeard = ({ userId }: StoredMessage): boolean => !blocks.isBlocked(userId)

  // --- for components ---

  function shownOf(roomId: RoomId): ComputedRef<readonly ChatMessage[]> {
    const known = shown.get(roomId)
    if (known) return known
    const made = computed(() => {
      const { messages: known } = timelines.get(roomId) ?? EMPTY
      const messages = blocks.blocked.length === 0 ? known : known.filter(isHeard)
      const byId = new Map(messages.map((message) => [message.msgId, message]))
      const readers = receipts.readersByMessage(roomId, messages)
      const all = messages.map((message) => views.view(message, byId, readers.get(message.msgId)))
      return merged(all, lines.get(roomId) ?? [])
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
    if (place.kind === 'messages' && update.kind === 'publish') {
      const accepted = acceptance(update)
      void inOrder(roomId, () => receive(roomId, update, accepted))
    } else if (place.kind === 'reaction') {
      const value = shapes.parseReaction(update.value)
      reactions.set(roomId, withReaction(reactions.get(roomId) ?? new Map(), place, value))
    } else if (place.kind === 'receipt') receipts.hear(roomId, place.userId, update.value)
    else if (place.kind === 'presence') {
      if (place.userId !== me() && members.isPresent(roomId, place.userId)) catchUp.saw(roomId, place.userId)
    } else if (place.kind === 'historyCall') {
      const call = shapes.parseHistoryCall(update.value)
      if (call) history.hearCall(roomId, call)
    } else if (place.kind === 'historyFor' && place.userId === me()) {
      const mail = shapes.parseHistoryMail(update.value)
      if (mail) void history.hearMail(roomId, mail)
    }
  }

  /** The relay's time, ms; what arrives in the same moment keeps its order. */
  function arrivalTime(): number {
    const current = runtime.connection.serverNow()
    const isSameMoment = lastArrival >= current && lastArrival < current + SAME_MOMENT_MS
    lastArrival = isSameMoment ? lastArrival + BETWEEN_MS : current
    return lastArrival
  }

  /** When the relay accepted what arrives now. It says so itself, unless it keeps nothing of this room. */
  function acceptance({ atMs }: Update): Pick<Arrival, 'at' | 'dated'> {
    const arrivedAt = runtime.connection.serverNow()
    const isTime = atMs !== null && Math.abs(atMs - arrivedAt) <= MAX_TRANSIT_MS
    return isTime ? { at: atMs, dated: true } : { at: arrivalTime() }
  }

  /** Whether a user may delete what others wrote, as far as is known here and now. */
  const moderates = (roomId: RoomId, { kind, userId }: shapes.RoomMessage): boolean =>
    kind === 'delete' && userId !== null && members.roleOf(roomId, userId) !== 'member'

  /**
   * Whether an event from the relay is a moderator's delete. The relay says what its sender was at that time; where it
   * says nothing, what they are now decides.
   */
  const hasModerated = (roomId: RoomId, event: shapes.RoomMessage, value: unknown): boolean =>
    event.kind === 'delete' && (shapes.stampedRole(value) !== null || (event.moderator && moderates(roomId, event)))

  async function receive(roomId: RoomId, update: Update, accepted: Pick<Arrival, 'at' | 'dated'>): Promise<void> {
    const event = shapes.parseMessage(update.value)
    const live = runtime.rooms.get(roomId)
    if (!event || !live) return
    // A relay without the chat's policy would deliver messages of banned users.
    if (event.userId !== null && members.bans(roomId).some((ban) => ban.userId === event.userId)) return
    const moderator = hasModerated(roomId, event, update.value)
    const arrival = { event, ...accepted, via: 'live' as const, sharedBy: null, moderator, encrypted: false }
    const room = await live.room()
    const changed = await log.append(roomId, room, [arrival])
    const isClosed =
      event.kind !== 'delete' && event.sealed !== null && (await room.open(event.sealed, event.keyId)) === null
    if (isClosed) await live.tell({ type: 'unreadable' })
    if (event.kind === 'message') announce(roomId, event, changed)
  }

  /** Counts and announces a message that arrived from the relay, unless it was counted when it was handed on. */
  function announce(roomId: RoomId, event: shapes.TextMessage, changed: readonly Shown[]): void {
    const key = `${roomId} ${event.msgId}`
    const isItsRow = ({ row }: Shown): boolean => row.userId === event.userId
    const message = (changed.find(({ isNew }) => isNew) ?? changed.find(isItsRow))?.row
    if (!message || received.has(key) || message.userId !== event.userId || !isHeard(message)) return
    received.add(key)
    const own = message.userId === me()
    const mention = !own && views.namesMe(message.text)
    rooms.noteMessage(roomId, message.timestamp, own, mention)
    if (!own) alertAbout(message, mention)
  }

  const find1 = (roomId: RoomId, msgId: MsgId): StoredMessage | undefined =>
    timelines.get(roomId)?.messages.find((message) => message.msgId === msgId)

  function alertAbout(message: StoredMessage, mention: boolean): void {
    const room = rooms.byId[message.roomId]
    const { status } = runtime.self
    if (!room || room.muted || status === 'dnd' || rooms.isWatched(message.roomId)) return
    if (mention && message.roomId !== rooms.activeId) {
      const params = { name: views.nameOf(message), room: room.name }
      notifications.notify({ kind: 'info', key: 'notices.mention', params, roomId: message.roomId })
    }
    if (!settings.desktopNotifications) return
    const text = message.secrecy === 'unreadable' ? '' : message.text || message.alt
    notifications.desktop({
      title: `${views.nameOf(message)} · ${room.name}`,
      body: text,
      roomId: message.roomId,
      mention,
    })
  }

  /** After new keys arrived: decrypts messages that were unreadable. */
  async function readAgain(roomId: RoomId): Promise<void> {
    const room = await runtime.rooms.get(roomId)?.room()
    if (room) await log.readAgain(roomId, room)
    runtime.outbox.resume(roomId)
  }

  async function takeHistory({ roomId, events, keys, from, encrypted }: Received): Promise<void> {
    const live = runtime.rooms.get(roomId)
    if (!live) return
    if (keys.length > 0) await live.tell({ type: 'learn', keys })
    const room = await live.room()
    const arrivals = events.map((event): Arrival => {
      const at = Math.min(event.timestamp, now())
      return { event, at, via: 'shared', sharedBy: from, moderator: moderates(roomId, event), encrypted }
    })
    await inOrder(roomId, () => log.append(roomId, room, arrivals))
    await log.settled(roomId)
    if (keys.length > 0) await readAgain(roomId)
  }

  /** What the relay kept is as good as what arrives from it now: it names the author of each event. */
  async function takeReplayed(roomId: RoomId, events: readonly ReplayedEvent[]): Promise<void> {
    const live = runtime.rooms.get(roomId)
    if (!live) return
    const arrivals = events.flatMap(({ value, atMs }): Arrival[] => {
      const event = shapes.parseMessage(value)
      if (!event || members.bans(roomId).some((ban) => ban.userId === event.userId)) return []
      const moderator = hasModerated(roomId, event, value)
      return [{ event, at: atMs, dated: true, via: 'live', sharedBy: null, moderator, encrypted: false }]
    })
    const room = await live.room()
    // The newest one first, since that is what is on screen.
    const shown = await inOrder(roomId, () => log.append(roomId, room, arrivals.reverse()))
    count(shown.reverse())
    if ((await storage().unfinished(roomId, 'closed')).length > 0) await live.tell({ type: 'unreadable' })
  }

  /** Counts what was handed on once it is shown, which is after its signature was verified. */
  function count(rows: readonly Shown[]): void {
    for (const { row, isNew } of rows) {
      if (!isNew || received.has(`${row.roomId} ${row.msgId}`) || !isHeard(row)) continue
      received.add(`${row.roomId} ${row.msgId}`)
      const { roomId, timestamp, userId, text } = row
      if (timestamp > rooms.lastRead(roomId)) rooms.noteMessage(roomId, timestamp, userId === me(), views.namesMe(text))
      rooms.noteActivity(roomId, timestamp)
    }
  }

  // --- reactions, drafts, search ---

  async function react(roomId: RoomId, msgId: MsgId, emoji: string): Promise<void> {
    if (!isEmoji(emoji)) throw new Failure('invalid', 'not an emoji', { reason: 'notAnEmoji' })
    const mine = reactions.get(roomId)?.get(msgId)?.get(emoji)?.people.has(me()) ?? false
    const value = mine ? null : { userId: me(), timestamp: clock.now() }
    await runtime.connection.set(address.reaction(roomId, msgId, emoji, me()), value, { urgent: true })
    if (!mine) settings.noteEmoji(emoji)
  }

  const draft = (roomId: RoomId): Draft => drafts.get(roomId) ?? { text: '', replyTo: null, image: null, edit: null }

  function setDraft(roomId: RoomId, { text, replyTo, image, edit }: Draft): void {
    // After a sign-out there is no storage; the composer still reports its draft when it is unmounted.
    if (!runtime.begun) return
    const kept = { roomId, text, replyTo, image, edit }
    drafts.set(roomId, kept)
    runtime.storage.putDraft(kept).catch(reportStorage)
  }

  async function search(query: string, roomId?: RoomId): Promise<readonly ChatMessage[]> {
    const found = (await storage().search(query, roomId ?? null)).filter(isHeard)
    const byId = new Map(found.map((message) => [message.msgId, message]))
    return found.map((message) => views.view(message, byId))
  }

  /** Makes searches ready, while somebody types the first words. */
  const prepareSearch = (): Promise<void> => storage().prepareSearch()

  // --- life ---

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
    else if (event.type === 'access' && event.access === 'inside') {
      catchUp.entered(roomId)
      // Whose signatures could not be checked without a connection.
      if (loading.has(roomId)) void log.proveRest(roomId)
      runtime.outbox.resume(roomId)
    } else if (event.type === 'access' || event.type === 'kicked') catchUp.left(roomId)
  }

  async function begin(): Promise<void> {
    for (const stored of await runtime.storage.drafts()) drafts.set(stored.roomId, stored)
  }

  async function resumeOutboxes(): Promise<void> {
    for (const room of await runtime.storage.rooms()) if (room.joined) await sender.resume(room.id)
  }

  runtime.on('begin', () => void begin())
  runtime.on('alone', () => void resumeOutboxes())
  runtime.on('room', takeRoomEvent)
  runtime.on('delivery', ({ id, state, failure }) => sender.takeDelivery(id, state, failure))
  runtime.on('read', ({ roomId }) => receipts.plan(roomId))
  runtime.on('end', () => {
    for (const map of [timelines, reactions, drafts, loading, shown, tails, lines]) map.clear()
    for (const part of [receipts, views, log, sender]) part.clear()
    received.clear()
    storageFailed = false
    systemLines.clear()
    catchUp.clear()
    history.clear()
    replayed.clear()
    verifier.clear()
  })

  return {
    timeline,
    catchingUp: (roomId: RoomId) => catchingUp.has(roomId) && othersIn(roomId).length > 0,
    hasOlder: (roomId: RoomId) => timelines.get(roomId)?.hasOlder ?? false,
    unreadSince: rooms.unreadSince,
    loadOlder,
    reveal,
    send: async (roomId: RoomId, message: Parameters<Sender['send']>[1]) => {
      await sender.send(roomId, message)
      rooms.noteMessage(roomId, now(), true, false)
      members.stopTyping(roomId)
    },
    edit: (roomId: RoomId, msgId: MsgId, text: string) => sender.edit(roomId, msgId, text),
    remove: async (roomId: RoomId, msgId: MsgId) => {
      const file = find1(roomId, msgId)?.file
      await sender.remove(roomId, msgId)
      // Somebody else's file stays with its sender; one that is gone already is what was wanted.
      if (file) runtime.files.remove(runtime.token ?? '', file.id).catch(() => undefined)
    },
    canEdit: (message: ChatMessage) =>
      message.own && message.kind === 'text' && !message.file && !message.deleted && message.delivery === 'confirmed',
    canRemove: (message: ChatMessage) =>
      !message.deleted && message.delivery === 'confirmed' && (message.own || members.rights(message.roomId).moderate),
    retry: (roomId: RoomId, msgId: MsgId) => sender.retry(roomId, msgId),
    discard: (roomId: RoomId, msgId: MsgId) => sender.discard(roomId, msgId),
    react,
    search,
    prepareSearch,
    prepareImage: async (file: Blob) => (await import('./messages/images')).prepareImage(file),
    draft,
    setDraft,
    commands: COMMANDS.map(({ name, usage }) => ({ name, usage })),
  }
})

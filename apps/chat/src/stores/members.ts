import { defineStore } from 'pinia'
import { shallowReactive } from 'vue'
import { address, type Place } from '@/protocol/addresses'
import type { Update } from '@/protocol/connection'
import { SIGNING_ALGORITHM } from '@/crypto/signing'
import { Failure } from '@/protocol/errors'
import * as shapes from '@/protocol/shapes'
import { isPresent, STALE_MS, type RoomEvent } from './live/liveRoom'
import { useBlocksStore } from './blocks'
import { markOf, namesakesOf, type Namesakes } from './names'
import { useRoomsStore } from './rooms'
import { useRuntime } from './runtime'
import type { AbsentMember, Ban, Member, Person, Profile, Rights, Role, RoomId, UserId } from './types'

/** Typing ends after this time without a repetition. */
const TYPING_MS = 5_000
/** The original app hides typing after 3 s, so it is repeated. */
const TYPING_AGAIN_MS = 2_000
const TYPING_IDLE_MS = 2_500
const KICK_COLOR = '#6b7280'

interface Seen extends shapes.Presence {
  /** Time of the last heartbeat by the own clock, ms. */
  seenAt: number
}

interface RoomPeople {
  present: Map<UserId, Seen>
  typing: Map<UserId, { name: string; until: number }>
  admins: Set<UserId>
  bans: Map<UserId, Ban>
  /** Who has joined, present or not. */
  joined: Map<UserId, shapes.Presence>
}

const ROLES: readonly Role[] = ['creator', 'admin', 'member']
const NO_RIGHTS: Rights = {
  rename: false,
  visibility: false,
  password: false,
  promote: false,
  kick: false,
  ban: false,
  moderate: false,
  remove: false,
  encrypt: false,
}

/** Whether two presences look alike. The original writes the present time as `joinedAt` with every heartbeat. */
const isSame = (one: shapes.Presence, other: shapes.Presence): boolean =>
  one.name === other.name &&
  one.avatarColor === other.avatarColor &&
  one.status === other.status &&
  one.account === other.account

const collator = new Intl.Collator()

export const useMembersStore = defineStore('members', () => {
  const runtime = useRuntime()
  const rooms = useRoomsStore()
  const { clock } = runtime.platform
  const blocks = useBlocksStore()
  const people = shallowReactive(new Map<RoomId, RoomPeople>())
  const knownColors = new Map<UserId, string>()
  /** Names of users who were present or are members, for receipts and history of users who are away. */
  const knownNames = new Map<UserId, string>()
  let typingIn: { roomId: RoomId; saidAt: number; stopIdle: () => void } | null = null

  const of = (roomId: RoomId): RoomPeople =>
    people.get(roomId) ?? {
      present: new Map(),
      typing: new Map(),
      admins: new Set(),
      bans: new Map(),
      joined: new Map(),
    }

  /** The list of a room, until somebody in it changes; several components show it. */
  const listed = new WeakMap<RoomPeople, { creatorId: UserId | null; members: readonly Member[] }>()

  /** Who has a name like another's, until somebody comes, goes or changes theirs. */
  const named = new WeakMap<RoomPeople, Namesakes>()

  function namesakes(room: RoomPeople): Namesakes {
    const made = named.get(room) ?? namesakesOf([...room.joined, ...room.present])
    named.set(room, made)
    return made
  }

  /** Replaces the state of a room, so that components are updated. */
  function change(roomId: RoomId, edit: (room: RoomPeople) => void): void {
    const { present, typing, admins, bans, joined } = of(roomId)
    const others = { typing: new Map(typing), admins: new Set(admins), bans: new Map(bans), joined: new Map(joined) }
    const copy = { present: new Map(present), ...others }
    edit(copy)
    people.set(roomId, copy)
  }

  /** Typing comes and goes all the time: the list of a thousand members is not made anew for it. */
  function changeTyping(roomId: RoomId, edit: (typing: RoomPeople['typing']) => void): void {
    const before = of(roomId)
    const after = { ...before, typing: new Map(before.typing) }
    edit(after.typing)
    const known = listed.get(before)
    if (known) listed.set(after, known)
    const doubles = named.get(before)
    if (doubles) named.set(after, doubles)
    people.set(roomId, after)
  }

  // --- receiving ---

  function hear(roomId: RoomId, place: Place, update: Update): void {
    if (place.kind === 'presence') hearPresence(roomId, place.userId, update)
    else if (place.kind === 'member') hearMember(roomId, place.userId, shapes.parsePresence(update.value))
    else if (place.kind === 'typing') hearTyping(roomId, place.userId, update.value)
    else if (place.kind === 'admin') {
      const admin = shapes.parseAdmin(update.value) !== null
      change(roomId, ({ admins }) => (admin ? admins.add(place.userId) : admins.delete(place.userId)))
    } else if (place.kind === 'ban') {
      const ban = shapes.parseBan(update.value)
      const { userId } = place
      change(roomId, ({ bans }) => {
        if (ban) bans.set(userId, { userId, name: ban.name, bannedBy: ban.bannedBy ?? '', timestamp: ban.timestamp })
        else bans.delete(userId)
      })
    }
  }

  function hearMember(roomId: RoomId, userId: UserId, person: shapes.Presence | null): void {
    noteName(userId, person)
    const before = of(roomId).joined.get(userId)
    if (before && person && before.name === person.name && before.avatarColor === person.avatarColor) return
    change(roomId, ({ joined }) => (person ? joined.set(userId, person) : joined.delete(userId)))
  }

  function noteName(userId: UserId, person: shapes.Presence | null): void {
    if (!person) return
    knownColors.set(userId, person.avatarColor)
    if (person.name) knownNames.set(userId, person.name)
  }

  function hearPresence(roomId: RoomId, userId: UserId, { value, ageMs }: Update): void {
    const presence = isPresent(value, ageMs) ? shapes.parsePresence(value) : null
    const seenAt = clock.now() - (ageMs ?? 0)
    noteName(userId, presence)
    const before = of(roomId).present.get(userId)
    if (before && presence && isSame(before, presence)) {
      // A heartbeat without a change must not render the room again.
      before.seenAt = seenAt
      return
    }
    change(roomId, ({ present }) => {
      if (presence) present.set(userId, { ...presence, seenAt })
      else present.delete(userId)
    })
  }

  function hearTyping(roomId: RoomId, userId: UserId, value: unknown): void {
    const typing = blocks.isBlocked(userId) ? null : shapes.parseTyping(value)
    if (!typing && !of(roomId).typing.has(userId)) return
    changeTyping(roomId, (those) => {
      if (typing) those.set(userId, { name: typing.name, until: clock.now() + TYPING_MS })
      else those.delete(userId)
    })
    if (typing) clock.after(TYPING_MS, sweep)
  }

  /** Removes stale presences and typing notices. */
  function sweep(): void {
    const now = clock.now()
    for (const [roomId, room] of people) {
      const ghosts = [...room.present].filter(([, seen]) => now - seen.seenAt >= STALE_MS)
      const silent = [...room.typing].filter(([, { until }]) => until <= now)
      if (silent.length > 0)
        changeTyping(roomId, (typing) => {
          for (const [userId] of silent) typing.delete(userId)
        })
      if (ghosts.length > 0)
        change(roomId, ({ present }) => {
          for (const [userId] of ghosts) present.delete(userId)
        })
    }
  }

  // --- for components ---

  function roleOf(roomId: RoomId, userId: UserId): Role {
    if (rooms.byId[roomId]?.creatorId === userId) return 'creator'
    return of(roomId).admins.has(userId) ? 'admin' : 'member'
  }

  function present(roomId: RoomId): readonly Member[] {
    const room = of(roomId)
    const creatorId = rooms.byId[roomId]?.creatorId ?? null
    const known = listed.get(room)
    if (known?.creatorId === creatorId) return known.members
    const members = listOf(roomId, room)
    listed.set(room, { creatorId, members })
    return members
  }

  function listOf(roomId: RoomId, room: RoomPeople): readonly Member[] {
    const me = runtime.self.userId
    const members = [...room.present].map(
      ([userId, { name, avatarColor: color, status, joinedAt, account }]): Member => {
        const idMark = markOf(namesakes(room), userId, name)
        const role = roleOf(roomId, userId)
        return { userId, name, idMark, color, status, joinedAt, account, role, self: userId === me }
      },
    )
    const rank = (member: Member): number => ROLES.indexOf(member.role)
    return members
      .filter((member) => member.status !== 'invisible' || member.self)
      .sort((one, other) => rank(one) - rank(other) || collator.compare(one.name, other.name))
  }

  /** Who has joined and is not seen here: away, or invisible. */
  function away(roomId: RoomId): readonly AbsentMember[] {
    const room = of(roomId)
    const seen = new Set(present(roomId).map((member) => member.userId))
    return [...room.joined]
      .filter(([userId]) => !seen.has(userId) && !room.bans.has(userId))
      .map(([userId, { name, avatarColor }]) => {
        const idMark = markOf(namesakes(room), userId, name)
        return { userId, name, idMark, color: avatarColor, role: roleOf(roomId, userId) }
      })
      .sort((one, other) => collator.compare(one.name, other.name))
  }

  function typing(roomId: RoomId): readonly Person[] {
    const me = runtime.self.userId
    const room = of(roomId)
    return [...room.typing]
      .filter(([userId]) => userId !== me && room.present.get(userId)?.status !== 'invisible')
      .map(([userId, { name }]) => ({ userId, name: room.present.get(userId)?.name || name, color: colorOf(userId) }))
  }

  const colorOf = (userId: UserId): string => knownColors.get(userId) ?? shapes.DEFAULT_COLOR

  function nameOf(roomId: RoomId, userId: UserId): string {
    return of(roomId).present.get(userId)?.name || (knownNames.get(userId) ?? '')
  }

  /** What tells an author apart from people in the room whose name looks the same; '' where nobody's does. */
  const idMark = (roomId: RoomId, userId: UserId, name: string): string => markOf(namesakes(of(roomId)), userId, name)

  function rights(roomId: RoomId): Rights {
    const room = rooms.byId[roomId]
    const role = roleOf(roomId, runtime.self.userId)
    if (!room || role === 'member' || room.type === 'dm') {
      return { ...NO_RIGHTS, encrypt: room?.type === 'dm' && role === 'creator' && room.encryption === 'off' }
    }
    const creator = role === 'creator'
    const shared = { kick: true, ban: true, moderate: true }
    // All of these write the meta, which the relay allows only to the creator.
    const own = { rename: creator, visibility: creator, password: creator, promote: creator, remove: creator }
    return { ...shared, ...own, encrypt: creator && room.encryption === 'off' }
  }

  // --- typing ---

  function say(roomId: RoomId, value: object | null): void {
    const where = address.typing(roomId, runtime.self.userId)
    // Typing matters only now: a lost message is not repeated.
    runtime.connection.set(where, value && shapes.asValue(value)).catch(() => undefined)
  }

  function stopTyping(roomId: RoomId): void {
    if (typingIn?.roomId !== roomId) return
    typingIn.stopIdle()
    typingIn = null
    say(roomId, null)
  }

  function noteTyping(roomId: RoomId): void {
    if (runtime.self.status === 'invisible') return
    if (typingIn && typingIn.roomId !== roomId) stopTyping(typingIn.roomId)
    const now = clock.now()
    typingIn?.stopIdle()
    const saidAt = typingIn?.saidAt ?? -Infinity
    const again = now - saidAt >= TYPING_AGAIN_MS
    typingIn = { roomId, saidAt: again ? now : saidAt, stopIdle: clock.after(TYPING_IDLE_MS, () => stopTyping(roomId)) }
    if (again) say(roomId, { name: runtime.self.name, timestamp: now })
  }

  // --- actions ---

  async function promote(roomId: RoomId, userId: UserId): Promise<void> {
    const value = { role: 'admin', promotedBy: runtime.self.userId, timestamp: clock.now() }
    await runtime.connection.set(address.admin(roomId, userId), value)
  }

  async function demote(roomId: RoomId, userId: UserId): Promise<void> {
    await runtime.connection.set(address.admin(roomId, userId), null)
  }

  /** The notice of the original app. It is always plain text, and therefore omitted in encrypted rooms. */
  async function announceKick(roomId: RoomId, userId: UserId): Promise<void> {
    if (rooms.byId[roomId]?.encryption !== 'off') return
    const now = clock.now()
    const { userId: me } = runtime.self
    const text = `${nameOf(roomId, userId) || 'Somebody'} was kicked from the room`
    const head = { type: 'text', fromId: me, userId: me, from: 'System', msgId: `kick-${now}`, text }
    const notice = { ...head, timestamp: now, avatarColor: KICK_COLOR }
    await runtime.connection.publish(address.messages(roomId), notice)
  }

  async function shutOut(roomId: RoomId, userId: UserId): Promise<void> {
    runtime.emit('shutOut', { roomId, userId })
    try {
      await runtime.connection.set(address.presence(roomId, userId), null)
      change(roomId, ({ present: there }) => there.delete(userId))
    } finally {
      // Also where they are away, or the relay refuses to remove them: they must not read on.
      await runtime.rooms.get(roomId)?.tell({ type: 'rotate', without: [userId] })
    }
  }

  async function kick(roomId: RoomId, userId: UserId): Promise<void> {
    await announceKick(roomId, userId)
    await shutOut(roomId, userId)
  }

  async function ban(roomId: RoomId, userId: UserId): Promise<void> {
    const value = { bannedBy: runtime.self.userId, timestamp: clock.now(), name: nameOf(roomId, userId) }
    await runtime.connection.set(address.ban(roomId, userId), value)
    await shutOut(roomId, userId)
  }

  async function unban(roomId: RoomId, userId: UserId): Promise<void> {
    await runtime.connection.set(address.ban(roomId, userId), null)
  }

  async function profile(userId: UserId): Promise<Profile | null> {
    const found = shapes.parseProfile(await runtime.connection.get(address.profile(userId)))
    return found && { userId, name: found.name, color: found.avatarColor, status: found.status }
  }

  /** Publishes the own profile and signing key. */
  function publishSelf(): void {
    if (!runtime.begun || !runtime.connection.online) return
    const { userId, name, color, status } = runtime.self
    const own = { name, avatarColor: color, userId, status }
    const key = { publicKey: runtime.identity.signingPublicKey, algorithm: SIGNING_ALGORITHM, timestamp: clock.now() }
    const report = (failure: Failure): void => {
      if (failure.kind !== 'offline') runtime.emit('refusal', { failure, address: null })
    }
    runtime.connection.set(address.profile(userId), shapes.asValue(own)).catch(report)
    runtime.connection.set(address.signingKey(userId), shapes.asValue(key)).catch(report)
  }

  function takeRoomEvent(event: RoomEvent): void {
    if (event.type === 'update') hear(event.roomId, event.place, event.update)
    else if (event.type === 'kicked') people.delete(event.roomId)
  }

  runtime.on('room', takeRoomEvent)
  runtime.on('beat', sweep)
  runtime.on('online', publishSelf)
  runtime.on('self', publishSelf)
  runtime.on('end', () => {
    people.clear()
    knownColors.clear()
    knownNames.clear()
  })

  return {
    present,
    away,
    typing,
    bans: (roomId: RoomId): readonly Ban[] => [...of(roomId).bans.values()],
    admins: (roomId: RoomId): readonly UserId[] => [...of(roomId).admins],
    rights,
    noteTyping,
    stopTyping,
    promote,
    demote,
    kick,
    ban,
    unban,
    profile,
    // For the other stores.
    roleOf,
    colorOf,
    nameOf,
    idMark,
    presentIds: (roomId: RoomId): readonly UserId[] => [...of(roomId).present.keys()],
    isPresent: (roomId: RoomId, userId: UserId) => of(roomId).present.has(userId),
    isPresentAnywhere: (userId: UserId) => [...people.values()].some((room) => room.present.has(userId)),
  }
})

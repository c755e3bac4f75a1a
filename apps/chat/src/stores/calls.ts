/** Calls: who is in those of the watched rooms, and the one that this browser is in. Its code is loaded with the first. */
import { defineStore } from 'pinia'
import { computed, ref, shallowReactive, shallowRef, watch as observe } from 'vue'
import type { Call, CallEnd } from '@/calls/call'
import type { LocalMedia } from '@/calls/media'
import { Roster, type Present } from '@/calls/roster'
import { address, parseAddress, pattern } from '@/protocol/addresses'
import type { Update } from '@/protocol/connection'
import { Failure } from '@/protocol/errors'
import { useBlocksStore } from './blocks'
import { isPresent, type RoomEvent } from './live/liveRoom'
import { useMembersStore } from './members'
import { useNotificationsStore } from './notifications'
import { useRoomsStore } from './rooms'
import { useRuntime } from './runtime'
import type { CallDeviceKind, CallPerson, CurrentCall, Person, RoomId } from './types'

const LEVELS_MS = 150
/** Louder than the noise of a quiet room, 0 to 1. */
const LOUD = 0.02
/** How long the mark of somebody who speaks stays between two words. */
const HOLD_MS = 400
/** Direct messages whose calls ring: each takes a subscription. */
const MAX_RINGING = 10
const DEVICE_KEY = 'clasp-chat-call-'
const OUTSIDE: readonly string[] = ['banned', 'refused', 'missing', 'passwordNeeded']

interface Watched {
  roster: Roster
  users: number
  stop: () => void
}

interface Own {
  roomId: RoomId
  media: LocalMedia
  call: Call
  /** What the own tile shows. */
  preview: MediaStream | null
  stops: (() => void)[]
}

export const useCallsStore = defineStore('calls', () => {
  const runtime = useRuntime()
  const rooms = useRoomsStore()
  const blocks = useBlocksStore()
  const members = useMembersStore()
  const notifications = useNotificationsStore()
  const { clock, local, calls: platform } = runtime.platform
  const watched = new Map<RoomId, Watched>()
  const present = shallowReactive(new Map<RoomId, readonly Present[]>())
  const current = shallowRef<CurrentCall | null>(null)
  const speaking = shallowReactive(new Set<string>())
  const choices = ref(0)
  let own: Own | null = null
  let joins = 0

  // --- who is in a call ---

  function watch(roomId: RoomId): () => void {
    const known = watched.get(roomId)
    if (known) known.users += 1
    else begin(roomId)
    let isEnded = false
    return () => {
      const entry = watched.get(roomId)
      if (isEnded || !entry) return
      isEnded = true
      entry.users -= 1
      if (entry.users > 0) return
      entry.stop()
      watched.delete(roomId)
      present.delete(roomId)
    }
  }

  function begin(roomId: RoomId): void {
    const roster = new Roster(clock, () => {
      present.set(roomId, roster.present(isConnected))
      if (own?.roomId === roomId) own.call.update()
    })
    const stop = runtime.connection.subscribe(pattern.callers(roomId), (update) => {
      const before = present.get(roomId)?.length ?? 0
      roster.hear(update)
      if (before === 0) ring(roomId, update)
    })
    watched.set(roomId, { roster, users: 1, stop })
  }

  const isConnected = (sessionId: string): boolean => own?.call.peers.get(sessionId)?.state === 'connected'

  function personOf(roomId: RoomId, { userId, name, avatarColor }: Present): Person {
    // The name of the member with the id that the relay has stamped; in video rooms the original is no member.
    const member = members.present(roomId).find((each) => each.userId === userId)
    return { userId: userId ?? '', name: member?.name || name, color: member?.color ?? avatarColor }
  }

  const callers = (roomId: RoomId): readonly Person[] =>
    (present.get(roomId) ?? [])
      .filter(({ userId }) => !blocks.isBlocked(userId))
      .map((caller) => personOf(roomId, caller))

  /** The first caller in a direct message: whoever is elsewhere is told. */
  function ring(roomId: RoomId, { kind }: Update): void {
    const [first] = callers(roomId)
    const room = rooms.byId[roomId]
    if (kind !== 'set' || !first || room?.type !== 'dm' || room.muted || own?.roomId === roomId) return
    if (first.userId === runtime.self.userId) return
    notifications.notify({ kind: 'info', key: 'calls.ringing', params: { name: room.name }, roomId })
  }

  const ringing = new Map<RoomId, () => void>()
  observe(
    () => rooms.directMessages.slice(0, MAX_RINGING).map(({ id }) => id),
    (ids) => {
      for (const [id, stop] of ringing) {
        if (ids.includes(id)) continue
        stop()
        ringing.delete(id)
      }
      for (const id of ids) if (!ringing.has(id)) ringing.set(id, watch(id))
    },
  )

  // --- the own call ---

  async function join(roomId: RoomId): Promise<void> {
    if (!platform) throw new Failure('server', 'this browser cannot make calls')
    if (own?.roomId === roomId) return
    leave()
    const turn = ++joins
    const stopWatching = watch(roomId)
    current.value = { ...blank(roomId), joining: true }
    try {
      const [{ Call }, { LocalMedia }] = await Promise.all([import('@/calls/call'), import('@/calls/media')])
      if (turn !== joins) return stopWatching()
      const media = new LocalMedia({
        source: platform.media,
        meter: platform.meter,
        chosen,
        changed: () => tracksChanged(),
      })
      const { roster } = watched.get(roomId) as Watched
      const call = new Call({
        roomId,
        connection: runtime.connection,
        clock,
        self: () => runtime.self,
        iceServers: () => runtime.auth.iceServers(runtime.token ?? ''),
        connect: platform.connect,
        media,
        roster,
        isBlocked: blocks.isBlocked,
        changed: refresh,
        ended: (why) => endedBy(call, why),
      })
      own = { roomId, media, call, preview: null, stops: [stopWatching, followRoom(roomId), listen()] }
      await call.start()
      if (own?.call !== call) return
      void media.refresh()
      refresh()
    } catch (error) {
      // Left meanwhile: nobody asks any more.
      if (turn !== joins) return
      forget()
      stopWatching()
      throw error
    }
  }

  const blank = (roomId: RoomId): CurrentCall => ({
    roomId,
    joining: false,
    people: [],
    microphone: false,
    camera: false,
    sharing: false,
    hasRelay: null,
    devices: [],
  })

  /** Who is removed from the room, or leaves it, leaves its call. */
  function followRoom(roomId: RoomId): () => void {
    return runtime.connection.subscribe(pattern.presences(roomId), ({ address: from, value, kind, ageMs }) => {
      const place = parseAddress(from)
      if (kind !== 'set' || place?.kind !== 'presence' || place.userId === runtime.self.userId) return
      if (value === null) own?.call.eject(place.userId)
      else if (isPresent(value, ageMs)) own?.call.readmit(place.userId)
    })
  }

  function hearRoom(event: RoomEvent): void {
    if (!own || event.roomId !== own.roomId) return
    if (event.type === 'kicked' || (event.type === 'access' && OUTSIDE.includes(event.access))) leave()
    else if (event.type === 'update' && event.place.kind === 'ban' && event.update.value !== null) {
      if (event.place.userId === runtime.self.userId) leave()
      else own.call.eject(event.place.userId)
    }
  }
  runtime.on('room', hearRoom)
  observe(
    () => current.value !== null && rooms.byId[current.value.roomId]?.joined === false,
    (isOutside) => {
      if (isOutside) leave()
    },
  )
  runtime.on('beat', () => {
    own?.call.beat()
    for (const [roomId, { roster }] of watched) present.set(roomId, roster.present(isConnected))
  })
  observe(
    () => blocks.blocked,
    () => own?.call.update(),
  )
  // Another program may stay in the call: the relay takes its place from it, if a moderator asks.
  runtime.on('shutOut', ({ roomId, userId }) => {
    const places = (watched.get(roomId)?.roster.all ?? []).filter((caller) => caller.userId === userId)
    for (const { sessionId } of places)
      runtime.connection.set(address.caller(roomId, sessionId), null).catch(() => undefined)
  })
  // Who left meanwhile is not told any more: the subscriptions say who is there now. With another session id the relay
  // and the others know this browser as somebody new.
  runtime.on('online', () => {
    for (const { roster } of watched.values()) roster.clear()
    if (own && own.call.sessionId !== '') void own.call.rejoin()
  })
  runtime.on('self', () => own?.call.beat())
  runtime.on('end', () => {
    leave()
    for (const { stop } of watched.values()) stop()
    watched.clear()
    ringing.clear()
    present.clear()
  })
  runtime.platform.onClose(leave)

  function endedBy(call: Call, why: CallEnd): void {
    if (own?.call !== call) return
    forget()
    notifications.notify({ kind: 'warning', key: why === 'full' ? 'reasons.callFull' : 'calls.refused' })
  }

  function leave(): void {
    joins += 1
    own?.call.leave()
    forget()
  }

  function forget(): void {
    for (const stop of own?.stops ?? []) stop()
    own = null
    current.value = null
    speaking.clear()
  }

  // --- what components see ---

  function tracksChanged(): void {
    own?.call.updateTracks()
    refresh()
  }

  function refresh(): void {
    if (!own) return
    const { roomId, call, media } = own
    const track = media.track('video')
    if (own.preview?.getTracks()[0] !== (track ?? undefined)) own.preview = track && new MediaStream([track])
    const others = (watched.get(roomId)?.roster.all ?? []).flatMap((caller) => personIn(call, caller))
    current.value = {
      roomId,
      joining: call.hasRelay === null,
      people: [self(own), ...others],
      microphone: media.isHeard,
      camera: media.hasCamera,
      sharing: media.isSharing,
      hasRelay: call.hasRelay,
      devices: media.devices,
    }
  }

  function self({ call, media, preview }: Own): CallPerson {
    const { userId, name, color } = runtime.self
    const flags = { heard: media.isHeard, video: media.track('video') !== null, screen: media.isSharing }
    return { sessionId: call.sessionId, userId, name, color, self: true, ...flags, state: 'connected', stream: preview }
  }

  function personIn(call: Call, caller: Present): CallPerson[] {
    const { sessionId, userId, audioEnabled: heard, videoEnabled: video, screen } = caller
    const peer = call.peers.get(sessionId)
    if (!peer) return []
    const { name, color } = personOf(call.roomId, caller)
    return [
      { sessionId, userId, name, color, self: false, heard, video, screen, state: peer.state, stream: peer.stream },
    ]
  }

  /** Looks from time to time who is loud. */
  function listen(): () => void {
    const lastLoud = new Map<string, number>()
    let stop = (): void => undefined
    const look = (): void => {
      stop = clock.after(LEVELS_MS, look)
      if (!own) return
      const levels: [string, number][] = [...own.call.peers].map(([sessionId, peer]) => [sessionId, peer.level()])
      const now = clock.now()
      for (const [sessionId, level] of [...levels, [own.call.sessionId, own.media.level()] as const]) {
        if (level > LOUD) lastLoud.set(sessionId, now)
        const isLoud = now - (lastLoud.get(sessionId) ?? -Infinity) < HOLD_MS
        if (isLoud && !speaking.has(sessionId)) speaking.add(sessionId)
        else if (!isLoud && speaking.has(sessionId)) speaking.delete(sessionId)
      }
    }
    look()
    return () => stop()
  }

  // --- devices ---

  function mine(): Own {
    if (!own) throw new Failure('missing', 'not in a call')
    return own
  }

  function chosen(kind: CallDeviceKind): string | null {
    void choices.value
    return local.getItem(DEVICE_KEY + kind)
  }

  async function choose(kind: CallDeviceKind, id: string | null): Promise<void> {
    if (id === null) local.removeItem(DEVICE_KEY + kind)
    else local.setItem(DEVICE_KEY + kind, id)
    choices.value += 1
    await own?.media.useChosen(kind)
  }

  return {
    supported: platform !== null,
    current: computed(() => current.value),
    callers,
    isSpeaking: (sessionId: string): boolean => speaking.has(sessionId),
    watch,
    join,
    leave,
    setMicrophone: (on: boolean): Promise<void> => mine().media.setMicrophone(on),
    setCamera: (on: boolean): Promise<void> => mine().media.setCamera(on),
    share: async (): Promise<void> => {
      await mine().media.share()
    },
    stopSharing: (): void => mine().media.stopSharing(),
    chosen,
    choose,
  }
})

import { defineStore } from 'pinia'
import { computed, ref, shallowReactive } from 'vue'
import { address, isGroupPath, parseAddress, parseGroupPath, pattern } from '@/protocol/addresses'
import { Failure } from '@/protocol/errors'
import { asValue, parseGroupMeta, parseRegistryEntry, recordOf, type GroupMeta } from '@/protocol/shapes'
import { useRoomsStore } from './rooms'
import { useRuntime } from './runtime'
import type { Group, Room } from './types'

/** The key in localStorage for pinned paths, as in the original app. */
const KEY = 'clasp-chat-pinned-ns'
const MAX_ICON = 2
const MAX_DESCRIPTION = 500

export const useGroupsStore = defineStore('groups', () => {
  const runtime = useRuntime()
  const rooms = useRoomsStore()
  const { local, clock } = runtime.platform
  const metas = shallowReactive(new Map<string, GroupMeta>())
  const pinnedPaths = ref<readonly string[]>([])
  /** Subscriptions to the rooms of a path, with their number of users. */
  const watched = new Map<string, { count: number; stop: () => void }>()

  function view(path: string, meta: GroupMeta | null): Group {
    return {
      path,
      name: path.split('/').at(-1) as string,
      description: meta?.description ?? '',
      icon: meta?.icon ?? '',
      isPublic: meta?.isPublic ?? false,
      createdBy: meta?.createdBy ?? null,
      creatorName: meta?.creatorName ?? '',
      createdAt: meta?.createdAt ?? null,
      claimsPassword: meta?.hasPassword ?? false,
      pinned: pinnedPaths.value.includes(path),
      mine: meta?.createdBy === runtime.self.userId && meta?.createdBy !== '',
    }
  }

  const byPath = computed(() => recordOf([...metas].map(([path, meta]) => [path, view(path, meta)])))
  const pinned = computed(() => pinnedPaths.value.map((path) => view(path, metas.get(path) ?? null)))

  function children(path: string): readonly Group[] {
    const prefix = path === '' ? '' : `${path}/`
    const below = Object.values(byPath.value).filter(
      (group) => group.path.startsWith(prefix) && (group.isPublic || group.mine || group.pinned),
    )
    // A parent that nobody created must be listed too: it leads to its children.
    const next = new Set(below.map((group) => prefix + (group.path.slice(prefix.length).split('/')[0] as string)))
    return [...next]
      .map((each) => view(each, metas.get(each) ?? null))
      .sort((one, other) => one.path.localeCompare(other.path))
  }

  function roomsIn(path: string): readonly Room[] {
    return Object.values(rooms.byId)
      .filter((room) => room.namespace === path)
      .sort((one, other) => one.name.localeCompare(other.name))
  }

  function watch(path: string): () => void {
    if (!isGroupPath(path)) return () => undefined
    const entry = watched.get(path) ?? { count: 0, stop: subscribe(path) }
    watched.set(path, { ...entry, count: entry.count + 1 })
    let ended = false
    return () => {
      if (ended) return
      ended = true
      unwatch(path)
    }
  }

  function unwatch(path: string): void {
    const entry = watched.get(path)
    if (!entry) return
    if (entry.count > 1) watched.set(path, { ...entry, count: entry.count - 1 })
    else {
      watched.delete(path)
      entry.stop()
    }
  }

  function subscribe(path: string): () => void {
    return runtime.connection.subscribe(pattern.groupRooms(path), ({ address: from, value }) => {
      const place = parseAddress(from)
      if (place?.kind === 'groupRoom') rooms.takeGrouped(place.roomId, place.path, parseRegistryEntry(value))
    })
  }

  function setPinned(paths: readonly string[]): void {
    pinnedPaths.value = [...new Set(paths)].sort()
    local.setItem(KEY, JSON.stringify(pinnedPaths.value))
  }

  /** Another device of this user pinned or unpinned groups. */
  function takePinned(paths: readonly string[]): void {
    const before = pinnedPaths.value
    setPinned(paths)
    for (const path of paths) if (!before.includes(path)) watch(path)
    for (const path of before) if (!paths.includes(path)) unwatch(path)
  }

  function storedPins(): string[] {
    try {
      const paths: unknown = JSON.parse(local.getItem(KEY) ?? '[]')
      return Array.isArray(paths)
        ? paths.filter((path): path is string => typeof path === 'string' && isGroupPath(path))
        : []
    } catch {
      // Not valid JSON: nothing is pinned.
      return []
    }
  }

  function pin(path: string): void {
    if (!isGroupPath(path) || pinnedPaths.value.includes(path)) return
    setPinned([...pinnedPaths.value, path])
    runtime.emit('pinned', null)
    watch(path)
  }

  function unpin(path: string): void {
    if (!pinnedPaths.value.includes(path)) return
    setPinned(pinnedPaths.value.filter((other) => other !== path))
    runtime.emit('pinned', null)
    unwatch(path)
  }

  function checkedPath(path: string): string {
    const parsed = parseGroupPath(path)
    if (parsed === null) throw new Failure('invalid', `invalid group path: ${path}`, { reason: 'groupPath' })
    return parsed
  }

  function valueOf(
    meta: Pick<GroupMeta, 'description' | 'icon' | 'isPublic' | 'createdBy' | 'creatorName' | 'createdAt'>,
  ) {
    const { description, icon, isPublic, createdBy, creatorName, createdAt } = meta
    const shown = {
      description: description.trim().slice(0, MAX_DESCRIPTION),
      icon: [...icon].slice(0, MAX_ICON).join(''),
    }
    return asValue({ ...shown, isPublic, createdBy: createdBy ?? '', creatorName, createdAt: createdAt ?? clock.now() })
  }

  async function create(group: { path: string; description: string; icon: string; isPublic: boolean }): Promise<void> {
    const path = checkedPath(group.path)
    const taken = parseGroupMeta(await runtime.connection.get(address.groupMeta(path)))
    if (taken) throw new Failure('conflict', `group exists: ${path}`, { reason: 'groupExists' })
    const { userId: createdBy, name: creatorName } = runtime.self
    const value = valueOf({ ...group, createdBy, creatorName, createdAt: clock.now() })
    await runtime.connection.set(address.groupMeta(path), value)
    pin(path)
  }

  async function ensure(path: string, isPublic: boolean): Promise<void> {
    const checked = checkedPath(path)
    const known = metas.has(checked) || parseGroupMeta(await runtime.connection.get(address.groupMeta(checked)))
    if (!known) await create({ path: checked, description: '', icon: '', isPublic })
  }

  async function update(
    path: string,
    change: { description?: string; icon?: string; isPublic?: boolean },
  ): Promise<void> {
    const meta = parseGroupMeta(await runtime.connection.get(address.groupMeta(path)))
    if (!meta) throw new Failure('missing', `no such group: ${path}`)
    await runtime.connection.set(address.groupMeta(path), valueOf({ ...meta, ...change }))
  }

  /** Deletes the group. Its rooms remain. */
  async function remove(path: string): Promise<void> {
    for (const room of roomsIn(path)) {
      // The relay may allow only the room's creator to remove its entry.
      await runtime.connection.set(address.groupRoom(path, room.id), null).catch((failure: Failure) => {
        if (failure.kind !== 'forbidden') throw failure
      })
    }
    await runtime.connection.set(address.groupMeta(path), null)
    unpin(path)
  }

  runtime.on('begin', () => {
    pinnedPaths.value = storedPins().sort()
    for (const path of pinnedPaths.value) watch(path)
    runtime.listenTo(pattern.groupMetas(), ({ address: from, value }) => {
      const place = parseAddress(from)
      if (place?.kind !== 'groupMeta') return
      const meta = parseGroupMeta(value)
      if (meta) metas.set(place.path, meta)
      else metas.delete(place.path)
    })
  })
  runtime.on('end', () => {
    for (const path of [...watched.keys()]) {
      watched.get(path)?.stop()
      watched.delete(path)
    }
    metas.clear()
    pinnedPaths.value = []
  })

  return {
    byPath,
    pinned,
    children,
    roomsIn,
    watch,
    pin,
    unpin,
    create,
    ensure,
    update,
    remove,
    parsePath: parseGroupPath,
    // For the other stores.
    takePinned,
  }
})

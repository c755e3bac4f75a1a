/** The public registry, where everybody finds public rooms, and the registries of groups. */
import { address, isGroupPath, parseAddress, pattern } from '@/protocol/addresses'
import { asValue, parseRegistryEntry, type RegistryEntry } from '@/protocol/shapes'
import type { Runtime } from '../runtime'
import type { RoomId } from '../types'
import type { RoomTable } from './table'

export type Registry = ReturnType<typeof makeRegistry>

export function makeRegistry(runtime: Runtime, { state, change, forgetStranger }: RoomTable) {
  function listen(): void {
    runtime.listenTo(pattern.registryRooms(), ({ address: from, value }) => {
      const place = parseAddress(from)
      if (place?.kind !== 'registryRoom') return
      const entry = parseRegistryEntry(value)
      change(place.roomId, { listed: entry?.isPublic ? entry : null })
      forgetStranger(place.roomId)
    })
  }

  function takeGrouped(id: RoomId, path: string, entry: RegistryEntry | null): void {
    if (!entry && state(id).grouped?.path !== path) return
    change(id, { grouped: entry && { path, entry } })
    forgetStranger(id)
  }

  /** Writes a public room into the registries, where everybody finds it. A private one is in none of them. */
  async function list(id: RoomId, namespace: string | null): Promise<void> {
    const meta = state(id).meta
    if (!meta?.isPublic) return
    const { name, type, isPublic, creatorId, creatorName, createdAt, passwordSalt } = meta
    const entry = { name, type, isPublic, creatorId: creatorId ?? '', creatorName, createdAt: createdAt ?? 0 }
    const full = { ...entry, hasPassword: passwordSalt !== null, ...(namespace && { namespace }), id }
    await runtime.connection.set(address.registryRoom(id), asValue(full))
    if (namespace) await runtime.connection.set(address.groupRoom(namespace, id), asValue(full))
  }

  /** Removes a room from the registries. */
  async function unlist(id: RoomId, namespace: string | null | undefined): Promise<void> {
    await runtime.connection.set(address.registryRoom(id), null)
    await unlistFrom(id, namespace)
  }

  async function unlistFrom(id: RoomId, namespace: string | null | undefined): Promise<void> {
    if (namespace && isGroupPath(namespace)) await runtime.connection.set(address.groupRoom(namespace, id), null)
  }

  return { listen, takeGrouped, list, unlist, unlistFrom }
}

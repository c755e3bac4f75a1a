/** Creating rooms, and what their creators and admins change: names, visibility, passwords, groups, encryption. */
import { hashPassword, newSalt } from '@/crypto/password'
import { address, isGroupPath } from '@/protocol/addresses'
import { Failure } from '@/protocol/errors'
import { asValue, parseRoomMeta, type RoomMeta } from '@/protocol/shapes'
import type { Runtime } from '../runtime'
import type { NewRoom, RoomId } from '../types'
import type { Membership } from './membership'
import type { ReadState } from './readState'
import type { Registry } from './registry'
import type { RoomTable } from './table'

const MAX_NAME = 32
const MAX_DESCRIPTION = 500

function checkedName(name: string): string {
  const trimmed = name.trim()
  if (trimmed === '' || trimmed.length > MAX_NAME)
    throw new Failure('invalid', 'a room name has 1 to 32 characters', { reason: 'roomName' })
  return trimmed
}

function checkedPath(path: string): string {
  if (!isGroupPath(path)) throw new Failure('invalid', `invalid group path: ${path}`, { reason: 'groupPath' })
  return path
}

async function passwordFields(password: string): Promise<{ passwordHash: string; passwordSalt: string }> {
  const passwordSalt = newSalt()
  return { passwordHash: await hashPassword(password, passwordSalt), passwordSalt }
}

/** The meta as it is written; the relay keeps hidden fields that are omitted. */
function metaValue(meta: RoomMeta): object {
  const { name, type, description, isPublic, encrypted, creatorId, creatorName, createdAt } = meta
  const { passwordHash, passwordSalt, namespace, dmUsers } = meta
  return {
    name,
    type,
    description,
    isPublic,
    encrypted,
    ...(creatorId && { creatorId }),
    ...(creatorName && { creatorName }),
    ...(createdAt !== null && { createdAt }),
    ...(passwordHash && { passwordHash }),
    ...(passwordSalt && { passwordSalt }),
    ...(namespace && { namespace }),
    ...(dmUsers && { dmUsers }),
  }
}

export function makeModeration(
  runtime: Runtime,
  { states, state, change }: RoomTable,
  { list, unlist, unlistFrom }: Registry,
  { enter, freshMeta }: Membership,
  readState: ReadState,
) {
  const { clock, newId } = runtime.platform

  async function create(room: NewRoom): Promise<RoomId> {
    const name = checkedName(room.name)
    const namespace = room.namespace ? checkedPath(room.namespace) : null
    const id = newId()
    const { userId, name: creatorName } = runtime.self
    const secret = room.password ? await passwordFields(room.password) : null
    const createdAt = clock.now()
    const head = {
      name,
      type: room.type ?? 'text',
      description: '',
      isPublic: room.isPublic,
      encrypted: room.encrypted,
    }
    const meta = { ...head, ...secret, ...(namespace && { namespace }), creatorId: userId, creatorName, createdAt }
    // The meta first: it tells the relay who the creator is, which the registry entries require.
    await runtime.connection.set(address.meta(id), asValue(meta))
    change(id, { meta: parseRoomMeta(meta) })
    await list(id, namespace)
    enter(id)
    if (room.encrypted) await runtime.rooms.get(id)?.tell({ type: 'create' })
    return id
  }

  /** Reads, changes and writes the meta and the registry entries; resolves with the previous meta. */
  async function rewrite(id: RoomId, part: Partial<RoomMeta>): Promise<RoomMeta> {
    const meta = await freshMeta(id)
    if (!meta) throw new Failure('missing', `no such room: ${id}`)
    const changed = { ...meta, ...part }
    await runtime.connection.set(address.meta(id), asValue(metaValue(changed)))
    change(id, { meta: changed })
    await list(id, changed.namespace)
    return meta
  }

  async function rename(id: RoomId, name: string): Promise<void> {
    await rewrite(id, { name: checkedName(name) })
  }

  async function setDescription(id: RoomId, description: string): Promise<void> {
    await rewrite(id, { description: description.trim().slice(0, MAX_DESCRIPTION) })
  }

  async function setVisibility(id: RoomId, isPublic: boolean): Promise<void> {
    const { namespace } = await rewrite(id, { isPublic })
    if (!isPublic) await unlist(id, namespace)
  }

  async function setPassword(id: RoomId, password: string | null): Promise<void> {
    const secret = password === null ? { passwordHash: null, passwordSalt: null } : await passwordFields(password)
    await rewrite(id, secret)
    const live = runtime.rooms.get(id)
    const meta = state(id).meta
    if (password === null || !live || !meta) return
    // Whoever proved only the old password must not get the new key. The encryption has to know the new salt before
    // the key is sent, and the echo of the meta may arrive after the ACK.
    const { encrypted, creatorId, passwordSalt } = meta
    await live.tell({ type: 'meta', meta: { encrypted, creatorId, passwordSalt } })
    await live.tell({ type: 'rotate', without: [] })
  }

  async function setNamespace(id: RoomId, path: string | null): Promise<void> {
    const namespace = path === null ? null : checkedPath(path)
    const { namespace: before } = await rewrite(id, { namespace })
    if (before !== namespace) await unlistFrom(id, before)
  }

  async function enableEncryption(id: RoomId): Promise<void> {
    await rewrite(id, { encrypted: true })
    await runtime.rooms.get(id)?.tell({ type: 'create' })
  }

  async function remove(id: RoomId): Promise<void> {
    const { meta, listed, grouped } = state(id)
    const namespace = grouped?.path ?? meta?.namespace
    if (listed) await runtime.connection.set(address.registryRoom(id), null)
    await unlistFrom(id, namespace)
    // Leave first, so that the removed meta is not reported as a deleted room.
    const live = runtime.forget(id)
    live?.close()
    await runtime.connection.set(address.meta(id), null)
    readState.close(id)
    states.delete(id)
    await runtime.storage.removeRoom(id)
  }

  return { create, rename, setDescription, setVisibility, setPassword, setNamespace, enableEncryption, remove }
}

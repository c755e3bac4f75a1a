/** Rooms and groups: metas, registry entries, admins, bans, reactions. */
import { isUserId } from '../addresses'
import {
  MAX_LINE,
  MAX_NAME,
  type RoomType,
  base64,
  fieldsOf,
  flag,
  id,
  line,
  own,
  recordOf,
  roomType,
  text,
  time,
} from './fields'

export interface RegistryEntry {
  name: string
  type: RoomType
  isPublic: boolean
  creatorId: string | null
  creatorName: string
  createdAt: number | null
  hasPassword: boolean
  namespace: string | null
}

export function parseRegistryEntry(value: unknown): RegistryEntry | null {
  const fields = fieldsOf(value)
  const name = fields && line(fields, 'name', MAX_NAME)
  if (!fields || !name) return null
  return {
    name,
    type: roomType(fields),
    isPublic: flag(fields, 'isPublic'),
    creatorId: id(fields, 'creatorId', isUserId),
    creatorName: line(fields, 'creatorName', MAX_NAME),
    createdAt: time(fields, 'createdAt'),
    hasPassword: flag(fields, 'hasPassword'),
    namespace: text(fields, 'namespace', MAX_LINE),
  }
}

export interface GroupMeta {
  description: string
  icon: string
  isPublic: boolean
  createdBy: string | null
  creatorName: string
  createdAt: number | null
  hasPassword: boolean
}

export function parseGroupMeta(value: unknown): GroupMeta | null {
  const fields = fieldsOf(value)
  if (!fields) return null
  return {
    description: line(fields, 'description'),
    // Two characters, which may take more UTF-16 units.
    icon: [...line(fields, 'icon', 32)].slice(0, 2).join(''),
    isPublic: flag(fields, 'isPublic'),
    createdBy: id(fields, 'createdBy', isUserId),
    creatorName: line(fields, 'creatorName', MAX_NAME),
    createdAt: time(fields, 'createdAt'),
    hasPassword: flag(fields, 'hasPassword'),
  }
}

export interface RoomMeta {
  name: string
  type: RoomType
  description: string
  isPublic: boolean
  encrypted: boolean
  creatorId: string | null
  creatorName: string
  createdAt: number | null
  /** The relay shows the salt to everybody, and the hash only to the creator. */
  passwordSalt: string | null
  passwordHash: string | null
  namespace: string | null
  /** Names by user id, exactly two; null: no direct message. */
  dmUsers: Readonly<Record<string, string>> | null
}

const MAX_SALT = 64

function dmUsers(value: unknown): Readonly<Record<string, string>> | null {
  const fields = fieldsOf(value)
  const ids = fields ? Object.keys(fields) : []
  if (!fields || ids.length !== 2 || !ids.every(isUserId)) return null
  return recordOf(ids.map((userId) => [userId, line(fields, userId, MAX_NAME)]))
}

export function parseRoomMeta(value: unknown): RoomMeta | null {
  const fields = fieldsOf(value)
  if (!fields) return null
  return {
    name: line(fields, 'name', MAX_NAME),
    type: roomType(fields),
    description: line(fields, 'description'),
    isPublic: flag(fields, 'isPublic'),
    encrypted: flag(fields, 'encrypted'),
    creatorId: id(fields, 'creatorId', isUserId),
    creatorName: line(fields, 'creatorName', MAX_NAME),
    createdAt: time(fields, 'createdAt'),
    passwordSalt: base64(fields, 'passwordSalt', MAX_SALT),
    passwordHash: base64(fields, 'passwordHash', MAX_SALT),
    namespace: text(fields, 'namespace', MAX_LINE),
    dmUsers: dmUsers(own(fields, 'dmUsers')),
  }
}

export type ReactionValue = { kind: 'leaf' } | { kind: 'list'; sessions: readonly string[] }

const MAX_LISTED = 1000

/** A leaf per user, written by this app, or the session list of the original app. */
export function parseReaction(value: unknown): ReactionValue | null {
  const fields = fieldsOf(value)
  if (!fields) return null
  const users = own(fields, 'users')
  if (!Array.isArray(users)) return { kind: 'leaf' }
  const sessions = users.slice(0, MAX_LISTED).filter((session): session is string => typeof session === 'string')
  return { kind: 'list', sessions: [...new Set(sessions)] }
}

export function parseAdmin(value: unknown): { promotedBy: string | null } | null {
  const fields = fieldsOf(value)
  if (!fields || own(fields, 'role') !== 'admin') return null
  return { promotedBy: id(fields, 'promotedBy', isUserId) }
}

export interface BanEntry {
  bannedBy: string | null
  name: string
  timestamp: number
}

export function parseBan(value: unknown): BanEntry | null {
  const fields = fieldsOf(value)
  if (!fields) return null
  return {
    bannedBy: id(fields, 'bannedBy', isUserId),
    name: line(fields, 'name', MAX_NAME),
    timestamp: time(fields, 'timestamp') ?? 0,
  }
}

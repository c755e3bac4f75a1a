/** Values about users: profiles, friends, requests, presence, typing, receipts. */
import { isMsgId, isRoomId, isUserId } from '../addresses'
import { MAX_NAME, type Status, clip, color, fieldsOf, flag, id, line, own, status, text, time } from './fields'

/** Characters of the message that asks a stranger for a conversation. */
export const MAX_REQUEST = 500

export interface Profile {
  userId: string | null
  name: string
  avatarColor: string
  status: Status
}

export function parseProfile(value: unknown): Profile | null {
  const fields = fieldsOf(value)
  if (!fields) return null
  return {
    userId: id(fields, 'userId', isUserId),
    name: line(fields, 'name', MAX_NAME),
    avatarColor: color(fields, 'avatarColor'),
    status: status(fields),
  }
}

export interface FriendEntry {
  name: string
  avatarColor: string
  addedAt: number
}

export function parseFriend(value: unknown): FriendEntry | null {
  const fields = fieldsOf(value)
  if (!fields) return null
  return {
    name: line(fields, 'name', MAX_NAME),
    avatarColor: color(fields, 'avatarColor'),
    addedAt: time(fields, 'addedAt') ?? 0,
  }
}

export interface InboxEntry {
  fromId: string
  fromName: string
  roomId: string
  timestamp: number
}

export function parseInboxEntry(value: unknown): InboxEntry | null {
  const fields = fieldsOf(value)
  const fromId = fields && id(fields, 'fromId', isUserId)
  const roomId = fields && id(fields, 'roomId', isRoomId)
  if (!fields || !fromId || !roomId) return null
  return { fromId, fromName: line(fields, 'fromName', MAX_NAME), roomId, timestamp: time(fields, 'timestamp') ?? 0 }
}

export interface RequestEntry {
  accepted: boolean
  fromId: string
  fromName: string
  fromColor: string
  /** The first message of somebody who asks for a conversation; '': a request for a friendship. */
  text: string
  timestamp: number
}

export function parseRequest(value: unknown): RequestEntry | null {
  const fields = fieldsOf(value)
  const fromId = fields && id(fields, 'fromId', isUserId)
  if (!fields || !fromId) return null
  return {
    accepted: own(fields, 'type') === 'accepted',
    fromId,
    fromName: line(fields, 'fromName', MAX_NAME),
    fromColor: color(fields, 'fromColor'),
    text: own(fields, 'type') === 'dm' ? clip((text(fields, 'text', 2 * MAX_REQUEST) ?? '').trim(), MAX_REQUEST) : '',
    timestamp: time(fields, 'timestamp') ?? 0,
  }
}

/** An entry of the list of blocked people. */
export function parseBlock(value: unknown): { name: string } | null {
  const fields = fieldsOf(value)
  return fields && { name: line(fields, 'name', MAX_NAME) }
}

export interface Presence {
  name: string
  avatarColor: string
  joinedAt: number
  status: Status
  /** The relay says of a presence whether its user has an account. */
  account: boolean
}

/** Presence or membership; the status is written by this app only. */
export function parsePresence(value: unknown): Presence | null {
  const fields = fieldsOf(value)
  if (!fields) return null
  return {
    name: line(fields, 'name', MAX_NAME),
    avatarColor: color(fields, 'avatarColor'),
    joinedAt: time(fields, 'joinedAt') ?? 0,
    status: status(fields),
    account: flag(fields, 'account'),
  }
}

/** A typing notice; null: stopped (clients write null or false). */
export function parseTyping(value: unknown): { name: string } | null {
  const fields = fieldsOf(value)
  return fields && { name: line(fields, 'name', MAX_NAME) }
}

/** What the devices of a user share about a room. */
export interface SyncedRoom {
  joined: boolean
  muted: boolean
  joinedAt: number
  lastReadMs: number
  peerName: string
}

export function parseSyncedRoom(value: unknown): SyncedRoom | null {
  const fields = fieldsOf(value)
  if (!fields) return null
  return {
    joined: flag(fields, 'joined'),
    muted: flag(fields, 'muted'),
    joinedAt: time(fields, 'joinedAt') ?? 0,
    lastReadMs: time(fields, 'lastReadMs') ?? 0,
    peerName: line(fields, 'peerName', MAX_NAME),
  }
}

export function parseSyncedProfile(value: unknown): { name: string; avatarColor: string } | null {
  const fields = fieldsOf(value)
  const name = fields && line(fields, 'name', MAX_NAME)
  return fields && name ? { name, avatarColor: color(fields, 'avatarColor') } : null
}

export interface Receipt {
  msgId: string
  timestamp: number
}

export function parseReceipt(value: unknown): Receipt | null {
  const fields = fieldsOf(value)
  const msgId = fields && id(fields, 'msgId', isMsgId)
  const timestamp = fields && time(fields, 'timestamp')
  return msgId && timestamp !== null && timestamp !== undefined ? { msgId, timestamp } : null
}

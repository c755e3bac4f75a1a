/** What people in a call write: that they are there, and how two of them connect. */
import { isSessionId, isUserId } from '../addresses'
import { MAX_NAME, color, fieldsOf, flag, id, line, own, text, time, type Fields } from './fields'

/** A frame takes no more. */
const MAX_SDP = 65_535
const MAX_CANDIDATE = 2_000

/** Somebody in a call. */
export interface Caller {
  /** Stamped by the relay; null: the relay stamps nothing, and the writer does not say. */
  userId: string | null
  name: string
  avatarColor: string
  audioEnabled: boolean
  videoEnabled: boolean
  /** The picture is a screen. */
  screen: boolean
  /** It takes offers at any time. The original takes them, too, but never makes one after the first connection. */
  negotiates: boolean
  joinedAt: number
}

export function parseCaller(value: unknown): Caller | null {
  const fields = fieldsOf(value)
  if (!fields) return null
  return {
    userId: id(fields, 'userId', isUserId),
    name: line(fields, 'name', MAX_NAME),
    avatarColor: color(fields, 'avatarColor'),
    audioEnabled: flag(fields, 'audioEnabled'),
    videoEnabled: flag(fields, 'videoEnabled'),
    screen: flag(fields, 'screen'),
    negotiates: flag(fields, 'negotiates'),
    joinedAt: time(fields, 'joinedAt') ?? 0,
  }
}

export interface IceCandidate {
  candidate: string
  sdpMid: string | null
  sdpMLineIndex: number | null
}

interface SignalHead {
  /** The session that sent it. */
  from: string
  /** Stamped by the relay; null as in {@link Caller}. */
  userId: string | null
}

export type Signal =
  /** `serial` numbers offers, and an answer names that of its offer; null: the original, which writes none. */
  | (SignalHead & { type: 'offer' | 'answer'; sdp: string; serial: number | null })
  | (SignalHead & { type: 'ice-candidate'; candidate: IceCandidate })

function parseCandidate(value: unknown): IceCandidate | null {
  const fields = fieldsOf(value)
  const candidate = fields && text(fields, 'candidate', MAX_CANDIDATE)
  if (!fields || candidate === null) return null
  const index = own(fields, 'sdpMLineIndex')
  const isIndex = typeof index === 'number' && Number.isInteger(index) && index >= 0 && index < 64
  return { candidate, sdpMid: text(fields, 'sdpMid', 64), sdpMLineIndex: isIndex ? index : null }
}

function parseDescription(fields: Fields, type: string): string | null {
  const description = fieldsOf(own(fields, 'sdp'))
  return description && own(description, 'type') === type ? text(description, 'sdp', MAX_SDP) : null
}

export function parseSignal(value: unknown): Signal | null {
  const fields = fieldsOf(value)
  const from = fields && id(fields, 'from', isSessionId)
  if (!fields || !from) return null
  const head = { from, userId: id(fields, 'userId', isUserId) }
  const type = own(fields, 'type')
  if (type === 'ice-candidate') {
    const candidate = parseCandidate(own(fields, 'candidate'))
    return candidate && { ...head, type, candidate }
  }
  if (type !== 'offer' && type !== 'answer') return null
  const sdp = parseDescription(fields, type)
  return sdp ? { ...head, type, sdp, serial: time(fields, 'serial') } : null
}

/** Reads single fields of values that others wrote. */
import { MAX_PAYLOAD_BYTES, type Value } from '../codec'

/** Longest name that is shown; the input fields allow 32. */
export const MAX_NAME = 64
export const MAX_LINE = 512
export const MAX_TIME_MS = 8.64e15
export const DEFAULT_COLOR = '#6b7280'
/** Characters of a quoted text, as in the original app. */
export const MAX_QUOTE = 100

export type Status = 'online' | 'away' | 'dnd' | 'invisible'
export type RoomType = 'text' | 'video' | 'combo' | 'dm'

export type Fields = { readonly [key: string]: unknown }

/** A map from the wire, from a file or from decrypted JSON; null: `value` is no map. Read its fields by {@link own}. */
export function fieldsOf(value: unknown): Fields | null {
  if (typeof value !== 'object' || value === null || Array.isArray(value) || value instanceof Uint8Array) return null
  return value as Fields
}

/** A field of the map itself, never one of a prototype (`constructor`, or what JSON put into `__proto__`). */
export const own = (fields: Fields, key: string): unknown => (Object.hasOwn(fields, key) ? fields[key] : undefined)

/** A record without a prototype: ids of others may be called `constructor` or `__proto__`. */
export function recordOf<T>(entries: Iterable<readonly [string, T]>): Record<string, T> {
  const record = Object.create(null) as Record<string, T>
  for (const [key, value] of entries) record[key] = value
  return record
}

/** The beginning of a text, without half of a character at its end. */
export const clip = (long: string, max: number): string => long.slice(0, max).replace(/[\ud800-\udbff]$/, '')

export function text(fields: Fields, key: string, max: number): string | null {
  const value = own(fields, key)
  return typeof value === 'string' ? value.slice(0, max) : null
}

/** A single line without control, bidirectional and invisible characters. */
export function line(fields: Fields, key: string, max = MAX_LINE): string {
  const raw = text(fields, key, max) ?? ''
  return raw.replace(/[\p{Cc}\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff]/gu, '').trim()
}

export function time(fields: Fields, key: string): number | null {
  const value = own(fields, key)
  return typeof value === 'number' && value >= 0 && value <= MAX_TIME_MS ? Math.trunc(value) : null
}

export const flag = (fields: Fields, key: string): boolean => own(fields, key) === true

export function id(fields: Fields, key: string, test: (text: string) => boolean): string | null {
  const value = own(fields, key)
  return typeof value === 'string' && test(value) ? value : null
}

export const isColor = (value: unknown): value is string => typeof value === 'string' && /^#[0-9a-f]{6}$/i.test(value)

export function color(fields: Fields, key: string): string {
  const value = own(fields, key)
  return isColor(value) ? value.toLowerCase() : DEFAULT_COLOR
}

/** SVG is excluded: it can contain scripts and references. */
export const IMAGE = /^data:image\/(?:png|jpeg|gif|webp|avif);base64,[A-Za-z0-9+/]+={0,2}$/

export const isImage = (value: unknown): value is string =>
  typeof value === 'string' && value.length <= MAX_PAYLOAD_BYTES && IMAGE.test(value)

export const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/

export function base64(fields: Fields, key: string, max = MAX_PAYLOAD_BYTES): string | null {
  const value = own(fields, key)
  return typeof value === 'string' && value !== '' && value.length <= max && BASE64.test(value) ? value : null
}

export const STATUSES: readonly string[] = ['online', 'away', 'dnd', 'invisible']
export const ROOM_TYPES: readonly string[] = ['text', 'video', 'combo', 'dm']

export function status(fields: Fields): Status {
  const value = own(fields, 'status')
  return typeof value === 'string' && STATUSES.includes(value) ? (value as Status) : 'online'
}

export function roomType(fields: Fields): RoomType {
  const value = own(fields, 'type')
  return typeof value === 'string' && ROOM_TYPES.includes(value) ? (value as RoomType) : 'text'
}

/** Casts an object that contains only CLASP values. */
export const asValue = (value: object): Value => value as Value

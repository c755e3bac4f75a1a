/** Values of params and events, as the console shows them and as somebody types them. */
import type { Value, ValueMap } from '@/protocol/codec'

export type ValueType = 'nothing' | 'boolean' | 'number' | 'text' | 'bytes' | 'list' | 'map'

export function typeOf(value: Value): ValueType {
  if (value === null) return 'nothing'
  if (typeof value === 'boolean') return 'boolean'
  if (typeof value === 'number') return 'number'
  if (typeof value === 'string') return 'text'
  if (value instanceof Uint8Array) return 'bytes'
  return Array.isArray(value) ? 'list' : 'map'
}

/** The key under which JSON has bytes, and that under which it has floats that are no numbers (docs/protocol.md). */
const BYTES = '$bytes'
const FLOAT = '$float'
const FLOATS: Readonly<Record<string, number>> = { nan: NaN, inf: Infinity, '-inf': -Infinity }

const toBase64 = (bytes: Uint8Array): string => btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(''))
const fromBase64 = (text: string): Uint8Array => Uint8Array.from(atob(text), (character) => character.charCodeAt(0))

function floatName(value: number): string {
  if (Number.isNaN(value)) return 'nan'
  return value > 0 ? 'inf' : '-inf'
}

function toJson(value: Value): unknown {
  if (typeof value === 'number' && !Number.isFinite(value)) return { [FLOAT]: floatName(value) }
  if (value instanceof Uint8Array) return { [BYTES]: toBase64(value) }
  if (Array.isArray(value)) return value.map(toJson)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, toJson(item)]))
}

/** What controls a line, or the direction of what stands around it. */
const UNSAFE = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g

/**
 * A text of somebody's as it is shown to an administrator: what would reorder or hide the text beside it is escaped as in
 * JSON, so that nobody's name changes how an id reads.
 */
export const plainText = (text: string): string =>
  text.replace(UNSAFE, (found) => `\\u${found.charCodeAt(0).toString(16).padStart(4, '0')}`)

/** A value as JSON, as the relay's HTTP API has it. */
export const jsonOf = (value: Value, indent = 0): string => plainText(JSON.stringify(toJson(value), null, indent))

/** A value in one short line. */
export function shortOf(value: Value, most = 120): string {
  let text: string
  if (value instanceof Uint8Array) text = `${value.length} B`
  else if (typeof value === 'string') text = plainText(JSON.stringify(value.slice(0, most + 1)))
  else text = jsonOf(value)
  return text.length > most ? `${text.slice(0, most - 1)}…` : text
}

function fromJson(value: unknown): Value {
  if (value === null || typeof value === 'boolean' || typeof value === 'number' || typeof value === 'string')
    return value
  if (Array.isArray(value)) return value.map(fromJson)
  const entries = Object.entries(value as object) as [string, unknown][]
  const [first] = entries
  if (first && entries.length === 1) {
    const [key, item] = first
    if (key === BYTES && typeof item === 'string') return fromBase64(item)
    const float = key === FLOAT && typeof item === 'string' ? FLOATS[item] : undefined
    if (float !== undefined) return float
  }
  const map = Object.create(null) as ValueMap
  for (const [key, item] of entries) map[key] = fromJson(item)
  return map
}

/** What the relay's HTTP API has as JSON, as a value. */
export const valueOf = (json: unknown): Value => fromJson(json)

/**
 * The value that somebody typed: JSON.
 *
 * @returns null where it is no JSON, or has bytes that are no base64.
 */
export function parseValue(text: string): { value: Value } | null {
  try {
    return { value: fromJson(JSON.parse(text)) }
  } catch {
    // What is wrong with it is told in one sentence, whatever it is.
    return null
  }
}

// The npm client, and what its scenarios need.
import assert from 'node:assert/strict'
import readline from 'node:readline'
import { Clasp } from '@clasp-to/core'
import WebSocket from 'ws'

globalThis.WebSocket = WebSocket // Node 20 has none of its own

console.log = console.debug = console.info = (...what) => console.warn(...what) // the client logs each ACK

export const PATIENCE_MS = 60_000

/** Waits for a condition, and fails when it does not come true in time. */
export async function until(condition, what) {
  const deadline = Date.now() + PATIENCE_MS
  while (!condition()) {
    assert(Date.now() < deadline, `not in time: ${what}`)
    await new Promise((done) => setTimeout(done, 10))
  }
}

/** Connects a client. */
export async function connect(url, options = {}) {
  const features = ['param', 'event', 'stream', 'gesture', 'timeline']
  const client = new Clasp(url, { name: 'js', features, reconnect: false, ...options })
  await client.connect()
  return client
}

let asked = 0

/** Waits until the relay has handled all that a client sent, and the client has read all that was sent to it. */
export async function roundTrip(client) {
  assert.equal(await client.get(`/no/such/${process.pid}-${asked++}`), null)
}

/** Subscribes, waits until the relay knows, and returns the list that what comes is added to. */
export async function subscribe(client, pattern, options) {
  const came = []
  const collect = (value, address) => address.startsWith('/no/such/') || came.push([address, value])
  came.unsubscribe = client.subscribe(pattern, collect, options)
  await roundTrip(client)
  return came
}

/** What came, as a plain list. */
export const list = (came) => [...came]

/** What came, by address. */
export const latest = (came) => Object.fromEntries(came)

const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]()

/** Waits for a line from the test. */
export async function told(expected) {
  const { value } = await lines.next()
  assert.equal(value, expected)
}

/** Says something to the test. */
export function tell(what) {
  process.stdout.write(`${JSON.stringify(what)}\n`)
}

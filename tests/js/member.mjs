// One npm client that signs in with a token and does what it is told, a JSON line at a time. Run: node member.mjs URL
import assert from 'node:assert/strict'
import readline from 'node:readline'
import { connect, tell } from './lib.mjs'

const came = []
let client
let asked = 0

/** Waits as lib's roundTrip does, at an address that a chat token may read. */
async function roundTrip() {
  assert.equal(await client.get(`/chat/registry/rooms/none-${asked++}`), null)
}

const commands = {
  async connect(token) {
    try {
      client = await connect(process.argv[2], { token })
    } catch (error) {
      return { refused: error.message }
    }
    client.onDisconnect((reason) => tell({ closed: reason }))
    return { session: client.session }
  },
  async subscribe(...patterns) {
    for (const pattern of patterns) client.subscribe(pattern, (value, address) => came.push([address, value]))
    await roundTrip()
    return 'done'
  },
  async get(address) {
    return { value: await client.get(address) }
  },
  async came() {
    await roundTrip()
    return came.splice(0)
  },
}

for (const what of ['set', 'emit']) {
  commands[what] = async (...rest) => {
    client[what](...rest)
    await roundTrip()
    return 'done'
  }
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  const [what, ...rest] = JSON.parse(line)
  tell(await commands[what](...rest))
}
process.exit(0)

// One npm client that does what it is told, a JSON line at a time. Run: node peer.mjs URL
import readline from 'node:readline'
import { connect, roundTrip, tell } from './lib.mjs'

const client = await connect(process.argv[2])
const toJson = (_, value) => (value instanceof Uint8Array ? { $bytes: Buffer.from(value).toString('hex') } : value)
const fromJson = (_, value) => (value?.$bytes === undefined ? value : new Uint8Array(Buffer.from(value.$bytes, 'hex')))
const came = []
client.subscribe('/shared/**', (value, address) => came.push([address, value]))
await roundTrip(client)
tell('ready')
for await (const line of readline.createInterface({ input: process.stdin })) {
  const [what, ...rest] = JSON.parse(line, fromJson)
  if (what === 'came') {
    await roundTrip(client)
    process.stdout.write(`${JSON.stringify(came, toJson)}\n`)
  } else {
    client[what](...rest)
    await roundTrip(client)
    tell('sent')
  }
}
process.exit(0)

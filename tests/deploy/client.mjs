// The npm client, doing what lines of JSON on standard input say; each is answered by one line.
// Arguments: the module of the client, the address of the relay, a token or nothing.
import { createInterface } from 'node:readline'

const [module, url, token] = process.argv.slice(2)
console.log = console.debug = console.error // the client's own words
const { Clasp } = await import(module)
const client = new Clasp(url, { token, reconnect: true })
let connects = 0
const answer = (what) => process.stdout.write(JSON.stringify(what) + '\n')

client.onConnect(() => { connects += 1 })
client.onError(() => {})
try {
  await client.connect()
} catch (error) {
  answer({ error: String(error) })
  process.exit(0)
}
answer({ session: client.session })

for await (const line of createInterface({ input: process.stdin })) {
  const { set, get, value } = JSON.parse(line)
  if (set) client.set(set, value)
  const got = get ? await client.get(get) : null
  answer({ got, session: client.session, connects })
}
client.close()
process.exit(0)

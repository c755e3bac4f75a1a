// mqtt.js over WebSocket: subscribes, publishes with each QoS, and says what came back.
import mqtt from 'mqtt'

const url = process.argv[2]

async function run (protocolVersion) {
  const client = await mqtt.connectAsync(url, { protocolVersion, reconnectPeriod: 0 })
  const came = []
  const all = new Promise((resolve) => {
    client.on('message', (topic, payload, packet) => {
      came.push([topic, payload.toString(), packet.qos, packet.retain])
      if (came.length === 4) resolve()
    })
  })
  await client.publishAsync('js/0', '{"kept": true}', { qos: 1, retain: true })
  await client.subscribeAsync('js/#', { qos: 2 })
  for (const qos of [0, 1, 2]) await client.publishAsync(`js/${qos + 1}`, `qos ${qos}`, { qos })
  await all
  await client.endAsync()
  return came
}

for (const version of [4, 5]) console.log(JSON.stringify(await run(version)))

// The npm package osc over UDP: sends each kind of value and a bundle, and prints what comes back, a line each.
import osc from 'osc'

const port = new osc.UDPPort({ localAddress: '127.0.0.1', localPort: 0, remoteAddress: '127.0.0.1', remotePort: Number(process.argv[2]), metadata: true })
port.on('message', ({ address, args }) => console.log(JSON.stringify([address, args.map(({ type, value }) => [type, value])])))
port.on('ready', () => {
  port.send({ address: '/js/float', args: [{ type: 'f', value: 0.5 }] })
  port.send({ address: '/js/many', args: [{ type: 'i', value: 7 }, { type: 's', value: 'text' }, { type: 'T' }] })
  port.send({ timeTag: osc.timeTag(0), packets: [{ address: '/js/a', args: [{ type: 'i', value: 1 }] }, { address: '/js/b', args: [{ type: 'i', value: 2 }] }] })
})
process.stdin.on('end', () => port.close()).resume()
port.open()

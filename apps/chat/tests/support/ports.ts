import { once } from 'node:events'
import { createServer, type Server } from 'node:net'

/** Below the ports that the system gives to outgoing connections, one of which would take a port before it is used. */
const FIRST = 15_000
const END = 32_000
const given = new Set<number>()

/** A port of this machine that nobody uses, and that this process has not been given before. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = FIRST + Math.floor(Math.random() * (END - FIRST))
    if (given.has(port)) continue
    const server = await listening(port)
    if (!server) continue
    given.add(port)
    server.close()
    await once(server, 'close')
    return port
  }
}

/** Listens on a port; null where somebody else does. */
async function listening(port: number): Promise<Server | null> {
  const server = createServer().listen(port)
  try {
    await once(server, 'listening')
    return server
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error
    return null
  }
}

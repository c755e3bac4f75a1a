import { spawn, type ChildProcess } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createConnection } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { freePort } from './relay'

const PATIENCE_MS = 20_000

/**
 * A real coturn on this machine. Browsers and coturn meet on the loopback interface, which the configuration that is
 * shipped denies (tests/deploy tests that one): this one has peers there and nothing else.
 */
export class Coturn {
  private constructor(
    private readonly process: ChildProcess,
    private readonly folder: string,
    /** Options of the relay, so that it gives credentials for this server. */
    readonly relayOptions: Readonly<Record<string, string>>,
  ) {}

  static async start(): Promise<Coturn> {
    const folder = await mkdtemp(join(tmpdir(), 'clasp-coturn-'))
    const secret = randomBytes(16).toString('hex')
    const secretFile = join(folder, 'secret')
    await writeFile(secretFile, secret, { mode: 0o600 })
    const port = await freePort()
    const lines = [
      'listening-ip=127.0.0.1',
      'relay-ip=127.0.0.1',
      `listening-port=${port}`,
      'use-auth-secret',
      `static-auth-secret=${secret}`,
      'realm=test',
      'allow-loopback-peers',
      'no-cli',
      'no-tls',
      'no-dtls',
      'log-file=stdout',
      `pidfile=${join(folder, 'pid')}`,
      `userdb=${join(folder, 'db')}`,
    ]
    const config = join(folder, 'turnserver.conf')
    await writeFile(config, lines.join('\n'))
    const process = spawn('turnserver', ['-c', config], { cwd: folder, stdio: 'ignore' })
    const turn = `turn:127.0.0.1:${port}?transport=udp`
    const coturn = new Coturn(process, folder, { 'turn-url': turn, 'turn-secret': secretFile })
    await coturn.answers(port)
    return coturn
  }

  /** Lets it stand still: nothing that it relays arrives, and nobody is told. */
  pause(): void {
    this.process.kill('SIGSTOP')
  }

  resume(): void {
    this.process.kill('SIGCONT')
  }

  async stop(): Promise<void> {
    if (this.process.exitCode === null) {
      this.process.kill('SIGKILL')
      await once(this.process, 'exit')
    }
    await rm(this.folder, { recursive: true, force: true })
  }

  private async answers(port: number): Promise<void> {
    const until = Date.now() + PATIENCE_MS
    while (Date.now() < until && this.process.exitCode === null) {
      const socket = createConnection(port, '127.0.0.1')
      const isOpen = await new Promise((resolve) => {
        socket.once('connect', () => resolve(true))
        socket.once('error', () => resolve(false))
      })
      socket.destroy()
      if (isOpen) return
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
    throw new Error('coturn does not answer')
  }
}

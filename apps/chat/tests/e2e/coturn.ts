import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createConnection } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { freePort } from '../support/ports'

const PATIENCE_MS = 60_000

/**
 * A real coturn on this machine. Browsers and coturn meet on the loopback interface, which the configuration that is
 * shipped denies (tests/deploy tests that one): this one has peers there and nothing else.
 */
export class Coturn {
  private constructor(
    private readonly server: ChildProcess,
    private readonly folder: string,
    /** Options of the relay, so that it gives credentials for this server. */
    readonly relayOptions: Readonly<Record<string, string>>,
  ) {}

  /** null: it is not installed. CI must have it. */
  static async start(): Promise<Coturn | null> {
    const isThere = spawnSync('turnserver', ['--version'], { stdio: 'ignore' }).error === undefined
    if (!isThere && process.env['CI'] !== 'true') return null
    if (!isThere) throw new Error('no coturn found: apt-get install coturn')
    return Coturn.launch()
  }

  private static async launch(): Promise<Coturn> {
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
    const server = spawn('turnserver', ['-c', config], { cwd: folder, stdio: 'ignore' })
    const turn = `turn:127.0.0.1:${port}?transport=udp`
    const coturn = new Coturn(server, folder, { 'turn-url': turn, 'turn-secret': secretFile })
    await coturn.answers(port)
    return coturn
  }

  /** Lets it stand still: nothing that it relays arrives, and nobody is told. */
  pause(): void {
    this.server.kill('SIGSTOP')
  }

  resume(): void {
    this.server.kill('SIGCONT')
  }

  async stop(): Promise<void> {
    if (this.server.exitCode === null) {
      this.server.kill('SIGKILL')
      await once(this.server, 'exit')
    }
    await rm(this.folder, { recursive: true, force: true })
  }

  private async answers(port: number): Promise<void> {
    const until = Date.now() + PATIENCE_MS
    while (Date.now() < until && this.server.exitCode === null) {
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

import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { fileURLToPath, URL } from 'node:url'
import { promisify } from 'node:util'
import { freePort } from '../support/ports'

const at = (path: string): string => fileURLToPath(new URL(path, import.meta.url))
const SOURCE = at('../../../../src')
/** The built app. */
export const APP = at('../../dist')
const START = 'from clasp_relay.cli import main; main()'
const PATIENCE_MS = 90_000

function environment(): NodeJS.ProcessEnv {
  const path = [SOURCE, process.env['PYTHONPATH']].filter(Boolean).join(delimiter)
  return { ...process.env, PYTHONPATH: path }
}

/** A real relay under the chat's policy, on free ports, with a folder of its own, that serves the built app. */
export class Relay {
  private process: ChildProcess | null = null
  private log = ''

  private constructor(
    private readonly port: number,
    private readonly authPort: number,
    private readonly folder: string,
    private readonly more: Readonly<Record<string, string>>,
  ) {}

  /** @param more other options of the relay. */
  static async start(more: Readonly<Record<string, string>> = {}): Promise<Relay> {
    const folder = await mkdtemp(join(tmpdir(), 'clasp-e2e-'))
    const relay = new Relay(await freePort(), await freePort(), folder, more)
    await relay.run()
    return relay
  }

  /** A file with the token of an administrator, who may write everything. */
  get tokenFile(): string {
    return join(this.folder, 'admin-token')
  }

  /** Where people open the chat; `localhost` counts as secure, so that browsers allow cryptography there. */
  get origin(): string {
    return `http://localhost:${this.authPort}`
  }

  /** Where programs connect that are no pages. */
  get socket(): string {
    return `ws://127.0.0.1:${this.port}/ws`
  }

  /** Starts it, also again after a stop, on the same ports with the same data. */
  async run(): Promise<void> {
    const options = {
      host: '127.0.0.1',
      port: this.port,
      'auth-port': this.authPort,
      'data-dir': this.folder,
      'app-config': 'chat',
      'web-root': APP,
      'admin-token': this.tokenFile,
      'persist-interval': 1,
      ...this.more,
    }
    const args = Object.entries(options).map(([name, value]) => `--${name}=${value}`)
    const child = spawn(process.env['PYTHON'] ?? 'python3', ['-c', START, ...args], {
      env: environment(),
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (chunk: Buffer) => (this.log = (this.log + String(chunk)).slice(-20_000)))
    this.process = child
    await this.answers()
  }

  /** The files that it keeps, as they are on its disk. */
  async files(): Promise<Buffer[]> {
    const folder = join(this.folder, 'files')
    return Promise.all((await readdir(folder)).map((name) => readFile(join(folder, name))))
  }

  /** Does something on the command line that the relay, which runs on the same folder, takes note of. */
  async command(...words: readonly string[]): Promise<void> {
    const args = ['-c', START, ...words, `--data-dir=${this.folder}`]
    await promisify(execFile)(process.env['PYTHON'] ?? 'python3', args, { env: environment() })
  }

  /** Stops it at once, as a crash does. */
  async kill(): Promise<void> {
    const child = this.process
    this.process = null
    if (!child || child.exitCode !== null) return
    child.kill('SIGKILL')
    await once(child, 'exit')
  }

  /** Lets it stand still: its sockets stay open, and nothing is answered. */
  pause(): void {
    this.process?.kill('SIGSTOP')
  }

  resume(): void {
    this.process?.kill('SIGCONT')
  }

  async stop(): Promise<void> {
    await this.kill()
    await rm(this.folder, { recursive: true, force: true })
  }

  private async answers(): Promise<void> {
    const until = Date.now() + PATIENCE_MS
    while (Date.now() < until) {
      if (this.process?.exitCode !== null) break
      const response = await fetch(this.origin).catch(() => null)
      if (response?.ok) return
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
    throw new Error(`the relay does not answer:\n${this.log}`)
  }
}

/** Starts the project's relay with its chat policy, on free ports and in a folder of its own. */
import { spawn, type ChildProcess } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { WebSocket } from 'ws'
import type { SocketLike } from '@/protocol/connection'
import { freePort } from '../support/ports'

const ROOT = fileURLToPath(new URL('../../../../', import.meta.url))
const START_TIMEOUT_MS = 180_000

/** A Python that has the relay's dependencies: named by the environment, or the project's own. */
const PYTHON = process.env['CLASP_PYTHON'] ?? join(ROOT, '.venv/bin/python')
export const canRun = existsSync(PYTHON)

export interface RealRelay {
  url: string
  auth: string
  stop(): Promise<void>
  restart(): Promise<void>
}

async function isUp(authUrl: string): Promise<boolean> {
  try {
    return (await fetch(`${authUrl}/auth/me`)).status === 401
  } catch {
    return false
  }
}

export async function startRelay(): Promise<RealRelay> {
  const dataDir = mkdtempSync(join(tmpdir(), 'clasp-chat-test-'))
  const [port, authPort] = [await freePort(), await freePort()]
  const auth = `http://127.0.0.1:${authPort}`
  let child: ChildProcess
  const start = async (): Promise<void> => {
    const options = ['--port', port, '--auth-port', authPort, '--host', '127.0.0.1', '--data-dir', dataDir]
    const code = 'from clasp_relay.cli import main; main()'
    const args = [
      '-c',
      code,
      ...options.map(String),
      '--app-config',
      'chat',
      '--log-level',
      'error',
      '--web-root',
      'none',
    ]
    child = spawn(PYTHON, args, {
      cwd: dataDir,
      env: { ...process.env, PYTHONPATH: join(ROOT, 'src') },
      stdio: 'inherit',
    })
    const deadline = Date.now() + START_TIMEOUT_MS
    while (!(await isUp(auth))) {
      if (Date.now() > deadline) throw new Error('the relay did not start')
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
  }
  const stop = async (): Promise<void> => {
    const ended = new Promise((resolve) => child.once('exit', resolve))
    child.kill('SIGTERM')
    await ended
  }
  await start()
  return {
    url: `ws://127.0.0.1:${port}/ws`,
    auth,
    restart: async () => {
      await stop()
      await start()
    },
    stop: async () => {
      await stop()
      rmSync(dataDir, { recursive: true, force: true })
    },
  }
}

/** A browser's WebSocket as Node has it. */
export function connect(url: string): SocketLike {
  const socket = new WebSocket(url, 'clasp')
  // A refused connection is an error first and a close then; the close is what counts.
  socket.on('error', () => undefined)
  return socket as unknown as SocketLike
}

/** Until something is so. */
export async function until(condition: () => boolean, what: string, timeoutMs = 60_000): Promise<void> {
  const deadline = Date.now() + timeoutMs
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`never: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

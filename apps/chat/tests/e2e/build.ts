import { execFile } from 'node:child_process'
import { fileURLToPath, URL } from 'node:url'
import { promisify } from 'node:util'

const at = (path: string): string => fileURLToPath(new URL(path, import.meta.url))

/**
 * Builds the app once before all tests, as it is shipped: in a process of its own, which does not think it is a test.
 * `KEEP_BUILD=1` takes the build that is there.
 */
export async function setup(): Promise<void> {
  if (process.env['KEEP_BUILD']) return
  await promisify(execFile)(process.execPath, [at('../../node_modules/vite/bin/vite.js'), 'build'], {
    cwd: at('../..'),
    env: { ...process.env, NODE_ENV: 'production' },
  })
}

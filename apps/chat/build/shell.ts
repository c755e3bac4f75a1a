import { createHash } from 'node:crypto'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join, relative, resolve } from 'node:path'
import { gzipSync } from 'node:zlib'
import vue from '@vitejs/plugin-vue'
import { build, type Plugin } from 'vite'
import { buildSettings, settings } from './settings.ts'

/** The service worker's file. It must be at the root, which is its scope. */
export const WORKER = 'sw.js'

/** The emoji data: large, and therefore cached only when it is first used. */
const ON_DEMAND = /assets\/emoji-/
const PACKED = /\.(html|js|css|json|svg|webmanifest)$/

/**
 * Builds the console into the same folder, after the chat and apart from it: what both use is there twice, so that the
 * chat's files are neither more nor larger because of the console.
 */
async function buildConsole(root: string, outDir: string): Promise<void> {
  await build({
    ...settings,
    configFile: false,
    root,
    publicDir: false,
    plugins: [vue()],
    logLevel: 'warn',
    build: {
      ...buildSettings,
      outDir,
      emptyOutDir: false,
      rolldownOptions: {
        input: 'console.html',
        output: {
          entryFileNames: 'assets/console-[name]-[hash].js',
          chunkFileNames: 'assets/console-[name]-[hash].js',
          assetFileNames: 'assets/console-[name]-[hash][extname]',
        },
      },
    },
  })
}

async function filesOf(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true })
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => relative(folder, join(entry.parentPath, entry.name)).replaceAll('\\', '/'))
    .filter((name) => !name.endsWith('.gz'))
    .sort()
}

/**
 * Completes a build: writes the chat's files into the service worker, builds the console, and compresses files for servers
 * that use them.
 */
export function shell(): Plugin {
  let root = ''
  let folder = ''
  return {
    name: 'chat-shell',
    apply: 'build',
    configResolved(config) {
      root = config.root
      folder = resolve(root, config.build.outDir)
    },
    async closeBundle() {
      const names = await filesOf(folder)
      if (!names.includes(WORKER)) return
      const kept = names.filter((name) => name !== WORKER && !ON_DEMAND.test(name))
      const hash = createHash('sha256')
      for (const name of kept) hash.update(name).update(await readFile(join(folder, name)))
      const paths = kept.map((name) => (name === 'index.html' ? '/' : `/${name}`))
      const worker = join(folder, WORKER)
      const code = (await readFile(worker, 'utf8'))
        .replaceAll('__SHELL_FILES__', JSON.stringify(paths))
        .replaceAll('__SHELL_VERSION__', JSON.stringify(hash.digest('hex').slice(0, 16)))
      await writeFile(worker, code)
      await buildConsole(root, folder)
      for (const name of (await filesOf(folder)).filter((one) => PACKED.test(one))) {
        const file = join(folder, name)
        await writeFile(`${file}.gz`, gzipSync(await readFile(file), { level: 9 }))
      }
    },
  }
}

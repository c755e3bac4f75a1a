import { createHash } from 'node:crypto'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { join, relative, resolve } from 'node:path'
import { gzipSync } from 'node:zlib'
import type { Plugin } from 'vite'

/** The service worker's file. It must be at the root, which is its scope. */
export const WORKER = 'sw.js'

/** The console's page. */
const CONSOLE = 'console.html'
/** The emoji data: large, and therefore cached only when it is first used. */
const ON_DEMAND = /assets\/emoji-/
const PACKED = /\.(html|js|css|json|svg|webmanifest)$/

type Bundle = Parameters<Extract<Plugin['generateBundle'], (...rest: never[]) => unknown>>[1]

/** The files that only the console needs: what its page leads to and the chat's does not. The chat never loads them. */
function filesOfConsole(bundle: Bundle): Set<string> {
  const reach = (entry: string): Set<string> => {
    const found = new Set<string>()
    const visit = (name: string): void => {
      if (found.has(name)) return
      found.add(name)
      const output = bundle[name]
      if (output?.type !== 'chunk') return
      const { importedCss = [], importedAssets = [] } = output.viteMetadata ?? {}
      for (const next of [...output.imports, ...output.dynamicImports, ...importedCss, ...importedAssets]) visit(next)
    }
    for (const output of Object.values(bundle)) {
      if (output.type === 'chunk' && output.isEntry && output.name === entry) visit(output.fileName)
    }
    return found
  }
  const chat = reach('index')
  return new Set([CONSOLE, ...[...reach('console')].filter((name) => !chat.has(name))])
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
 * Completes a build: writes the file list into the service worker, and compresses files for servers that use them.
 */
export function shell(): Plugin {
  let folder = ''
  let console = new Set<string>()
  return {
    name: 'chat-shell',
    apply: 'build',
    configResolved(config) {
      folder = resolve(config.root, config.build.outDir)
    },
    generateBundle(_, bundle) {
      console = filesOfConsole(bundle)
    },
    async closeBundle() {
      const names = await filesOf(folder)
      if (!names.includes(WORKER)) return
      const kept = names.filter((name) => name !== WORKER && !ON_DEMAND.test(name) && !console.has(name))
      const hash = createHash('sha256')
      for (const name of kept) hash.update(name).update(await readFile(join(folder, name)))
      const paths = kept.map((name) => (name === 'index.html' ? '/' : `/${name}`))
      const worker = join(folder, WORKER)
      const code = (await readFile(worker, 'utf8'))
        .replaceAll('__SHELL_FILES__', JSON.stringify(paths))
        .replaceAll('__SHELL_VERSION__', JSON.stringify(hash.digest('hex').slice(0, 16)))
      await writeFile(worker, code)
      for (const name of names.filter((one) => PACKED.test(one))) {
        const file = join(folder, name)
        await writeFile(`${file}.gz`, gzipSync(await readFile(file), { level: 9 }))
      }
    },
  }
}

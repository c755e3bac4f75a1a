import { fileURLToPath } from 'node:url'
import { runnerImport } from 'vite'

// A path, since a URL has its spaces as %20.
const at = (path) => fileURLToPath(new URL(path, import.meta.url))

// Vite reads TypeScript, which Node does not yet do everywhere.
await runnerImport(at('./measure.ts'), {
  configFile: false,
  resolve: { alias: { '@': at('../src') } },
})
process.exit(0)

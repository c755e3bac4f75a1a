import { runnerImport } from 'vite'

// Vite reads TypeScript, which Node does not yet do everywhere.
await runnerImport(new URL('./measure.ts', import.meta.url).pathname, {
  configFile: false,
  resolve: { alias: { '@': new URL('../src', import.meta.url).pathname } },
})
process.exit(0)

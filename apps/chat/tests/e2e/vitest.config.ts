import { fileURLToPath, URL } from 'node:url'
import { defineConfig } from 'vitest/config'

/** Browsers against a real relay that serves the built app. One after the other: the machine may be small. */
export default defineConfig({
  root: fileURLToPath(new URL('../..', import.meta.url)),
  resolve: { alias: { '@': fileURLToPath(new URL('../../src', import.meta.url)) } },
  test: {
    include: ['tests/e2e/**/*.e2e.ts'],
    globalSetup: ['tests/e2e/build.ts'],
    fileParallelism: false,
    testTimeout: 240_000,
    hookTimeout: 180_000,
    // The original's library writes every answer of the relay there.
    onConsoleLog: (text) => !text.startsWith('CLASP '),
  },
})

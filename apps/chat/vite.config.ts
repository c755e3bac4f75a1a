import vue from '@vitejs/plugin-vue'
import { defineConfig } from 'vitest/config'
import { buildSettings, settings } from './build/settings.ts'
import { shell, WORKER } from './build/shell.ts'

const AUTH_API = 'http://127.0.0.1:7350'
const RELAY = 'ws://127.0.0.1:7330'

export default defineConfig({
  plugins: [vue(), shell()],
  ...settings,
  server: {
    port: 5173,
    strictPort: true,
    // `/auth` itself is a page of the app; only what lies below it is the API.
    proxy: {
      '/auth/': { target: AUTH_API },
      '/api/': { target: AUTH_API },
      '/files': { target: AUTH_API },
      '/ws': { target: RELAY, ws: true },
    },
  },
  build: {
    ...buildSettings,
    rolldownOptions: {
      input: { index: 'index.html', sw: 'src/sw.ts' },
      output: {
        entryFileNames: (chunk) => (chunk.name === 'sw' ? WORKER : 'assets/[name]-[hash].js'),
        chunkFileNames: ({ moduleIds }) =>
          moduleIds.some((id) => id.includes('emojibase-data')) ? 'assets/emoji-[hash].js' : 'assets/[name]-[hash].js',
      },
    },
    // The emoji data, which load when somebody opens the picker.
    chunkSizeWarningLimit: 700,
  },
  test: {
    environment: 'node',
    include: ['tests/**/*.test.ts'],
    setupFiles: ['tests/setup.ts'],
    // The machine may be busy with other tests: how long they take says nothing of them.
    testTimeout: 300_000,
    hookTimeout: 300_000,
    maxWorkers: 2,
    coverage: {
      provider: 'v8',
      include: ['src/**/*.{ts,vue}'],
      exclude: ['src/main.ts', 'src/**/*.d.ts'],
      thresholds: {
        'src/protocol/**': { branches: 100, lines: 100, functions: 100 },
        'src/crypto/**': { branches: 100, lines: 100, functions: 100 },
        'src/calls/**': { branches: 90, lines: 95, functions: 95 },
      },
    },
  },
})

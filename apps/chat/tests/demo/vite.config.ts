import { fileURLToPath, URL } from 'node:url'
import vue from '@vitejs/plugin-vue'
import { defineConfig } from 'vite'

const at = (path: string): string => fileURLToPath(new URL(path, import.meta.url))

/** The interface with stand-ins for the stores: no relay, any number of messages (`?messages=10000`). */
export default defineConfig({
  root: at('.'),
  plugins: [vue()],
  resolve: {
    alias: [
      { find: /^@\/stores$/, replacement: at('../fakes/stores.ts') },
      { find: '@', replacement: at('../../src') },
    ],
  },
  cacheDir: at('../../node_modules/.vite-demo'),
  build: { target: 'es2022', assetsInlineLimit: 0, outDir: at('../../dist-demo'), emptyOutDir: true },
})

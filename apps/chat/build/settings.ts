import { fileURLToPath, URL } from 'node:url'
import type { BuildEnvironmentOptions, UserConfig } from 'vite'

/** What the builds of the chat and of the console have in common. */
export const settings = {
  resolve: { alias: { '@': fileURLToPath(new URL('../src', import.meta.url)) } },
  define: {
    __VUE_OPTIONS_API__: 'false',
    __VUE_PROD_DEVTOOLS__: 'false',
    __VUE_I18N_LEGACY_API__: 'false',
    __VUE_I18N_FULL_INSTALL__: 'false',
    __INTLIFY_PROD_DEVTOOLS__: 'false',
  },
} satisfies UserConfig

export const buildSettings = {
  target: 'es2022',
  // A strict Content-Security-Policy forbids inline modules and data: scripts.
  assetsInlineLimit: 0,
  modulePreload: { polyfill: false },
} satisfies BuildEnvironmentOptions

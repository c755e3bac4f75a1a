import prettier from 'eslint-config-prettier'
import vue from 'eslint-plugin-vue'
import globals from 'globals'
import ts from 'typescript-eslint'

/** The layers from the bottom up: each may import those before it and itself, nothing above. */
const LAYERS = ['protocol', 'crypto', 'storage', 'calls', 'stores', 'components', 'views', 'console']
/** What the layers without a user interface must not know. */
const UI_PACKAGES = ['vue', 'vue/*', 'vue-router', 'pinia', 'vue-i18n', '@vue/*', 'reka-ui', 'lucide-vue-next', '*.vue']
const HEADLESS = ['protocol', 'crypto', 'storage', 'calls']

const layerRules = LAYERS.map((layer, index) => {
  const above = LAYERS.slice(index + 1).flatMap((name) => [`@/${name}`, `@/${name}/*`, `**/../${name}/*`])
  const ui = HEADLESS.includes(layer) ? [...UI_PACKAGES, '@/i18n', '@/i18n/*'] : []
  const patterns = []
  // The console is a page of its own: it shares the protocol and the components, and loads nothing of the chat's state.
  if (layer === 'console')
    above.push(
      '@/crypto',
      '@/storage',
      '@/stores',
      '@/views',
      ...['crypto', 'storage', 'stores', 'views'].map((name) => `@/${name}/*`),
    )
  if (above.length) patterns.push({ group: above, message: `${layer} must not know the layers above it.` })
  if (ui.length) patterns.push({ group: ui, message: `${layer} knows no user interface.` })
  return {
    files: [`src/${layer}/**/*.{ts,vue}`],
    rules: { 'no-restricted-imports': ['error', { patterns }] },
  }
})

export default ts.config(
  { ignores: ['dist/', 'coverage/', 'node_modules/', 'public/'] },
  ...ts.configs.recommended,
  ...vue.configs['flat/recommended'],
  {
    files: ['**/*.{ts,vue}'],
    languageOptions: {
      globals: { ...globals.browser, ...globals.worker },
      parserOptions: { parser: ts.parser },
    },
    rules: {
      'no-undef': 'off',
      '@typescript-eslint/no-unused-vars': ['error', { ignoreRestSiblings: true }],
      eqeqeq: ['error', 'always'],
      'no-console': 'error',
      'vue/multi-word-component-names': 'off',
      'vue/no-v-html': 'error',
      'vue/block-lang': ['error', { script: { lang: 'ts' } }],
      'vue/component-api-style': ['error', ['script-setup']],
    },
  },
  ...layerRules,
  prettier,
)

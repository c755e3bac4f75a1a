// @vitest-environment happy-dom
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import de from '@/i18n/de'
import en from '@/i18n/en'
import { browserLanguage, i18n, setLanguage } from '@/i18n'

function flat(tree: object, prefix = ''): Map<string, string> {
  const all = new Map<string, string>()
  for (const [name, value] of Object.entries(tree)) {
    if (typeof value === 'string') all.set(prefix + name, value)
    else for (const [key, text] of flat(value as object, `${prefix}${name}.`)) all.set(key, text)
  }
  return all
}

const holes = (text: string): string[] => [...new Set(text.match(/\{\w+\}/g) ?? [])].sort()

function sources(): string {
  const root = join(process.cwd(), 'src')
  return readdirSync(root, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && /\.(vue|ts)$/.test(entry.name) && !entry.parentPath.includes('i18n'))
    .map((entry) => readFileSync(join(entry.parentPath, entry.name), 'utf8'))
    .join('\n')
}

describe('the languages', () => {
  const english = flat(en)
  const german = flat(de)

  it('say the same things with the same parameters', () => {
    expect([...german.keys()].sort()).toEqual([...english.keys()].sort())
    for (const [key, text] of english) expect([key, holes(german.get(key) ?? '')]).toEqual([key, holes(text)])
  })

  it('have a word for every key that the app uses', () => {
    const used = [...sources().matchAll(/(?:\bt\(\s*|key: |\? |: )'([a-z]\w*(?:\.\w+)+)'/gi)].map(
      (match) => match[1] ?? '',
    )
    const roots = new Set(Object.keys(en))
    const missing = used.filter((key) => roots.has(key.split('.')[0] ?? '') && !english.has(key))
    expect(used.length).toBeGreaterThan(150)
    expect(missing).toEqual([])
  })

  it('are chosen by the browser’s list, else English', () => {
    expect(browserLanguage(['fr-FR', 'de-AT', 'en'])).toBe('de')
    expect(browserLanguage(['fr'])).toBe('en')
    expect(browserLanguage([])).toBe('en')
  })

  it('change on request, and an unknown one changes nothing', async () => {
    await setLanguage('de')
    expect(i18n.global.t('common.cancel')).toBe('Abbrechen')
    expect(document.documentElement.lang).toBe('de')
    await setLanguage('xx')
    expect(i18n.global.t('common.cancel')).toBe('Abbrechen')
    await setLanguage('en')
    expect(i18n.global.t('common.cancel')).toBe('Cancel')
  })
})

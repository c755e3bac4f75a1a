// @vitest-environment happy-dom
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import de from '@/i18n/de'
import { consoleTexts as deConsole } from '@/i18n/de/console'
import en from '@/i18n/en'
import { consoleTexts as enConsole } from '@/i18n/en/console'
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
    .filter((entry) => entry.isFile() && /\.(vue|ts)$/.test(entry.name) && !/i18n.(en|de)$/.test(entry.parentPath))
    .map((entry) => readFileSync(join(entry.parentPath, entry.name), 'utf8'))
    .join('\n')
}

describe('the languages', () => {
  const english = flat({ ...en, console: enConsole })
  const german = flat({ ...de, console: deConsole })

  it('say the same things with the same parameters', () => {
    expect([...german.keys()].sort()).toEqual([...english.keys()].sort())
    for (const [key, text] of english) expect([key, holes(german.get(key) ?? '')]).toEqual([key, holes(text)])
  })

  it('are used: no text is left over', () => {
    const source = sources()
    const literals = new Set([...source.matchAll(/'([a-z]\w*(?:\.\w+)+)'/gi)].map((match) => match[1]))
    // `status.${…}` uses every key below `status`; the compiler checks that the parameter is one of them.
    const families = [...source.matchAll(/`((?:\w+\.)+)\$\{[^`}]*\}(\w*)`/g)].map(
      ([, prefix = '', suffix = '']) => new RegExp(`^${prefix.replaceAll('.', '\\.')}\\w+${suffix}$`),
    )
    expect(literals.size).toBeGreaterThan(200)
    const unused = [...english.keys()].filter(
      (key) => !literals.has(key) && !families.some((family) => family.test(key)),
    )
    expect(unused).toEqual([])
  })

  it('have no text in common but names and words that both have', () => {
    const same = [...english].filter(
      ([key, text]) => german.get(key) === text && /[a-z]{2}/i.test(text.replace(/\{\w+\}/g, '')),
    )
    const shared = [
      'CLASP Chat',
      'optional',
      'System',
      'Online',
      'Offline',
      'Name',
      'Link',
      'Status',
      'Version',
      'Moderator',
      'Administrator',
    ]
    expect(same.filter(([, text]) => !shared.includes(text) && !/^\{count\} online/.test(text))).toEqual([])
  })

  it('are set as each language sets its texts', () => {
    for (const [key, text] of [...english, ...german]) {
      expect([key, text]).not.toEqual([key, expect.stringMatching(/["']|\.\.\.|  | - /)])
    }
    for (const [key, text] of german) expect([key, text]).not.toEqual([key, expect.stringMatching(/[”«»]|[^\u00a0]…/)])
    for (const [key, text] of english) expect([key, text]).not.toEqual([key, expect.stringMatching(/[„«»]|\s…/)])
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

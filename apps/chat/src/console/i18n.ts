/** The console's texts beside those of the chat that it shares: buttons and errors. */
import type { WritableComputedRef } from 'vue'
import { useI18n as useVueI18n } from 'vue-i18n'
import { browserLanguage, i18n, setLanguage } from '@/i18n'
import type { MessageKey } from '@/i18n/en'
import { consoleTexts } from '@/i18n/en/console'

type Leaves<Tree> = {
  [Name in keyof Tree & string]: Tree[Name] extends string ? Name : `${Name}.${Leaves<Tree[Name]>}`
}[keyof Tree & string]

export type ConsoleKey = MessageKey | `console.${Leaves<typeof consoleTexts>}`

/** The text for a key, with its parameters filled in; `count` also selects the plural form. */
export type Translate = (key: ConsoleKey, params?: Readonly<Record<string, string | number>>) => string

export function useI18n(): { t: Translate; locale: WritableComputedRef<string> } {
  const { t, locale } = useVueI18n()
  return { t: t as Translate, locale }
}

/** Loads the texts of the browser's language; the console follows the browser, since it stores nothing. */
export async function addConsoleTexts(language = browserLanguage()): Promise<void> {
  i18n.global.mergeLocaleMessage('en', { console: consoleTexts })
  await setLanguage(language)
  if (language !== 'de') return
  const german = await import('@/i18n/de/console')
  i18n.global.mergeLocaleMessage('de', { console: german.consoleTexts })
}

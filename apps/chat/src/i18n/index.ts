import type { WritableComputedRef } from 'vue'
import { createI18n, useI18n as useVueI18n } from 'vue-i18n'
import en, { type MessageKey, type Messages } from './en'

/** Language tags, each with the language's own name. */
export const LANGUAGES: Readonly<Record<string, string>> = { en: 'English', de: 'Deutsch' }

const LOADERS: Readonly<Record<string, () => Promise<{ default: Messages }>>> = { de: () => import('./de') }

export const i18n = createI18n({
  legacy: false,
  locale: 'en',
  fallbackLocale: 'en',
  messages: { en } as Record<string, Messages>,
})

/** The text for a key, with its parameters filled in; `count` also selects the plural form. */
export type Translate = (key: MessageKey, params?: Readonly<Record<string, string | number>>) => string

/** `useI18n` of vue-i18n with keys that the compiler checks. */
export function useI18n(): { t: Translate; locale: WritableComputedRef<string> } {
  const { t, locale } = useVueI18n()
  return { t: t as Translate, locale }
}

/** The first language in the browser's list that the app has; English if there is none. */
export function browserLanguage(wanted: readonly string[] = navigator.languages): string {
  for (const tag of wanted) {
    const language = tag.toLowerCase().split('-')[0] ?? ''
    if (Object.hasOwn(LANGUAGES, language)) return language
  }
  return 'en'
}

/** Switches the interface to a language; null selects the browser's. An unknown tag changes nothing. */
export async function setLanguage(tag: string | null): Promise<void> {
  const language = tag ?? browserLanguage()
  if (!Object.hasOwn(LANGUAGES, language)) return
  const load = LOADERS[language]
  if (load && !i18n.global.availableLocales.includes(language))
    i18n.global.setLocaleMessage(language, (await load()).default)
  i18n.global.locale.value = language
  document.documentElement.lang = language
}

import { createI18n } from 'vue-i18n'
import en, { type Messages } from './en'

/** Languages by their tags, named in themselves. */
export const LANGUAGES: Readonly<Record<string, string>> = { en: 'English', de: 'Deutsch' }

const LOADERS: Readonly<Record<string, () => Promise<{ default: Messages }>>> = { de: () => import('./de') }

export const i18n = createI18n({
  legacy: false,
  locale: 'en',
  fallbackLocale: 'en',
  messages: { en } as Record<string, Messages>,
})

/** The first language of the browser's list that the app speaks. */
export function browserLanguage(wanted: readonly string[] = navigator.languages): string {
  for (const tag of wanted) {
    const language = tag.toLowerCase().split('-')[0] ?? ''
    if (language in LANGUAGES) return language
  }
  return 'en'
}

/** Changes the language of everything on screen; null takes the browser's. An unknown one changes nothing. */
export async function setLanguage(tag: string | null): Promise<void> {
  const language = tag ?? browserLanguage()
  if (!(language in LANGUAGES)) return
  const load = LOADERS[language]
  if (load && !i18n.global.availableLocales.includes(language))
    i18n.global.setLocaleMessage(language, (await load()).default)
  i18n.global.locale.value = language
  document.documentElement.lang = language
}

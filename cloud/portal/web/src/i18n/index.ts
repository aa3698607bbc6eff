/** Spanish of Mexico first; English has the same keys (tests/browser/test_catalogues.py). */
import { createI18n } from 'vue-i18n'
import en from './en.json'
import esMX from './es-MX.json'

export const LOCALES = ['es-MX', 'en'] as const
export type Locale = (typeof LOCALES)[number]

const KEPT = 'aquacis.locale'

function chosen(): Locale {
  try {
    return localStorage.getItem(KEPT) === 'en' ? 'en' : 'es-MX'
  } catch {
    return 'es-MX'
  }
}

export const i18n = createI18n({
  legacy: false,
  locale: chosen(),
  fallbackLocale: 'es-MX',
  messages: { 'es-MX': esMX, en: en as typeof esMX },
})

export function setLocale(locale: Locale): void {
  i18n.global.locale.value = locale
  document.documentElement.lang = locale
  try {
    localStorage.setItem(KEPT, locale)
  } catch {
    // storage may be forbidden: the choice then holds until the page is left
  }
}

document.documentElement.lang = i18n.global.locale.value

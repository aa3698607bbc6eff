/** How numbers and instants are written: es-MX or en, always in the utility's own time zone. */
import { computed } from 'vue'
import { useI18n } from 'vue-i18n'

export const TIME_ZONE = 'America/Mexico_City'
export const HOUR_S = 3_600
export const DAY_S = 24 * HOUR_S

const LITRES_PER_M3 = 1_000
const NBSP = '\u00a0' // a number and its unit stay on one line

export interface Formats {
  whole: (n: number) => string
  decimal: (n: number, digits: number) => string
  rate: (perSecond: number) => string
  litres: (l: number) => string
  /** Litres below a cubic metre, cubic metres above. */
  volume: (l: number) => string
  register: (l: number) => string
  percent: (share: number) => string
  dateTime: (at: string | number) => string
  day: (at: string | number) => string
  shortDay: (at: string | number) => string
  time: (at: string | number) => string
  seconds: (at: string | number) => string
  duration: (s: number) => string
}

const instant = (at: string | number): Date => new Date(at)

function dates(locale: string): Record<string, Intl.DateTimeFormat> {
  const make = (options: Intl.DateTimeFormatOptions): Intl.DateTimeFormat =>
    new Intl.DateTimeFormat(locale, { timeZone: TIME_ZONE, hourCycle: 'h23', ...options })
  const clock = { hour: '2-digit', minute: '2-digit' } as const
  return {
    dateTime: make({ day: 'numeric', month: 'short', year: 'numeric', ...clock }),
    day: make({ weekday: 'short', day: 'numeric', month: 'short' }),
    shortDay: make({ day: 'numeric', month: 'short' }),
    time: make(clock),
    seconds: make({ ...clock, second: '2-digit' }),
  }
}

/** "3 d 4 h", "12 min", "8 s": two units at most, the larger first. */
export function spell(s: number, whole: (n: number) => string): string {
  const left = Math.max(0, Math.round(s))
  const parts: [number, string][] = [
    [Math.floor(left / DAY_S), 'd'],
    [Math.floor((left % DAY_S) / HOUR_S), 'h'],
    [Math.floor((left % HOUR_S) / 60), 'min'],
    [left % 60, 's'],
  ]
  const first = parts.findIndex(([n]) => n > 0)
  if (first < 0) return '0 s'
  return parts
    .slice(first, first + 2)
    .filter(([n]) => n > 0)
    .map(([n, unit]) => `${whole(n)}${NBSP}${unit}`)
    .join(NBSP)
}

export function formatsFor(locale: string): Formats {
  const number = (digits: number): Intl.NumberFormat =>
    new Intl.NumberFormat(locale, { minimumFractionDigits: digits, maximumFractionDigits: digits })
  const whole = number(0)
  const byDigits = [whole, number(1), number(2), number(3)]
  const share = new Intl.NumberFormat(locale, { style: 'percent', maximumFractionDigits: 0 })
  const date = dates(locale)
  const decimal = (n: number, digits: number): string => byDigits[digits]!.format(n)
  const write = (name: string) => (at: string | number) => date[name]!.format(instant(at))
  return {
    whole: (n) => whole.format(n),
    decimal,
    rate: (perSecond) => decimal(perSecond, perSecond > 0 && perSecond < 100 ? 1 : 0),
    litres: (l) => `${whole.format(l)}${NBSP}L`,
    volume: (l) =>
      Math.abs(l) < LITRES_PER_M3
        ? `${whole.format(l)}${NBSP}L`
        : `${decimal(l / LITRES_PER_M3, Math.abs(l) < 100 * LITRES_PER_M3 ? 2 : 0)}${NBSP}m³`,
    register: (l) => `${decimal(l / LITRES_PER_M3, 3)}${NBSP}m³`,
    percent: (ratio) => share.format(ratio),
    dateTime: write('dateTime'),
    day: write('day'),
    shortDay: write('shortDay'),
    time: write('time'),
    seconds: write('seconds'),
    duration: (s) => spell(s, (n) => whole.format(n)),
  }
}

export function useFormats(): { f: { readonly value: Formats } } {
  const { locale } = useI18n()
  return { f: computed(() => formatsFor(locale.value)) }
}

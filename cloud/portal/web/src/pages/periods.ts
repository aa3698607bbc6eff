/** The span a page of one meter or gateway shows, as a whole grid of hours or local days. */
import type { Consumption } from '@/api/types'
import { DAY_S, HOUR_S, TIME_ZONE, type Formats } from '@/format'

export const RANGES = ['24h', '7d', '40d'] as const
export type Range = (typeof RANGES)[number]
export type View = 'chart' | 'table'
export type Resolution = 'hourly' | 'daily'

export const SPANS: Record<Range, number> = { '24h': DAY_S, '7d': 7 * DAY_S, '40d': 40 * DAY_S }

export interface Span {
  from: number
  to: number
}

/** The bounds of a span, as a question says them. */
export const boundsOf = ({ from, to }: Span): { from: string; to: string } => ({
  from: new Date(from * 1_000).toISOString(),
  to: new Date(to * 1_000).toISOString(),
})

const clock = new Intl.DateTimeFormat('en-US', {
  timeZone: TIME_ZONE,
  hourCycle: 'h23',
  hour: '2-digit',
  minute: '2-digit',
  second: '2-digit',
})

/** Seconds since local midnight. Central Mexico has kept one offset since 2022 (no DST). */
function sinceMidnight(at: number): number {
  const parts = clock.formatToParts(at * 1_000).map((part) => Number(part.value))
  const [hour = 0, , minute = 0, , second = 0] = parts
  return hour * HOUR_S + minute * 60 + second
}

/** Epoch seconds of the shown span, half-open: whole hours, or whole local days, before `nowS`. */
export function spanOf(nowS: number, range: Range, resolution: Resolution): Span {
  if (resolution === 'hourly') {
    const to = Math.floor(nowS / HOUR_S) * HOUR_S
    return { from: to - SPANS[range], to }
  }
  const to = nowS - sinceMidnight(nowS)
  return { from: to - SPANS[range], to }
}

/** From when to when a period lasts: "13:00–14:00". */
export function hoursOf(from: string | number, stepS: number, f: Formats): string {
  const at = new Date(from).getTime()
  return `${f.time(at)}–${f.time(at + stepS * 1_000)}`
}

const localDate = new Intl.DateTimeFormat('en-CA', { timeZone: TIME_ZONE })

/** The name of a period in an answer: a day by its local date, an hour by where it begins. */
const nameAt = (at: number, stepS: number): string =>
  stepS === DAY_S ? localDate.format(at * 1_000) : String(at)

const nameOf = (item: Consumption): string => item.on ?? String(Date.parse(item.from) / 1_000)

/** Every hour (or day) of the span: what the server does not know is a gap, said as null. */
export function wholeGrid(items: readonly Consumption[], span: Span, stepS: number): Consumption[] {
  const known = new Map(items.map((item) => [nameOf(item), item]))
  const grid: Consumption[] = []
  for (let at = span.from; at < span.to; at += stepS) {
    const from = new Date(at * 1_000).toISOString()
    const to = new Date((at + stepS) * 1_000).toISOString()
    const { litres = null, late = false } = known.get(nameAt(at, stepS)) ?? {}
    grid.push({ from, to, litres, late })
  }
  return grid
}

export interface Summary {
  litres: number
  gaps: number
  late: number
  heard: number
  /** Litres in the quietest period heard: above zero for days, something runs. */
  least: number | null
}

export function summarise(grid: readonly Consumption[]): Summary {
  const heard = grid.flatMap((item) => (item.litres === null ? [] : [item.litres]))
  return {
    litres: heard.reduce((sum, l) => sum + l, 0),
    gaps: grid.length - heard.length,
    late: grid.filter((item) => item.late && item.litres !== null).length,
    heard: heard.length,
    least: heard.length ? Math.min(...heard) : null,
  }
}

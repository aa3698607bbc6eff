/** What a gateway's figures say, for the list and for its own page. Thresholds as on the agent's page. */
import { useI18n } from 'vue-i18n'
import type { GatewayHour, GatewayItem } from '@/api/types'
import { HOUR_S, useFormats } from '@/format'

const SILENT_S = HOUR_S // an hourly fleet that says nothing for an hour has lost a whole round
const CLOCK_OFF_S = 60
export const WHOLE = 0.95 // from here an hour counts as complete: radio always loses a little
export const LEAST_FREE = 0.1 // of the disk, of the memory
export const HOT_C = 75 // commercial boards are specified to 70 °C, industrial ones to 85

/** Seconds since the gateway's last message; null when there was none. `now` as the server says. */
export function silence(gateway: GatewayItem, now: string): number | null {
  if (gateway.last_seen_at === null) return null
  return Math.max(0, (Date.parse(now) - Date.parse(gateway.last_seen_at)) / 1_000)
}

export function stateOf(gateway: GatewayItem, now: string): 'ok' | 'late' | 'down' {
  const silent = silence(gateway, now)
  if (silent === null || silent > SILENT_S) return 'down'
  return Math.abs(gateway.clock_offset_s ?? 0) > CLOCK_OFF_S ? 'late' : 'ok'
}

/** What an hour brought of what was expected, or of `most` while nobody knows that. At most 1. */
export const shareOf = (hour: GatewayHour, most = 1): number =>
  Math.min(1, hour.received / (hour.expected || most))

/** What 24 hours, or more, brought beside what they should have. */
export function heardIn(hours: readonly GatewayHour[]): { received: number; expected: number } {
  return {
    received: hours.reduce((sum, hour) => sum + hour.received, 0),
    expected: hours.reduce((sum, hour) => sum + (hour.expected ?? 0), 0),
  }
}

export interface Source {
  name: string
  up: boolean
  perHour: number | null
  heard: number
  bad: number
  deaths: number
}

/** The sources as an agent counts them: source_<name>_up, _heard, _bad, _deaths, _per_hour. */
export function sourcesOf(health: Record<string, number> = {}): Source[] {
  return Object.entries(health).flatMap(([figure, up]) => {
    const name = /^source_(.+)_up$/.exec(figure)?.[1]
    if (name === undefined) return []
    const of = (what: string): number | undefined => health[`source_${name}_${what}`]
    return {
      name,
      up: up !== 0,
      perHour: of('per_hour') ?? null,
      heard: of('heard') ?? 0,
      bad: of('bad') ?? 0,
      deaths: of('deaths') ?? 0,
    }
  })
}

/** A gateway in words: its clock, its silence. */
export function useGatewayWords(): {
  clockOf: (gateway: GatewayItem) => string
  qualityOf: (gateway: GatewayItem) => string
  seenOf: (gateway: GatewayItem, now: string) => string
} {
  const { t, te } = useI18n()
  const { f } = useFormats()
  return {
    clockOf(gateway) {
      const offset = gateway.clock_offset_s
      if (offset === null) return t('gateways.clockUnknown')
      if (Math.abs(offset) < 1) return t('gateways.clockRight')
      const by = f.value.duration(Math.abs(offset))
      return t(offset > 0 ? 'gateways.clockAhead' : 'gateways.clockBehind', { by })
    },
    qualityOf: ({ clock_quality: quality }) =>
      te(`gateways.quality.${quality}`) ? t(`gateways.quality.${quality}`) : quality,
    seenOf(gateway, now) {
      const silent = silence(gateway, now)
      return silent === null
        ? t('gateways.never')
        : t('gateways.seen', { ago: f.value.duration(silent) })
    },
  }
}

/** How much a leak matters: its rate times how long it has run, so the litres it has let go. */
import type { AlertItem } from '@/api/types'

export type Severity = 'critical' | 'high' | 'medium' | 'low'

export const SEVERITIES: readonly Severity[] = ['critical', 'high', 'medium', 'low']

const HOURS_MS = 3_600_000
// Litres already lost: a household uses about half a cubic metre a day.
const FROM_L: Record<Exclude<Severity, 'low'>, number> = {
  critical: 10_000,
  high: 2_500,
  medium: 500,
}
// A pipe that loses a cubic metre an hour does not wait until it has lost ten.
const BURST_LPH = 1_000

export function durationS(alert: AlertItem, nowMs: number): number {
  const end = alert.closed_at ? Date.parse(alert.closed_at) : nowMs
  return Math.max(0, (end - Date.parse(alert.started_at)) / 1_000)
}

/** Litres lost: the agent's own count, or rate × duration when it has grown past that. */
export function lossOf(alert: AlertItem, nowMs: number): number {
  return Math.max(alert.litres, (alert.rate_lph * durationS(alert, nowMs) * 1_000) / HOURS_MS)
}

export function severityOf(alert: AlertItem, nowMs: number): Severity {
  const lost = lossOf(alert, nowMs)
  if (lost >= FROM_L.critical || alert.rate_lph >= BURST_LPH) return 'critical'
  if (lost >= FROM_L.high) return 'high'
  return lost >= FROM_L.medium ? 'medium' : 'low'
}

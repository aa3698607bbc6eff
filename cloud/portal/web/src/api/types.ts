/** The shapes of /api/v1. Instants are ISO 8601 UTC, volumes whole litres, durations seconds. */

export interface Page<T> {
  items: T[]
  next: string | null
}

export interface Me {
  subject: string
  name?: string | null
  roles: string[]
  administrations: string[]
}

export interface MeterItem {
  meter_key: number
  name: string
  names: string[]
  driver: string | null
  administration: string | null
  provisional: boolean
  last_at: string | null
  last_register_l: number | null
  open_alerts: number
}

export interface Consumption {
  from: string
  to: string
  /** null where no register was heard: a gap, never a zero. */
  litres: number | null
  late: boolean
}

export interface FrameItem {
  hash: string
  heard_at: string
  integrity: string
  driver?: string | null
  receptions?: number
  registers?: number
  register_l?: number | null
  late?: boolean
}

export interface Reception {
  gateway: string
  heard_at: string
  received_at?: string | null
  rssi: number | null
  snr: number | null
  clock_quality?: string | null
}

export interface FrameDetail {
  hash: string
  integrity: string
  driver?: string | null
  decoder_version?: number | string | null
  key_version?: number | null
  raw: string
  fields: Record<string, unknown>
  series?: { at: string; register_l: number }[]
  receptions: Reception[]
}

export type AlertState = 'open' | 'closed'

export interface AlertItem {
  id: string
  meter_key: number
  meter: string
  kind: string
  level: number
  state: AlertState
  rate_lph: number
  litres: number
  started_at: string
  opened_at: string
  closed_at: string | null
  gateway: string | null
}

export interface GatewayHour {
  from: string
  expected: number
  received: number
}

export interface GatewayItem {
  id: string
  name: string
  administration: string
  last_seen_at: string | null
  /** Positive: the gateway's clock is ahead of the cloud's. */
  clock_offset_s: number | null
  clock_quality: string
  backlog: number | null
  expected: number
  received: number
  hours: GatewayHour[]
}

export type StageId = 'radio' | 'agent' | 'broker' | 'intake' | 'store' | 'alerts'

export interface Stage {
  id: StageId
  rate_per_s: number
  total: number
  lag_s: number | null
  ok: boolean
}

export interface Pipeline {
  now: string
  speed: number
  stages: Stage[]
  gateways: GatewayItem[]
  history: { done: number; total: number; eta_s: number | null } | null
  readings_total: number
  telegrams_total: number
  open_alerts: number
  dead_letters: number
}

export interface DeadLetter {
  id: number | string
  code: string
  reason?: string | null
  state: string
  attempts?: number
  gateway?: string | null
  meter?: string | null
  first_at: string
  last_at?: string | null
  bytes: string | null
}

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
  administration_names: Record<string, string>
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
  last_heard_at?: string | null
}

export interface Consumption {
  /** The local date, where the period is a day. */
  on?: string
  from: string
  to: string
  /** null where no register was heard: a gap, never a zero. */
  litres: number | null
  late: boolean
}

export interface FrameItem {
  hash: string
  radio: string
  heard_at: string
  integrity: string
  key_version: number | null
  register_l: number | null
  receptions: Reception[]
}

export interface Reception {
  gateway: string
  heard_at: string
  received_at: string | null
  clock_quality: string
  rssi_dbm: number | null
  snr_db: number | null
}

/** A frame opened: its bytes and what they say, decoded again by the server just now. */
export interface FrameDetail extends FrameItem {
  driver: string | null
  decoder_version: number
  raw: string
  fields: Record<string, unknown>
  status: string[]
  /** Registers by the meter's own clock, newest first. */
  series: { meter_clock: string; register_l: number }[]
  error: string | null
}

export type AlertState = 'open' | 'closed'

export interface AlertItem {
  id: number
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
  /** null until a week has taught what is usual. */
  expected: number | null
  received: number
}

export interface GatewayItem {
  id: string
  name: string
  administration: string
  agent_version?: string | null
  last_seen_at: string | null
  /** Positive: the gateway's clock is ahead of the cloud's. */
  clock_offset_s: number | null
  clock_quality: string
  backlog: number | null
  /** Of the last full hour, as `received`. */
  expected: number | null
  received: number
  losses?: number
  /** What its agent last said of itself; an older one says less. Names end in their unit. */
  health?: Record<string, number>
  hours: GatewayHour[]
}

/** Rows of a gateway that will never come. */
export interface LossItem {
  first_seq: number
  /** null: unknown how many after the first. */
  last_seq: number | null
  reason: string
  kind: string
  rows: number | null
  /** false: rows may have been lost, none is known to be. */
  certain: boolean
  from: string | null
  to: string | null
  reported_at: string | null
}

export interface GatewayHours extends Page<GatewayHour> {
  /** The hundred reported last. */
  losses: LossItem[]
}

/** What a gateway reported of itself; what it says depends on the kind. */
export interface ReportItem {
  id: number
  kind: string
  heard_at: string
  received_at: string
  says: Record<string, string | number | boolean>
}

/** Dead letters of one gateway and code, by state. */
export interface RejectCount {
  code: string
  open: number
  replayed: number
  dismissed: number
  last_received_at: string
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
  meters_total: number
  open_alerts: number
  dead_letters: number
}

export interface DeadLetter {
  id: number
  code: string
  detail: string | null
  state: 'open' | 'replayed' | 'dismissed'
  attempts: number
  gateway: string | null
  meter: string | null
  received_at: string
  last_attempt_at: string | null
  bytes_hex: string
}

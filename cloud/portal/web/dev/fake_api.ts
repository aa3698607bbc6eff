/** A pretend server for `npm run dev` only: shapes of /api/v1 with made-up water. Never built in. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Plugin } from 'vite'
import { ofGateway } from './fake_gateway.ts'
import type {
  AlertItem,
  Consumption,
  DeadLetter,
  FrameItem,
  GatewayItem,
  MeterItem,
  Pipeline,
  Reception,
} from '../src/api/types'

const HOUR = 3_600_000
const SPEED = 60
const started = Date.now()
const simStart = Date.UTC(2026, 10, 24, 16, 0)
const now = (): number => simStart + (Date.now() - started) * SPEED
const iso = (ms: number): string => new Date(ms).toISOString()

/** The same number in [0, 1) for the same question, so that a reload shows the same city. */
function chance(...of: number[]): number {
  let h = 2166136261
  for (const n of of) h = Math.imul(h ^ (n | 0), 16777619) ^ (h >>> 13)
  return ((h ^ (h >>> 15)) >>> 0) / 4294967296
}

const meters: MeterItem[] = Array.from({ length: 200 }, (_, i) => ({
  meter_key: i + 1,
  name: i % 20 === 0 ? `KAW-${53885758 + i}` : `0013EA00${(0x1020304 + i * 77).toString(16).toUpperCase().padStart(8, '0')}`,
  names: [`KAW-${53885758 + i}`],
  driver: 'kamstrup_water',
  administration: i % 7 === 0 ? 'corregidora' : 'queretaro',
  provisional: i % 9 === 0,
  last_at: i === 13 ? null : iso(simStart - (i % 5) * HOUR),
  last_register_l: i === 13 ? null : 100_000 + Math.round(chance(i) * 900_000),
  open_alerts: [2, 5, 11].includes(i) ? 1 : 0,
}))

function hourLitres(key: number, hour: number): number | null {
  if (chance(key, hour, 1) < 0.02 || chance(key, Math.floor(hour / 9), 2) < 0.03) return null
  const local = (hour - 6 + 24 * 10) % 24
  const base = local > 5 && local < 10 ? 70 : local > 17 && local < 22 ? 55 : local < 5 ? 1 : 18
  const leak = key === 3 && hour * HOUR > simStart - 70 * HOUR ? 42 : 0
  return Math.round(base * chance(key, hour, 3) * 1.6) + leak
}

function consumption(key: number, from: number, to: number, step: number): Consumption[] {
  const items: Consumption[] = []
  for (let at = Math.floor(from / step) * step; at < to; at += step) {
    let litres: number | null = null
    for (let h = at; h < at + step; h += HOUR) {
      const l = hourLitres(key, h / HOUR)
      if (l !== null) litres = (litres ?? 0) + l
    }
    const on = step > HOUR ? { on: iso(at).slice(0, 10) } : {}
    items.push({ ...on, from: iso(at), to: iso(at + step), litres, late: chance(key, at / HOUR, 4) < 0.05 })
  }
  return items
}

const alerts: AlertItem[] = [
  [3, 'continuous_flow', 48, 'open', 42, 70],
  [6, 'continuous_flow', 24, 'open', 6, 26],
  [12, 'burst', 0, 'open', 1_850, 3],
  [40, 'continuous_flow', 72, 'closed', 118, 190],
  [77, 'burst', 0, 'closed', 900, 2],
].map(([key, kind, level, state, rate, hours], i) => ({
  id: i + 1,
  meter_key: key as number,
  meter: meters[(key as number) - 1]!.name,
  kind: kind as string,
  level: level as number,
  state: state as 'open' | 'closed',
  rate_lph: rate as number,
  litres: (rate as number) * (hours as number),
  started_at: iso(simStart - (hours as number) * HOUR),
  opened_at: iso(simStart - Math.max(0, (hours as number) - 24) * HOUR),
  closed_at: state === 'closed' ? iso(simStart - HOUR) : null,
  gateway: 'gw-cimatario',
}))

const GATEWAYS = [
  ['gw-cimatario', 'Cerro del Cimatario', 4],
  ['gw-centro', 'Centro Histórico', -2],
  ['gw-juriquilla', 'Juriquilla', 2412],
  ['gw-corregidora', 'Corregidora, El Pueblito', null],
] as const

function gateways(): GatewayItem[] {
  return GATEWAYS.map(([id, name, offset], g) => {
    const hours = Array.from({ length: 24 }, (_, i) => {
      const from = Math.floor(now() / HOUR) * HOUR - (24 - i) * HOUR
      const down = g === 3 && i > 16
      const share = down ? 0 : 0.9 + 0.1 * chance(g, from / HOUR)
      return { from: iso(from), expected: 110, received: Math.round(110 * (chance(g, i, 8) < 0.08 ? 0.55 : share)) }
    })
    return {
      id,
      name,
      administration: g === 3 ? 'corregidora' : 'queretaro',
      agent_version: '0.1.0',
      last_seen_at: iso(now() - (g === 3 ? 6 * HOUR : 40_000)),
      clock_offset_s: offset,
      clock_quality: offset === null ? 'unknown' : 'trusted',
      backlog: g === 3 ? null : g * 7,
      expected: 110,
      received: hours[23]!.received,
      losses: g === 3 ? 1 : 0,
      health: {
        temperature_c: 38 + g * 3,
        supply_mv: 12_050 - g * 40,
        disk_free_kib: 3_000_000,
        disk_total_kib: 5_900_000,
        memory_available_kib: 310_000,
        memory_total_kib: 506_000,
        resident_kib: 31_200,
        uptime_s: 1_960_000,
        last_ack_age_s: 21,
        profile_lean: g % 2,
        outbox_pending: g * 7,
        outbox_rows: 182_400,
        outbox_bytes: 21_000_000,
        outbox_limit_bytes: 1 << 30,
        outbox_limit_days: 30,
        ...(g === 3 && { outbox_lost_sub_hourly: 3_120, outbox_lost_undecodable: 84 }),
        source_wmbus_up: g === 3 ? 0 : 1,
        source_wmbus_heard: 41_200,
        source_wmbus_bad: 12,
        source_wmbus_deaths: g,
        source_wmbus_per_hour: 96,
        source_chirpstack_up: 1,
        source_chirpstack_heard: 18_040,
        source_chirpstack_bad: 0,
        source_chirpstack_deaths: 0,
        source_chirpstack_per_hour: 24,
        heard: 59_240,
      },
      hours,
    }
  })
}

function pipeline(): Pipeline {
  const t = (Date.now() - started) / 1_000
  const wave = (n: number): number => n * (1 + 0.2 * Math.sin(t / 3))
  const stages = [
    ['radio', 41, 0],
    ['agent', 12.4, 2],
    ['broker', 12.1, 1],
    ['intake', 12.1, 3],
    ['store', 290, 4],
    ['alerts', 0.1, 190],
  ] as const
  return {
    now: iso(now()),
    speed: SPEED,
    stages: stages.map(([id, rate, lag]) => ({
      id,
      rate_per_s: wave(rate),
      total: Math.round(192_000 * (rate / 12) + rate * t),
      lag_s: lag,
      ok: true,
    })),
    gateways: gateways(),
    history: t < 240 ? { done: 82_000 + Math.round(t * 500), total: 192_000, eta_s: 240 - t } : null,
    readings_total: 184_233 + Math.round(t * 290),
    meters_total: meters.length,
    telegrams_total: 96_120 + Math.round(t * 41),
    open_alerts: 3,
    dead_letters: 4,
  }
}

const dead = [
  ['crc', 'CRC of block 2 differs'],
  ['wrong_key', 'decrypted bytes do not start with 2F2F'],
  ['unknown_signature', 'compact frame with a signature nobody taught'],
  ['future', 'heard 3 h after now'],
].map(([code, reason], i) => ({
  id: 900 + i,
  code: code as string,
  detail: reason as string,
  state: i === 2 ? 'replayed' : 'open',
  attempts: i + 1,
  gateway: GATEWAYS[i]![0],
  meter: i ? meters[i]!.name : null,
  received_at: iso(simStart - i * HOUR),
  last_attempt_at: null,
  bytes_hex: '2A442D2C998734761B168D2091D37CAC21576C78'.repeat(i + 1),
})) as DeadLetter[]

const receptions = (count: number): Reception[] =>
  GATEWAYS.slice(0, count).map(([gateway], i) => ({
    gateway,
    heard_at: iso(simStart + i * 300),
    received_at: iso(simStart + 9_000),
    rssi_dbm: -88 - i * 9,
    snr_db: 7.5 - i,
    clock_quality: 'trusted',
  }))

function framesOf(key: number): FrameItem[] {
  return Array.from({ length: 30 }, (_, i) => ({
    hash: `${key.toString(16).padStart(4, '0')}${i.toString(16).padStart(4, '0')}9f3c2a71d04be6557c1a88f0`,
    radio: 'lorawan',
    heard_at: iso(simStart - i * 8 * HOUR),
    integrity: i % 4 ? 'mac' : 'inner-crc',
    key_version: i % 4 ? null : 1,
    receptions: receptions(1 + (i % 3)),
    register_l: 123_456 - i * 210,
  }))
}

function page<T>(items: T[], query: URLSearchParams): unknown {
  const from = Number(query.get('cursor') ?? 0)
  const limit = Number(query.get('limit') ?? 50)
  const next = from + limit < items.length ? String(from + limit) : null
  return { items: items.slice(from, from + limit), next }
}

function answer(path: string, q: URLSearchParams): unknown {
  const to = Number(q.get('to') ? Date.parse(q.get('to')!) : now())
  const from = Number(q.get('from') ? Date.parse(q.get('from')!) : to - 24 * HOUR)
  const [, kind, id, part] = path.split('/')
  const key = Number(id)
  const found = (q.get('q') ?? '').toLowerCase()
  if (path === '/me')
    return { subject: 'u-1', name: 'Ana Ledesma', roles: ['supervisor', 'network'], administrations: ['queretaro', 'corregidora'], administration_names: { queretaro: 'Querétaro', corregidora: 'Corregidora' } }
  if (path === '/pipeline') return pipeline()
  if (path === '/gateways') return page(gateways(), q)
  if (path === '/meters') return page(meters.filter((m) => m.name.toLowerCase().includes(found)), q)
  if (path === '/alerts') return page(alerts.filter((a) => !q.get('state') || a.state === q.get('state')), q)
  if (kind === 'gateways' && part)
    return ofGateway(id!, part, { from, to: Math.min(to, now()), lost: id === GATEWAYS[3][0], dead }, q.get('kind'))
  if (path === '/dead-letters') {
    const wanted = (name: string, held: string | null): boolean => !q.get(name) || held === q.get(name)
    return page(dead.filter((d) => wanted('code', d.code) && wanted('gateway', d.gateway)), q)
  }
  if (kind === 'dead-letters') return { state: 'replayed' }
  if (kind === 'frames')
    return {
      ...framesOf(3)[0],
      hash: id,
      driver: 'kamstrup_water',
      decoder_version: 1,
      status: [],
      series: Array.from({ length: 24 }, (_, i) => ({
        meter_clock: iso(simStart - (i + 6) * HOUR).slice(0, 19),
        register_l: 123_456 - i * 9,
      })),
      error: null,
      raw: '2A442D2C998734761B168D2091D37CAC21576C78BC1EF3A0A5E4B0EA4E7D5CCB2A442D2C',
      fields: { total_m3: '123.456', target_m3: '120.000', flow_temperature_c: 21, status: 'OK' },
    }
  const meter = meters[key - 1]
  if (kind !== 'meters' || !meter) return undefined
  if (part === undefined) return meter
  if (part === 'frames') return page(framesOf(key), q)
  if (part === 'alerts') return page(alerts.filter((a) => a.meter_key === key), q)
  const step = q.get('resolution') === 'daily' ? 24 * HOUR : HOUR
  return page(consumption(key, from, Math.min(to, now()), step), q)
}

function token(): unknown {
  const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url')
  return { access_token: `${part({})}.${part({ sub: 'u-1' })}.x`, refresh_token: 'r', expires_in: 300 }
}

function serve(request: IncomingMessage, response: ServerResponse, next: () => void): void {
  const url = new URL(request.url ?? '/', 'http://fake')
  const json = (status: number, body: unknown): void => {
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
  }
  if (url.pathname === '/.well-known/openid-configuration') {
    json(200, { issuer: 'fake', authorization_endpoint: '/oidc/authorize', token_endpoint: '/oidc/token' })
  } else if (url.pathname === '/oidc/authorize') {
    const back = url.searchParams.get('redirect_uri')
    const state = url.searchParams.get('state')
    response.writeHead(302, { location: `${back}?code=c&state=${state}` }).end()
  } else if (url.pathname === '/oidc/token') json(200, token())
  else if (url.pathname.startsWith('/api/v1')) {
    const body = answer(url.pathname.slice(7), url.searchParams)
    const status = body === undefined ? 404 : 200
    const late = Number(process.env.FAKE_DELAY_MS ?? 80)
    setTimeout(() => json(status, body ?? { title: 'No existe', code: 'not-found', status }), late)
  } else next()
}

export function fakeApi(): Plugin {
  return {
    name: 'aquacis-fake-api',
    configureServer: (server) => void server.middlewares.use(serve),
  }
}

/** What the pretend server says of one gateway: its hours, losses, reports and rejects. */
import type { DeadLetter, GatewayHours, LossItem, Page, RejectCount, ReportItem } from '../src/api/types'

const HOUR = 3_600_000
const EXPECTED = 110
const iso = (ms: number): string => new Date(ms).toISOString()

interface Past {
  from: number
  to: number
  /** It was without its cloud for a while, and lost rows. */
  lost: boolean
  dead: readonly DeadLetter[]
}

function hours({ from, to, lost }: Past): GatewayHours {
  const items = []
  for (let at = Math.floor(from / HOUR) * HOUR; at + HOUR <= to; at += HOUR) {
    const ago = Math.round((to - at) / HOUR)
    const heard = (at / HOUR) % 11 === 0 ? 58 : EXPECTED - ((at / HOUR) % 7)
    items.push({ from: iso(at), expected: EXPECTED, received: lost && ago < 8 ? 0 : heard })
  }
  return { items, next: null, losses: lost ? losses(to) : [] }
}

function losses(to: number): LossItem[] {
  const common = { from: iso(to - 9 * HOUR), to: iso(to - 7 * HOUR), reported_at: iso(to - HOUR) }
  const declared = { ...common, reason: 'declared', certain: true }
  return [
    { ...declared, first_seq: 182_001, last_seq: 188_240, kind: 'sub_hourly', rows: 3_120 },
    { ...common, first_seq: 4_410, last_seq: null, reason: 'new_stream', kind: 'mixed', rows: null, certain: false, to: null },
  ]
}

function reports({ to }: Past): ReportItem[] {
  const said: [string, ReportItem['says']][] = [
    ['source_up', { source: 'wmbus', reason: '' }],
    ['source_down', { source: 'wmbus', reason: '/dev/ttyUSB0: the device is gone' }],
    ['clock_step', { from_at: (to - 26 * HOUR) * 1_000, to_at: (to - 25 * HOUR) * 1_000 }],
    ['shed', { count: 3_204, from_at: (to - 9 * HOUR) * 1_000, to_at: (to - 7 * HOUR) * 1_000, sub_hourly: 3_120, undecodable: 84 }],
    ['quarantined', { reason: 'page 12: checksum differs', rows: 181_020, lost: 32 }],
    ['suppressed', { code: 'crc', count: 412, from_at: (to - 2 * HOUR) * 1_000, to_at: (to - HOUR) * 1_000 }],
  ]
  return said.map(([kind, says], i) => ({
    id: 90 - i,
    kind,
    heard_at: iso(to - (i + 1) * 2 * HOUR),
    received_at: iso(to - i * HOUR),
    says,
  }))
}

function rejects(gateway: string, dead: readonly DeadLetter[]): RejectCount[] {
  return dead
    .filter((letter) => letter.gateway === gateway)
    .map(({ code, state, received_at }) => ({
      code,
      open: state === 'open' ? 1 : 0,
      replayed: state === 'replayed' ? 1 : 0,
      dismissed: 0,
      last_received_at: received_at,
    }))
}

export function ofGateway(
  gateway: string,
  part: string,
  past: Past,
  kind: string | null,
): Page<unknown> | undefined {
  if (part === 'hours') return hours(past)
  if (part === 'dead-letters') return { items: rejects(gateway, past.dead), next: null }
  if (part !== 'reports') return undefined
  return { items: reports(past).filter((one) => !kind || one.kind === kind), next: null }
}

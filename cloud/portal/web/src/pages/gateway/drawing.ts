/** Paints a gateway's hours on uPlot's canvas: bars of what arrived under the line of what was expected. */
import type uPlot from 'uplot'
import type { GatewayHour } from '@/api/types'
import { HOUR_S } from '@/format'
import { shareOf, WHOLE } from '@/pages/gateways'
import type { Ink } from '@/pages/plot'

/** A loss, from the oldest to the newest instant its rows may have been heard. Seconds. */
export interface Lost {
  from: number
  to: number
}

export interface Picture {
  hours: readonly GatewayHour[]
  lost: readonly Lost[]
  /** The hour under the pointer. */
  pointed: number | null
}

const startOf = (hour: GatewayHour): number => Date.parse(hour.from) / 1_000

/** Under the grid lines: when rows were lost, and the hours that brought nothing. */
export function drawGround(plot: uPlot, picture: Picture, ink: Ink): void {
  const { ctx: pen, bbox } = plot
  const x = (s: number): number =>
    Math.min(bbox.left + bbox.width, Math.max(bbox.left, plot.valToPos(s, 'x', true)))
  pen.save()
  for (const { from, to } of picture.lost) {
    const left = x(from)
    const width = Math.max(x(to) - left, 3 * devicePixelRatio)
    if (to < (plot.scales.x?.min ?? 0) || from > (plot.scales.x?.max ?? 0)) continue
    pen.fillStyle = ink('cantera-soft')
    pen.fillRect(left, bbox.top, width, bbox.height)
    pen.fillStyle = ink('cantera')
    pen.fillRect(left, bbox.top, width, 3 * devicePixelRatio)
  }
  const tall = 5 * devicePixelRatio
  pen.fillStyle = ink('down')
  for (const hour of picture.hours) {
    if (hour.received > 0 || !hour.expected) continue
    const [left, right] = [x(startOf(hour)), x(startOf(hour) + HOUR_S)]
    pen.fillRect(left, bbox.top + bbox.height - tall, right - left, tall)
  }
  pen.restore()
}

/** Over the grid lines: a bar an hour, a weaker colour where much is missing, and what was expected. */
export function drawHours(plot: uPlot, picture: Picture, ink: Ink): void {
  const { ctx: pen } = plot
  const ground = plot.valToPos(0, 'y', true)
  const [bar, strong, part, edge] = [ink('bar'), ink('agua'), ink('bar-late'), ink('ink')]
  pen.save()
  picture.hours.forEach((hour, i) => {
    const from = startOf(hour)
    const left = plot.valToPos(from, 'x', true)
    const right = plot.valToPos(from + HOUR_S, 'x', true)
    const space = Math.min(3 * devicePixelRatio, (right - left) * 0.18)
    const height = ground - plot.valToPos(hour.received, 'y', true)
    const whole = !hour.expected || shareOf(hour) >= WHOLE
    pen.fillStyle = i === picture.pointed ? strong : whole ? bar : part
    pen.fillRect(left + space / 2, ground - height, right - left - space, height)
    if (!hour.expected) return
    pen.fillStyle = edge
    const wanted = plot.valToPos(hour.expected, 'y', true)
    pen.fillRect(left, wanted - devicePixelRatio, right - left, 2 * devicePixelRatio)
  })
  pen.restore()
}

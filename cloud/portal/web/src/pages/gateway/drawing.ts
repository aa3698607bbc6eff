/** Paints a gateway's hours on uPlot's canvas: bars of what arrived under the line of what was expected. */
import type { GatewayHour } from '@/api/types'
import { HOUR_S } from '@/format'
import { shareOf, WHOLE } from '@/pages/gateways'
import type { Span } from '@/pages/periods'
import { across, barAt, drawStretches, type Brush, type Drawn } from '@/pages/plot'

export interface Picture {
  hours: readonly GatewayHour[]
  /** Losses, each from the oldest to the newest instant its rows may have been heard. */
  lost: readonly Span[]
}

const startOf = (hour: GatewayHour): number => Date.parse(hour.from) / 1_000

export function drawn({ hours, lost }: Picture): Drawn {
  const most = hours.map((hour) => Math.max(hour.received, hour.expected ?? 0))
  return {
    starts: hours.map(startOf),
    figures: hours.map((hour) => hour.received),
    top: Math.max(10, ...most) * 1.12,
    ground: groundOf({ hours, lost }),
    bars: barsOf(hours),
  }
}

const LEAST_PX = 3

/** Under the grid lines: when rows were lost, and the hours that brought nothing. */
const groundOf =
  ({ hours, lost }: Picture): Brush =>
  (plot, ink) => {
    const { ctx: pen, bbox } = plot
    pen.save()
    drawStretches(plot, lost, ink, LEAST_PX)
    const tall = 5 * devicePixelRatio
    pen.fillStyle = ink('down')
    for (const hour of hours) {
      if (hour.received > 0 || !hour.expected) continue
      const left = across(plot, startOf(hour))
      const right = across(plot, startOf(hour) + HOUR_S)
      pen.fillRect(left, bbox.top + bbox.height - tall, right - left, tall)
    }
    pen.restore()
  }

/** Over the grid lines: a bar an hour, a weaker colour where much is missing, and what was expected. */
const barsOf =
  (hours: Picture['hours']): Brush =>
  (plot, ink, pointed) => {
    const { ctx: pen } = plot
    const ground = plot.valToPos(0, 'y', true)
    const [bar, strong, part, edge] = [ink('bar'), ink('agua'), ink('bar-late'), ink('ink')]
    pen.save()
    hours.forEach((hour, i) => {
      const { left, right, inner, width } = barAt(plot, startOf(hour), HOUR_S)
      const height = ground - plot.valToPos(hour.received, 'y', true)
      const whole = !hour.expected || shareOf(hour) >= WHOLE
      pen.fillStyle = i === pointed ? strong : whole ? bar : part
      pen.fillRect(inner, ground - height, width, height)
      if (!hour.expected) return
      pen.fillStyle = edge
      const wanted = plot.valToPos(hour.expected, 'y', true)
      pen.fillRect(left, wanted - devicePixelRatio, right - left, 2 * devicePixelRatio)
    })
    pen.restore()
  }

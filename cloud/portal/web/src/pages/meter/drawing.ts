/** Paints a meter's bars, gaps and leaks on uPlot's canvas. */
import type { Consumption } from '@/api/types'
import type { Span } from '@/pages/periods'
import { across, barAt, drawStretches, type Brush, type Drawn } from '@/pages/plot'

export interface Picture {
  grid: readonly Consumption[]
  episodes: readonly Span[]
  stepS: number
}

const startOf = (item: Consumption): number => Date.parse(item.from) / 1_000

export function drawn({ grid, episodes, stepS }: Picture): Drawn {
  return {
    starts: grid.map(startOf),
    figures: grid.map((item) => item.litres),
    top: Math.max(10, ...grid.map((item) => (item.litres ?? 0) * 1.12)),
    ground: groundOf({ grid, episodes, stepS }),
    bars: barsOf({ grid, stepS }),
  }
}

function hatch(context: CanvasRenderingContext2D, colour: string, ratio: number): CanvasPattern {
  const size = Math.round(8 * ratio)
  const tile = document.createElement('canvas')
  tile.width = tile.height = size
  const pen = tile.getContext('2d')!
  pen.strokeStyle = colour
  pen.lineWidth = Math.max(1, ratio)
  pen.beginPath()
  for (const shift of [-size, 0, size]) {
    pen.moveTo(shift, size)
    pen.lineTo(shift + size, 0)
  }
  pen.stroke()
  return context.createPattern(tile, 'repeat')!
}

/** Under the grid lines: the leak's ground, and where nothing was heard. */
const groundOf =
  ({ grid, episodes, stepS }: Picture): Brush =>
  (plot, ink) => {
    const { ctx: pen, bbox } = plot
    pen.save()
    drawStretches(plot, episodes, ink)
    pen.fillStyle = hatch(pen, ink('hatch'), devicePixelRatio)
    for (const item of grid) {
      if (item.litres !== null) continue
      const [left, right] = [across(plot, startOf(item)), across(plot, startOf(item) + stepS)]
      pen.fillRect(left, bbox.top, right - left, bbox.height)
    }
    pen.restore()
  }

/** Over the grid lines: a bar a period, late data under a cap, the pointed one stronger. */
const barsOf =
  ({ grid, stepS }: Omit<Picture, 'episodes'>): Brush =>
  (plot, ink, pointed) => {
    const { ctx: pen } = plot
    const ground = plot.valToPos(0, 'y', true)
    const [bar, strong, late] = [ink('bar'), ink('agua'), ink('bar-late')]
    const marked = marksLate(grid)
    pen.save()
    grid.forEach((item, i) => {
      if (item.litres === null) return
      const { left, right, inner, width } = barAt(plot, startOf(item), stepS)
      pen.fillStyle = i === pointed ? strong : bar
      // A heard zero is drawn too, as a line on the ground: it is not a gap.
      const height = Math.max(ground - plot.valToPos(item.litres, 'y', true), devicePixelRatio)
      pen.fillRect(inner, ground - height, width, height)
      if (!item.late) return
      pen.fillStyle = late
      const cap = CAP_PX * devicePixelRatio
      pen.fillRect(inner, ground - height - cap * 1.4, width, cap)
      if (marked) diamond(pen, (left + right) / 2, ground - height - cap * 4)
    })
    pen.restore()
  }

const CAP_PX = 3

/** A mark on each late bar helps while they are few; on all of them it is noise. */
function marksLate(grid: readonly Consumption[]): boolean {
  return grid.filter((item) => item.late).length * 5 < grid.length
}

function diamond(pen: CanvasRenderingContext2D, x: number, y: number): void {
  const half = 3.5 * devicePixelRatio
  pen.beginPath()
  pen.moveTo(x, y - half)
  pen.lineTo(x + half, y)
  pen.lineTo(x, y + half)
  pen.lineTo(x - half, y)
  pen.fill()
}

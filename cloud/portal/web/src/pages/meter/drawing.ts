/** Paints a meter's bars, gaps and leaks on uPlot's canvas. */
import type uPlot from 'uplot'
import type { Consumption } from '@/api/types'
import type { Ink } from '@/pages/plot'

export interface Episode {
  from: number
  to: number
}

export interface Picture {
  grid: readonly Consumption[]
  episodes: readonly Episode[]
  stepS: number
  /** The period under the pointer. */
  pointed: number | null
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
export function drawGround(plot: uPlot, picture: Picture, ink: Ink): void {
  const { ctx: pen, bbox } = plot
  const x = (s: number): number =>
    Math.min(bbox.left + bbox.width, Math.max(bbox.left, plot.valToPos(s, 'x', true)))
  pen.save()
  for (const episode of picture.episodes) {
    const [left, right] = [x(episode.from), x(episode.to)]
    pen.fillStyle = ink('cantera-soft')
    pen.fillRect(left, bbox.top, right - left, bbox.height)
    pen.fillStyle = ink('cantera')
    pen.fillRect(left, bbox.top, right - left, 3 * devicePixelRatio)
  }
  pen.fillStyle = hatch(pen, ink('hatch'), devicePixelRatio)
  for (const item of picture.grid) {
    if (item.litres !== null) continue
    const from = Date.parse(item.from) / 1_000
    const [left, right] = [x(from), x(from + picture.stepS)]
    pen.fillRect(left, bbox.top, right - left, bbox.height)
  }
  pen.restore()
}

/** Over the grid lines: a bar a period, late data under a cap, the pointed one stronger. */
export function drawBars(plot: uPlot, picture: Picture, ink: Ink): void {
  const { ctx: pen } = plot
  const ground = plot.valToPos(0, 'y', true)
  const [bar, strong, late] = [ink('bar'), ink('agua'), ink('bar-late')]
  const marked = marksLate(picture.grid)
  pen.save()
  picture.grid.forEach((item, i) => {
    if (item.litres === null) return
    const from = Date.parse(item.from) / 1_000
    const left = plot.valToPos(from, 'x', true)
    const right = plot.valToPos(from + picture.stepS, 'x', true)
    const space = Math.min(3 * devicePixelRatio, (right - left) * 0.18)
    const width = right - left - space
    pen.fillStyle = i === picture.pointed ? strong : bar
    // A heard zero is drawn too, as a line on the ground: it is not a gap.
    const height = Math.max(ground - plot.valToPos(item.litres, 'y', true), devicePixelRatio)
    pen.fillRect(left + space / 2, ground - height, width, height)
    if (!item.late) return
    pen.fillStyle = late
    const cap = CAP_PX * devicePixelRatio
    pen.fillRect(left + space / 2, ground - height - cap * 1.4, width, cap)
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

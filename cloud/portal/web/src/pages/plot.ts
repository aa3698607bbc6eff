/** What every chart of the pages shares: its axes, and a canvas that follows size, colours and numbers. */
import uPlot from 'uplot'
import 'uplot/dist/uPlot.min.css'
import { onBeforeUnmount, onMounted, watch, type ShallowRef } from 'vue'
import { DAY_S, HOUR_S, TIME_ZONE, type Formats } from '@/format'
import { onColours } from '@/theme'
import type { Span } from './periods'

export type Ink = (name: string) => string
/** Paints on a chart; `pointed` is the place of the period under the pointer. */
export type Brush = (plot: uPlot, ink: Ink, pointed: number | null) => void

/** A chart of periods: their starts and figures, and what paints them under and over the grid lines. */
export interface Drawn {
  starts: number[]
  figures: (number | null)[]
  /** Where the axis of the figures ends. */
  top: number
  ground: Brush
  bars: Brush
}

/** Reads the design tokens as they stand now: light or dark. */
export function inkOf(element: HTMLElement): Ink {
  const style = getComputedStyle(element)
  return (name) => style.getPropertyValue(`--${name}`).trim()
}

export function timeAxis(ink: Ink, f: Formats): uPlot.Axis {
  return {
    stroke: ink('muted'),
    font: "12px 'Public Sans', sans-serif",
    grid: { show: false },
    ticks: { stroke: ink('line'), width: 1, size: 6 },
    space: 64,
    size: 34,
    incrs: [3, 6, 12, 24, 48, 120, 240].map((hours) => hours * HOUR_S),
    values: (_plot, splits, _axis, _space, increment) =>
      splits.map((s) => {
        const time = f.time(s * 1_000)
        return increment >= DAY_S || time === '00:00' ? f.shortDay(s * 1_000) : time
      }),
  }
}

export function countAxis(ink: Ink, f: Formats): uPlot.Axis {
  return {
    stroke: ink('muted'),
    font: "12px 'Public Sans', sans-serif",
    grid: { stroke: ink('line'), width: 1 },
    ticks: { show: false },
    size: 46,
    values: (_plot, splits) => splits.map((n) => f.whole(n)),
    incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000],
  }
}

/** What a chart of periods has beside its own drawing. */
export function frameOf(element: HTMLElement): Omit<uPlot.Options, 'series'> {
  return {
    width: element.clientWidth,
    height: element.clientHeight,
    padding: [14, 8, 0, 0],
    legend: { show: false },
    cursor: { x: false, y: false, drag: { x: false, y: false }, points: { show: false } },
    tzDate: (s) => uPlot.tzDate(new Date(s * 1_000), TIME_ZONE),
  }
}

/** Which period holds the pointer: uPlot points at the nearest start, a bar is a whole period. */
export function periodAt(u: uPlot, from: number, stepS: number, periods: number): number | null {
  const left = u.cursor.left ?? -1
  if (left < 0) return null
  const i = Math.floor((u.posToVal(left, 'x') - from) / stepS)
  return i >= 0 && i < periods ? i : null
}

/** Where an instant stands on the canvas, kept within the chart. */
export function across(plot: uPlot, s: number): number {
  const { left, width } = plot.bbox
  return Math.min(left + width, Math.max(left, plot.valToPos(s, 'x', true)))
}

/** Where the bar of a period stands: the period's own room, and the bar's within it. */
export function barAt(
  plot: uPlot,
  from: number,
  stepS: number,
): Record<'left' | 'right' | 'inner' | 'width', number> {
  const left = plot.valToPos(from, 'x', true)
  const right = plot.valToPos(from + stepS, 'x', true)
  const space = Math.min(3 * devicePixelRatio, (right - left) * 0.18)
  return { left, right, inner: left + space / 2, width: right - left - space }
}

/** The ground of a leak or a loss, under a line of its own; `leastPx` keeps a short one in sight. */
export function drawStretches(plot: uPlot, stretches: readonly Span[], ink: Ink, leastPx = 0): void {
  const { ctx: pen, bbox, scales } = plot
  for (const { from, to } of stretches) {
    if (to < (scales.x?.min ?? 0) || from > (scales.x?.max ?? 0)) continue
    const left = across(plot, from)
    const width = Math.max(across(plot, to) - left, leastPx * devicePixelRatio)
    pen.fillStyle = ink('cantera-soft')
    pen.fillRect(left, bbox.top, width, bbox.height)
    pen.fillStyle = ink('cantera')
    pen.fillRect(left, bbox.top, width, 3 * devicePixelRatio)
  }
}

/** Draws a chart into `host`, and again when what it shows (`when`), the colours or the size change. */
export function usePlot(
  host: Readonly<ShallowRef<HTMLElement | null>>,
  describe: (element: HTMLElement, ink: Ink) => [uPlot.Options, uPlot.AlignedData],
  when: () => unknown,
): void {
  let plot: uPlot | null = null
  let watchSize: ResizeObserver | null = null
  let stopColours = (): void => undefined

  function build(): void {
    const element = host.value
    if (!element) return
    plot?.destroy()
    plot = new uPlot(...describe(element, inkOf(element)), element)
  }

  onMounted(() => {
    build()
    stopColours = onColours(build)
    watchSize = new ResizeObserver(() => {
      const element = host.value
      if (element && plot && element.clientWidth > 0) {
        plot.setSize({ width: element.clientWidth, height: element.clientHeight })
      }
    })
    watchSize.observe(host.value!)
  })
  onBeforeUnmount(() => {
    watchSize?.disconnect()
    stopColours()
    plot?.destroy()
  })
  watch(when, build)
}

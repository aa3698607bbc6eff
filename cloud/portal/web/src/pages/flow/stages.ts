/** What the picture of the flow says about each stage, decided from the numbers alone. */
import type { Pipeline, Stage } from '@/api/types'

export type StageState = 'ok' | 'late' | 'down'

/** Wall seconds a stage may lag before it is called late; the server calls it stopped at 60. */
const LATE_S = 20

/** `lag_s` counts simulated seconds, which pass `speed` times as fast as the reader's. */
export function stateOf(stage: Stage, speed: number): StageState {
  if (!stage.ok) return 'down'
  return (stage.lag_s ?? 0) > LATE_S * Math.max(1, speed) ? 'late' : 'ok'
}

export function worstOf(pipeline: Pipeline): { state: StageState; stages: Stage[] } {
  for (const state of ['down', 'late'] as const) {
    const stages = pipeline.stages.filter((stage) => stateOf(stage, pipeline.speed) === state)
    if (stages.length > 0) return { state, stages }
  }
  return { state: 'ok', stages: [] }
}

/** Distance between drops, in drawing units: ten times the rate halves it; null when dry. */
export function dropGap(ratePerS: number): number | null {
  if (ratePerS <= 0) return null
  return Math.round(Math.max(9, 44 / 2 ** Math.max(0, Math.log10(ratePerS) + 0.5)))
}

/** Light, dark, or as the system says. public/theme.js applies a kept choice before the first paint. */
import { ref, watch } from 'vue'

export const THEMES = ['auto', 'light', 'dark'] as const
export type Theme = (typeof THEMES)[number]

const KEPT = 'aquacis.theme'
const set = document.documentElement.dataset.theme
export const theme = ref<Theme>(set === 'light' || set === 'dark' ? set : 'auto')

watch(theme, (now) => {
  if (now === 'auto') delete document.documentElement.dataset.theme
  else document.documentElement.dataset.theme = now
  try {
    if (now === 'auto') localStorage.removeItem(KEPT)
    else localStorage.setItem(KEPT, now)
  } catch {
    // storage may be forbidden: the choice then holds until the page is left
  }
})

/** Calls `redraw` when colours change: a canvas does not follow style sheets by itself. */
export function onColours(redraw: () => void): () => void {
  const system = window.matchMedia('(prefers-color-scheme: dark)')
  system.addEventListener('change', redraw)
  const stop = watch(theme, redraw, { flush: 'post' })
  return () => {
    system.removeEventListener('change', redraw)
    stop()
  }
}

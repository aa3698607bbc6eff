/** Loads what a page shows, newest question wins, and says whether it is loading or was refused. */
import { onScopeDispose, ref, shallowRef, watch, type Ref, type ShallowRef } from 'vue'
import { ApiProblem, get, type Query } from '@/api/client'
import type { Page } from '@/api/types'
import { SignInFailed } from '@/session/oidc'

export interface Resource<T> {
  value: ShallowRef<T | null>
  problem: ShallowRef<ApiProblem | null>
  loading: Ref<boolean>
  load: () => Promise<void>
}

export function asProblem(reason: unknown): ApiProblem {
  if (reason instanceof ApiProblem) return reason
  if (reason instanceof SignInFailed) return new ApiProblem(0, 'offline', '')
  return new ApiProblem(0, 'unexpected', String(reason))
}

const aborted = (reason: unknown): boolean =>
  reason instanceof DOMException && reason.name === 'AbortError'

/** Runs `ask` now and each time what it reads (`when`) changes. */
export function useResource<T>(
  ask: (signal: AbortSignal) => Promise<T>,
  when?: () => unknown,
): Resource<T> {
  const value = shallowRef<T | null>(null)
  const problem = shallowRef<ApiProblem | null>(null)
  const loading = ref(true)
  let latest: AbortController | null = null

  async function load(): Promise<void> {
    latest?.abort()
    const mine = new AbortController()
    latest = mine
    loading.value = true
    try {
      const answer = await ask(mine.signal)
      if (mine !== latest) return
      value.value = answer
      problem.value = null
    } catch (reason) {
      if (mine !== latest || aborted(reason)) return
      problem.value = asProblem(reason)
    }
    loading.value = false
  }

  if (when) watch(when, load, { immediate: true })
  else void load()
  onScopeDispose(() => latest?.abort())
  return { value, problem, loading, load }
}

export interface Paged<T> extends Resource<T[]> {
  next: ShallowRef<string | null>
  /** Why the next page did not come; `problem` is of the list. */
  moreProblem: ShallowRef<ApiProblem | null>
  more: () => Promise<void>
}

/** A list read page by page: `more` appends the next page. */
export function usePaged<T>(path: () => string, query: () => Query, limit = 50): Paged<T> {
  const next = shallowRef<string | null>(null)
  const moreProblem = shallowRef<ApiProblem | null>(null)
  const question = (): string => JSON.stringify([path(), query()])
  const resource = useResource<T[]>(async (signal) => {
    moreProblem.value = null
    const page = await get<Page<T>>(path(), { ...query(), limit }, signal)
    next.value = page.next
    return page.items
  }, question)

  async function more(): Promise<void> {
    if (next.value === null || resource.loading.value) return
    const asked = question()
    resource.loading.value = true
    try {
      const page = await get<Page<T>>(path(), { ...query(), limit, cursor: next.value })
      if (asked !== question()) return
      next.value = page.next
      resource.value.value = [...(resource.value.value ?? []), ...page.items]
      moreProblem.value = null
    } catch (reason) {
      if (asked !== question()) return
      moreProblem.value = asProblem(reason)
    }
    resource.loading.value = false
  }

  return { ...resource, next, moreProblem, more }
}

const POLL_MS = 2_000
/** After a refusal the page asks less often, up to this. */
const POLL_MS_MAX = 30_000

/** Asks again and again, each `everyMs`, while the page is seen and `running`. */
export function usePolling<T>(
  ask: (signal: AbortSignal) => Promise<T>,
  running: Ref<boolean>,
  everyMs = POLL_MS,
): Resource<T> {
  const resource = useResource(ask)
  let timer = 0
  let wait = everyMs

  function schedule(): void {
    window.clearTimeout(timer)
    if (running.value && !document.hidden) timer = window.setTimeout(tick, wait)
  }
  async function tick(): Promise<void> {
    window.clearTimeout(timer)
    await resource.load()
    wait = resource.problem.value ? Math.min(wait * 2, POLL_MS_MAX) : everyMs
    schedule()
  }
  function wake(): void {
    if (!document.hidden && running.value) void tick()
    else window.clearTimeout(timer)
  }

  schedule()
  watch(running, wake)
  document.addEventListener('visibilitychange', wake)
  window.addEventListener('online', wake)
  onScopeDispose(() => {
    window.clearTimeout(timer)
    document.removeEventListener('visibilitychange', wake)
    window.removeEventListener('online', wake)
  })
  return resource
}

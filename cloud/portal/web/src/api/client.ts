/** Asks the server as who is signed in, and turns what it refuses into an `ApiProblem`. */
import { accessToken, forgetAccess } from '@/session/session'

/** An RFC 9457 problem, or no answer at all (`code` "offline"). */
export class ApiProblem extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    readonly title: string,
    readonly detail: string | null = null,
  ) {
    super(title)
  }
}

export type Query = Record<string, string | number | undefined | null>

function address(path: string, query: Query): string {
  const parameters = new URLSearchParams()
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== '') parameters.set(name, String(value))
  }
  const text = parameters.toString()
  return `/api/v1${path}${text ? `?${text}` : ''}`
}

async function problemOf(response: Response): Promise<ApiProblem> {
  const body = (await response.json().catch(() => ({}))) as Record<string, unknown>
  const text = (name: string): string | null =>
    typeof body[name] === 'string' ? (body[name] as string) : null
  return new ApiProblem(
    response.status,
    text('code') ?? `http-${response.status}`,
    text('title') ?? '',
    text('detail'),
  )
}

async function send(path: string, query: Query, init: RequestInit): Promise<Response> {
  for (let attempt = 1; ; attempt += 1) {
    const headers = new Headers(init.headers)
    headers.set('Authorization', `Bearer ${await accessToken()}`)
    let response: Response
    try {
      response = await fetch(address(path, query), { ...init, headers })
    } catch (reason) {
      if (reason instanceof DOMException && reason.name === 'AbortError') throw reason
      throw new ApiProblem(0, 'offline', '')
    }
    if (response.ok) return response
    // Once: the token may have been withdrawn before its time, and a refresh gives another.
    if (response.status === 401 && attempt === 1) forgetAccess()
    else throw await problemOf(response)
  }
}

export async function get<T>(path: string, query: Query = {}, signal?: AbortSignal): Promise<T> {
  const response = await send(path, query, signal ? { signal } : {})
  return (await response.json()) as T
}

export async function post<T>(path: string): Promise<T | null> {
  const response = await send(path, {}, { method: 'POST' })
  return response.status === 204 ? null : ((await response.json()) as T)
}

/** Saves an answer as a CSV file: a link could not carry the access token. */
export async function downloadCsv(path: string, query: Query, name: string): Promise<void> {
  const response = await send(path, { ...query, format: 'csv' }, {})
  const link = document.createElement('a')
  link.href = URL.createObjectURL(await response.blob())
  link.download = name
  link.click()
  URL.revokeObjectURL(link.href)
}

/** Who is signed in. Tokens live in this module's memory alone: no script of a later page, and no
 *  copy of the disk, finds them. A reload asks the issuer again, which knows its own cookie. */
import { readonly, shallowRef } from 'vue'
import type { Me } from '@/api/types'
import { askForTokens, discover, leaveForIssuer, redeem, SignInFailed, type Tokens } from './oidc'

/** A token this close to its end is renewed first: the request must arrive before it ends. */
const MARGIN_MS = 30_000

interface Session {
  access: string
  /** On this browser's monotonic clock. */
  endsAtMs: number
  refresh: string | null
  idToken: string | null
}

let session: Session | null = null
let renewing: Promise<void> | null = null
const who = shallowRef<Me | null>(null)

export const me = readonly(who)

function keep(tokens: Tokens): void {
  session = {
    access: tokens.access_token,
    endsAtMs: performance.now() + tokens.expires_in * 1_000,
    refresh: tokens.refresh_token ?? session?.refresh ?? null,
    idToken: tokens.id_token ?? session?.idToken ?? null,
  }
}

async function renew(): Promise<void> {
  const refresh = session?.refresh
  if (!refresh) throw new SignInFailed('expired')
  keep(await askForTokens({ grant_type: 'refresh_token', refresh_token: refresh }))
}

export function signedIn(): boolean {
  return session !== null
}

export async function signIn(returnTo: string): Promise<void> {
  await leaveForIssuer(returnTo)
  // The browser is leaving: whoever awaits this must not go on and show half a page.
  await new Promise<never>(() => {})
}

/** Finishes a sign-in at /entrar and says where it had started. */
export async function finishSignIn(query: URLSearchParams): Promise<string> {
  const [tokens, returnTo] = await redeem(query)
  keep(tokens)
  return returnTo
}

/** The token for the next request, renewed when it is about to end. */
export async function accessToken(): Promise<string> {
  if (session && performance.now() < session.endsAtMs - MARGIN_MS) return session.access
  renewing ??= renew().finally(() => {
    renewing = null
  })
  try {
    await renewing
  } catch (reason) {
    if (!(reason instanceof SignInFailed) || reason.code === 'issuer-unavailable') throw reason
    await signIn(location.pathname + location.search)
  }
  return session!.access
}

export function forgetAccess(): void {
  if (session) session.endsAtMs = 0
}

/** Roles as the server's routes ask for them: a page that would be refused is not offered. */
export const LOOKS = ['field', 'supervisor', 'network', 'admin']
export const OVERSEES = ['supervisor', 'network', 'admin']
export const OPERATES = ['network', 'admin']

/** Whether who signed in has one of `roles`. Unknown until /me has answered: then the server says. */
export function may(roles: readonly string[]): boolean {
  return who.value === null || who.value.roles.some((role) => roles.includes(role))
}

/** An administration as people call it; its code where nobody told its name. */
export function administrationName(code: string): string {
  return who.value?.administration_names[code] ?? code
}

export function setMe(value: Me): void {
  who.value = value
}

export async function signOut(): Promise<void> {
  const idToken = session?.idToken ?? null
  session = null
  who.value = null
  const { end_session_endpoint: end } = await discover()
  const back = `${location.origin}/entrar`
  if (!end) return location.assign(`${back}?salida=1`)
  const query = new URLSearchParams({ post_logout_redirect_uri: back, client_id: 'aquacis-web' })
  if (idToken) query.set('id_token_hint', idToken)
  location.assign(`${end}?${query}`)
}

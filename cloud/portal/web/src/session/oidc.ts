/** OpenID Connect for a public client: authorization code with PKCE (RFC 7636), nothing else. */

export const CLIENT = 'aquacis-web'
const REDIRECT_PATH = '/entrar'
const KEPT = 'aquacis.signing-in'

export interface Tokens {
  access_token: string
  refresh_token?: string
  id_token?: string
  expires_in: number
}

interface Issuer {
  issuer: string
  authorization_endpoint: string
  token_endpoint: string
  end_session_endpoint?: string
}

interface SigningIn {
  state: string
  nonce: string
  verifier: string
  returnTo: string
}

/** The issuer, or what came back from it, cannot be used; `code` names why. */
export class SignInFailed extends Error {
  constructor(readonly code: string) {
    super(code)
  }
}

let discovered: Promise<Issuer> | null = null

export function discover(): Promise<Issuer> {
  discovered ??= fetch('/.well-known/openid-configuration')
    .then((response) => {
      if (!response.ok) throw new SignInFailed('issuer-unavailable')
      return response.json() as Promise<Issuer>
    })
    .catch((reason: unknown) => {
      discovered = null
      throw reason instanceof SignInFailed ? reason : new SignInFailed('issuer-unavailable')
    })
  return discovered
}

function base64url(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes))
    .replaceAll('+', '-')
    .replaceAll('/', '_')
    .replaceAll('=', '')
}

const random = (): string => base64url(crypto.getRandomValues(new Uint8Array(32)))
const redirectUri = (): string => `${location.origin}${REDIRECT_PATH}`

/** Leaves this page for the issuer's; it comes back to /entrar. */
export async function leaveForIssuer(returnTo: string): Promise<void> {
  const issuer = await discover()
  // Browsers give SHA-256 to https and localhost only.
  if (!globalThis.crypto?.subtle) throw new SignInFailed('insecure-origin')
  const signingIn: SigningIn = { state: random(), nonce: random(), verifier: random(), returnTo }
  const hash = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(signingIn.verifier))
  sessionStorage.setItem(KEPT, JSON.stringify(signingIn))
  const query = new URLSearchParams({
    response_type: 'code',
    client_id: CLIENT,
    redirect_uri: redirectUri(),
    scope: 'openid profile offline_access',
    state: signingIn.state,
    nonce: signingIn.nonce,
    code_challenge: base64url(new Uint8Array(hash)),
    code_challenge_method: 'S256',
    ui_locales: document.documentElement.lang,
  })
  location.assign(`${issuer.authorization_endpoint}?${query}`)
}

function claimsOf(token: string): Record<string, unknown> {
  const middle = (token.split('.')[1] ?? '').replaceAll('-', '+').replaceAll('_', '/')
  return JSON.parse(atob(middle)) as Record<string, unknown>
}

/** Redeems the code in the address of this page. Raises SignInFailed. */
export async function redeem(query: URLSearchParams): Promise<[Tokens, string]> {
  const kept = sessionStorage.getItem(KEPT)
  sessionStorage.removeItem(KEPT)
  const refused = query.get('error')
  if (refused) throw new SignInFailed(refused)
  if (!kept) throw new SignInFailed('not-asked')
  const signingIn = JSON.parse(kept) as SigningIn
  const issuer = await discover()
  const named = query.get('iss') // RFC 9207
  if (query.get('state') !== signingIn.state || (named && named !== issuer.issuer)) {
    throw new SignInFailed('state-differs')
  }
  const tokens = await askForTokens({
    grant_type: 'authorization_code',
    code: query.get('code') ?? '',
    redirect_uri: redirectUri(),
    code_verifier: signingIn.verifier,
  })
  if (tokens.id_token && claimsOf(tokens.id_token).nonce !== signingIn.nonce) {
    throw new SignInFailed('nonce-differs')
  }
  return [tokens, signingIn.returnTo]
}

export async function askForTokens(grant: Record<string, string>): Promise<Tokens> {
  const issuer = await discover()
  let response: Response
  try {
    response = await fetch(issuer.token_endpoint, {
      method: 'POST',
      body: new URLSearchParams({ ...grant, client_id: CLIENT }),
    })
  } catch {
    throw new SignInFailed('issuer-unavailable')
  }
  if (!response.ok) {
    const body = (await response.json().catch(() => ({}))) as { error?: string }
    throw new SignInFailed(body.error ?? 'token-refused')
  }
  return (await response.json()) as Tokens
}

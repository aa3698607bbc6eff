"""The sign-in page: Spanish, accessible, without a line of script."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from html import escape
from urllib.parse import urlencode

COOKIE = "aquacis_login"
STYLE_PATH = "/oidc/estilo.css"

# The colours of cloud/portal/web/src/styles/tokens.css.
STYLE = """\
:root { color-scheme: light dark; line-height: 1.5;
  font-family: 'Public Sans', ui-sans-serif, system-ui, 'Segoe UI', Roboto, sans-serif;
  --ground: #f6f4f0; --surface: #fff; --ink: #12262c; --muted: #52646a; --edge: #868f91;
  --agua: #0d5c6e; --on-agua: #fff; --down: #a8231c; --down-soft: #fbe0dd; --focus: #0b63ce; }
@media (prefers-color-scheme: dark) { :root {
  --ground: #0e171b; --surface: #162228; --ink: #e9eff1; --muted: #9fb2b9; --edge: #6f848c;
  --agua: #6dcbdb; --on-agua: #0e171b; --down: #ffb4ab; --down-soft: #3b1d1b;
  --focus: #8fc2ff; } }
* { box-sizing: border-box; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 1rem;
  background: var(--ground); color: var(--ink); }
main { width: 100%; max-width: 24rem; padding: 2rem; background: var(--surface);
  border-radius: 14px; box-shadow: 0 1px 2px #12262c0f, 0 6px 20px #12262c0d; }
.brand { display: flex; align-items: center; gap: .75rem; margin: 0 0 1.5rem; font-weight: 700; }
h1 { margin: 0 0 1rem; font-size: 1.5rem; }
p { margin: 0 0 1rem; }
a { color: var(--agua); }
label { display: block; margin: 1rem 0 .4rem; font-weight: 600; }
input { width: 100%; min-height: 2.75rem; padding: .5rem .75rem; font: inherit; color: inherit;
  background: transparent; border: 1px solid var(--edge); border-radius: 9px; }
button { width: 100%; min-height: 2.75rem; margin-top: 1.5rem; font: inherit; font-weight: 600;
  color: var(--on-agua); background: var(--agua); border: 0; border-radius: 9px; cursor: pointer; }
:focus-visible { outline: 3px solid var(--focus); outline-offset: 2px; }
.fault { padding: .75rem 1rem; color: var(--down); background: var(--down-soft);
  border-radius: 9px; }
.fault code { font-size: .85em; white-space: nowrap; }
"""

FAULTS = {
    "sign_in_refused": "El usuario o la contraseña no son correctos.",
    "sign_in_locked": "Demasiados intentos fallidos. Espere {minutes} y vuelva a intentarlo.",
    "sign_in_busy": "Hay muchas personas entrando en este momento. Intente de nuevo.",
    "form_expired": "La página caducó. Escriba sus datos otra vez.",
    "client_unknown": "La aplicación que pide entrar no está registrada.",
    "redirect_unknown": "La aplicación pide volver a una dirección que no está registrada.",
    "origin_refused": "El formulario no fue enviado desde esta página.",
}

_SHELL = """\
<!doctype html>
<html lang="es-MX">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} · AquaCIS</title>
<link rel="icon" href="/icon.svg">
<link rel="stylesheet" href="{style}">
</head>
<body>
<main>
<p class="brand"><img src="/icon.svg" alt="" width="40" height="40">AquaCIS</p>
{body}
</main>
</body>
</html>
"""

_FORM = """\
<h1>Iniciar sesión</h1>
{fault}<form method="post" action="/oidc/authorize?{query}">
<input type="hidden" name="csrf" value="{csrf}">
<label for="name">Usuario</label>
<input id="name" name="name" value="{hint}" autocomplete="username" autocapitalize="none"
 spellcheck="false" maxlength="64" required{described}{focus_name}>
<label for="password">Contraseña</label>
<input id="password" name="password" type="password" autocomplete="current-password"
 maxlength="256" required{described}{focus_password}>
<button type="submit">Entrar</button>
</form>"""


def form(
    query: Mapping[str, str], *, csrf: str, hint: str = "", fault: str = "", minutes: int = 0
) -> str:
    """Return the sign-in page. `fault`: a code of `FAULTS`; `minutes`: until a lock opens."""
    held = escape(hint, quote=True)
    return _page(
        "Iniciar sesión",
        _FORM.format(
            fault=_fault(fault, minutes),
            query=escape(urlencode(query), quote=True),
            csrf=escape(csrf, quote=True),
            hint=held,
            described=' aria-describedby="fault" aria-invalid="true"' if fault else "",
            focus_name="" if hint else " autofocus",
            focus_password=" autofocus" if hint else "",
        ),
    )


def refusal(code: str) -> str:
    """Return the page of a request that may not be sent back to where it came from."""
    return _page("No se puede entrar", f"<h1>No se puede entrar</h1>\n{_fault(code, 0)}")


def signed_out() -> str:
    """Return the page after a sign-out that asked to go nowhere of ours."""
    return _page(
        "Sesión cerrada", '<h1>Sesión cerrada</h1>\n<p><a href="/">Volver a AquaCIS</a></p>'
    )


def new_cookie() -> str:
    """Return the value that ties a form to one browser."""
    return secrets.token_urlsafe(32)


def csrf_token(secret: bytes, cookie: str, query: Mapping[str, str]) -> str:
    """Return the token of one form: this browser, this request, this issuer."""
    bound = f"{cookie}\0{urlencode(sorted(query.items()))}"
    return hmac.digest(secret, bound.encode(), "sha256").hex()


def csrf_holds(secret: bytes, cookie: str, query: Mapping[str, str], given: str) -> bool:
    """Say whether a form comes from the page that we gave to this browser."""
    return bool(cookie) and hmac.compare_digest(
        csrf_token(secret, cookie, query).encode(), given.encode()
    )


def _fault(code: str, minutes: int) -> str:
    if not code:
        return ""
    wait = "1 minuto" if minutes <= 1 else f"{minutes} minutos"
    text = FAULTS[code].format(minutes=wait)
    return f'<p class="fault" id="fault" role="alert">{text} <code>[{code}]</code></p>\n'


def _page(title: str, body: str) -> str:
    return _SHELL.format(title=title, style=STYLE_PATH, body=body)

"""The local issuer over HTTP. Included in the application only when no other issuer is set."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from cloud.kernel import telemetry
from cloud.kernel.auth import login_page
from cloud.kernel.auth.authorization import Asked, ClientRefused, RequestRefused
from cloud.kernel.auth.browsers import SIGN_IN_LIFE
from cloud.kernel.auth.guard import public, signed_in
from cloud.kernel.auth.issuer import GrantRefused, Issuer
from cloud.kernel.auth.login_page import COOKIE
from cloud.kernel.auth.passwords import TooBusy
from cloud.kernel.auth.principal import Principal
from cloud.kernel.auth.users import SignInRefused
from cloud.kernel.web import CONTENT_SECURITY_POLICY, OpenPlatform

COOKIE_LIFE_S = 3600
BROWSER_COOKIE = "aquacis_browser"
BROWSER_LIFE_S = int(SIGN_IN_LIFE.total_seconds())
JWKS_CACHE = "public, max-age=60"

_sign_ins = telemetry.counter("aquacis_sign_ins_total", "Tries to sign in, by result", "result")

router = APIRouter(include_in_schema=False)
everybody = [Depends(public)]


def issuer(platform: OpenPlatform) -> Issuer:
    """Return the local issuer; these routes exist only when there is one."""
    assert platform.issuer is not None
    return platform.issuer


LocalIssuer = Annotated[Issuer, Depends(issuer)]


async def form_fields(request: Request) -> dict[str, str]:
    """Return the form's text fields; the last of each name."""
    async with request.form(max_files=0, max_fields=30) as form:
        return {name: held for name, held in form.items() if isinstance(held, str)}


Fields = Annotated[dict[str, str], Depends(form_fields)]


@router.get("/.well-known/openid-configuration", dependencies=everybody)
def discovery(request: Request, local: LocalIssuer) -> JSONResponse:
    """Describe the issuer; under the name of loopback that the browser uses, if it is one."""
    own = f"{request.url.scheme}://{request.url.netloc}"
    base_url = own if own in local.origins else local.name
    return JSONResponse(local.discovery(base_url))


@router.get("/oidc/jwks", dependencies=everybody)
def jwks(local: LocalIssuer) -> JSONResponse:
    published = local.keys.keys(kid=None).as_dict(private=False)
    return JSONResponse(published, headers={"cache-control": JWKS_CACHE})


@router.get(login_page.STYLE_PATH, dependencies=everybody)
def style() -> Response:
    cache = {"cache-control": "public, max-age=3600"}
    return Response(login_page.STYLE, media_type="text/css", headers=cache)


@router.get("/oidc/authorize", dependencies=everybody)
def authorize(request: Request, local: LocalIssuer) -> Response:
    """Send a signed-in browser back with a code; show the sign-in form to any other."""
    query = dict(request.query_params)
    asked = _asked(local, query)
    if isinstance(asked, Response):
        return asked
    try:
        location = local.continued(asked, request.cookies.get(BROWSER_COOKIE, ""))
    except RequestRefused as refused:
        return RedirectResponse(refused.location, 303)
    if location is not None:
        return RedirectResponse(location, 303)
    return _form(request, local, query, asked, hint=asked.hint)


@router.post("/oidc/authorize", dependencies=everybody)
def sign_in(request: Request, local: LocalIssuer, fields: Fields) -> Response:
    """Check the form, then the password; send the browser back with a code."""
    query = dict(request.query_params)
    asked = _asked(local, query)
    if isinstance(asked, Response):
        return asked
    origin = request.headers.get("origin")
    if origin is not None and origin not in local.origins:
        _sign_ins.labels("origin").inc()
        return HTMLResponse(login_page.refusal("origin_refused"), 403)
    name = fields.get("name", "")
    cookie = request.cookies.get(COOKIE, "")
    if not login_page.csrf_holds(local.form_secret(), cookie, query, fields.get("csrf", "")):
        _sign_ins.labels("form").inc()
        return _form(request, local, query, asked, hint=name, fault="form_expired", status=403)
    try:
        entered = local.sign_in(asked, name=name, password=fields.get("password", ""))
    except SignInRefused as refused:
        return _refused(request, local, query, asked, name=name, refused=refused)
    except TooBusy:
        _sign_ins.labels("busy").inc()
        return _form(request, local, query, asked, hint=name, fault="sign_in_busy", status=503)
    _sign_ins.labels("ok").inc()
    answer = RedirectResponse(entered.location, 303)
    answer.delete_cookie(COOKIE, path="/oidc")
    _set_cookie(answer, local, BROWSER_COOKIE, entered.cookie, life_s=BROWSER_LIFE_S)
    return answer


@router.post("/oidc/token", dependencies=everybody)
def token(local: LocalIssuer, fields: Fields) -> JSONResponse:
    """Exchange a code or a refresh token (RFC 6749 §5)."""
    grants = {"authorization_code": local.redeem, "refresh_token": local.refresh}
    grant = grants.get(fields.get("grant_type", ""))
    never = {"cache-control": "no-store", "pragma": "no-cache"}
    try:
        if grant is None:
            raise GrantRefused("unsupported_grant_type", "authorization_code or refresh_token")
        return JSONResponse(grant(fields).answer(), headers=never)
    except GrantRefused as refused:
        body = {"error": refused.error, "error_description": refused.description}
        return JSONResponse(body, 400, headers=never)


@router.post("/oidc/revoke", dependencies=everybody)
def revoke(local: LocalIssuer, token: Annotated[str, Form(max_length=256)]) -> Response:
    local.revoke(token)
    return Response(status_code=200)


@router.get("/oidc/userinfo")
@router.post("/oidc/userinfo")
def userinfo(principal: Annotated[Principal, Depends(signed_in)]) -> dict[str, Any]:
    return {
        "sub": principal.subject,
        "name": principal.name,
        "preferred_username": principal.name,
        "roles": sorted(principal.roles),
        "administrations": list(principal.administrations),
    }


@router.get("/oidc/logout", dependencies=everybody)
def log_out(request: Request, local: LocalIssuer) -> Response:
    return _logged_out(request, local, dict(request.query_params))


@router.post("/oidc/logout", dependencies=everybody)
def log_out_form(request: Request, local: LocalIssuer, fields: Fields) -> Response:
    return _logged_out(request, local, fields)


def _logged_out(request: Request, local: Issuer, given: Mapping[str, str]) -> Response:
    location = local.log_out(given, request.cookies.get(BROWSER_COOKIE, ""))
    answer: Response = HTMLResponse(login_page.signed_out())
    if location is not None:
        answer = RedirectResponse(location, 303)
    answer.delete_cookie(BROWSER_COOKIE, path="/oidc")
    return answer


def _asked(local: Issuer, query: Mapping[str, str]) -> Asked | Response:
    try:
        return local.asked(query)
    except ClientRefused as refused:
        return HTMLResponse(login_page.refusal(refused.code), 400)
    except RequestRefused as refused:
        return RedirectResponse(refused.location, 303)


def _refused(
    request: Request,
    local: Issuer,
    query: dict[str, str],
    asked: Asked,
    *,
    name: str,
    refused: SignInRefused,
) -> Response:
    if refused.locked_until is None:
        _sign_ins.labels("wrong").inc()
        return _form(request, local, query, asked, hint=name, fault="sign_in_refused", status=401)
    _sign_ins.labels("locked").inc()
    left_s = (refused.locked_until - local.wall.now()).total_seconds()
    minutes = max(1, math.ceil(left_s / 60))
    page = _form(
        request, local, query, asked, hint=name, fault="sign_in_locked", minutes=minutes, status=429
    )
    page.headers["retry-after"] = str(max(1, math.ceil(left_s)))
    return page


def _form(
    request: Request,
    local: Issuer,
    query: dict[str, str],
    asked: Asked,
    *,
    hint: str,
    fault: str = "",
    minutes: int = 0,
    status: int = 200,
) -> Response:
    cookie = request.cookies.get(COOKIE) or login_page.new_cookie()
    csrf = login_page.csrf_token(local.form_secret(), cookie, query)
    html = login_page.form(query, csrf=csrf, hint=hint[:64], fault=fault, minutes=minutes)
    answer = HTMLResponse(html, status)
    _set_cookie(answer, local, COOKIE, cookie, life_s=COOKIE_LIFE_S)
    # Chromium applies form-action to the redirect after the form too.
    back = urlsplit(asked.opening.redirect_uri)
    answer.headers["content-security-policy"] = CONTENT_SECURITY_POLICY.replace(
        "form-action 'self'", f"form-action 'self' {back.scheme}://{back.netloc}"
    )
    return answer


def _set_cookie(answer: Response, local: Issuer, name: str, text: str, *, life_s: int) -> None:
    """Set a cookie that no script reads and no other site sends."""
    answer.set_cookie(
        name,
        text,
        max_age=life_s,
        path="/oidc",
        secure=local.name.startswith("https://"),
        httponly=True,
        samesite="strict",
    )

"""What every request of the web side goes through, and the pages themselves.

`Envelope` is the outermost layer: trace context, security headers, a limit on bodies, figures,
and the last answer when code fails. `pages` serves the built single-page application with
history fallback.
"""

from __future__ import annotations

import hmac
import time
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Request
from fastapi.responses import FileResponse, Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloud.kernel import problems, telemetry
from cloud.kernel.auth.guard import public
from cloud.kernel.config import Settings
from cloud.kernel.platform import Platform
from cloud.kernel.problems import INVALID_INPUT, NOT_FOUND, UNAUTHENTICATED, Problem, problem_type

BODY_BYTES_MAX = 1024 * 1024  # the API takes forms and small JSON; bulk comes by MQTT
ASSET_CACHE = "public, max-age=31536000, immutable"  # their names carry their hash
PAGES_MISSING = problem_type("pages_not_built", 503, "Las páginas aún no están construidas")

# Nothing inline, nothing from elsewhere. `data:` images are the icons that Vite inlines.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "manifest-src 'self'",
        "worker-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
SECURITY_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "geolocation=(), camera=(), microphone=()",
}
_WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS"})
_RESERVED = ("api/", "oidc/", ".well-known/")

_requests = telemetry.counter(
    "aquacis_http_requests_total", "Requests answered", "method", "route", "status"
)
_seconds = telemetry.histogram("aquacis_http_request_seconds", "Time to answer", "route")


def platform(request: Request) -> Platform:
    """Return the platform that this application was made with."""
    held: Platform = request.app.state.platform
    return held


OpenPlatform = Annotated[Platform, Depends(platform)]


class Envelope:
    """ASGI layer around the whole application. Only HTTP passes through here."""

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        self._app = app
        self._headers = dict(SECURITY_HEADERS)
        if settings.issuer is not None:  # the pages ask it for tokens
            self._headers["content-security-policy"] = CONTENT_SECURITY_POLICY.replace(
                "connect-src 'self'", f"connect-src 'self' {_origin(settings.issuer)}"
            )
        if settings.base_url.startswith("https://"):
            self._headers["strict-transport-security"] = "max-age=63072000"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._complete(scope, MutableHeaders(scope=message))
            await send(message)

        caller = telemetry.parse(Headers(scope=scope).get("traceparent"))
        with telemetry.carrying(caller):
            try:
                if "\0" in scope["path"]:
                    raise Problem(NOT_FOUND)
                if b"%00" in scope["query_string"]:  # no database text can hold it
                    raise Problem(INVALID_INPUT)
                if scope["method"] not in _WITHOUT_BODY:
                    receive = await _whole_body(scope, receive)
                await self._app(scope, receive, send_with_headers)
            except Problem as problem:
                await problems.answer(problem)(scope, receive, send_with_headers)
            except Exception as error:
                if status:
                    raise  # too late for another answer: the server cuts the connection
                answer = problems.failed(error)
                await answer(scope, receive, send_with_headers)
        route = route_label(scope)
        _requests.labels(scope["method"], route, str(status)).inc()
        _seconds.labels(route).observe(time.monotonic() - started)

    def _complete(self, scope: Scope, headers: MutableHeaders) -> None:
        for name, text in self._headers.items():
            headers.setdefault(name, text)
        if scope["path"].startswith(("/api/", "/oidc/")):
            headers.setdefault("cache-control", "no-store")


async def _whole_body(scope: Scope, receive: Receive) -> Receive:
    """Read the body, bounded, before any code of a route runs; return what gives it again.

    Raises `Problem` 413 by the length declared, or as soon as more has come.
    """
    declared = Headers(scope=scope).get("content-length", "0")
    if not declared.isdecimal() or int(declared) > BODY_BYTES_MAX:
        raise Problem(problems.TOO_LARGE)
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            break  # the caller left: the route will see it
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > BODY_BYTES_MAX:
            raise Problem(problems.TOO_LARGE)
    waiting: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again


def require_metrics_token(request: Request, settings: Settings) -> None:
    """Let a scraper read the figures. Raises Problem."""
    if not may_read_metrics(request.headers.get("authorization", ""), settings):
        raise Problem(UNAUTHENTICATED, headers={"WWW-Authenticate": "Bearer"})


def may_read_metrics(authorization: str, settings: Settings) -> bool:
    """Say whether this header shows the token of the figures. None set: only in development.

    authorization   as HTTP libraries give a header: one character for each byte
    """
    if settings.metrics_token is None and settings.env == "development":
        return True
    given = authorization.removeprefix("Bearer ").encode("latin-1", "replace")
    expected = (settings.metrics_token or "").encode()
    return bool(expected) and hmac.compare_digest(given, expected)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def route_label(scope: Scope) -> str:
    """Return the route's template: a path would be a series for each meter."""
    return getattr(scope.get("route"), "path", "unmatched")


def pages(dist: Path) -> APIRouter:
    """Serve the built pages in `dist`: a file when there is one, else the application's shell."""
    router = APIRouter()

    @router.get("/{path:path}", include_in_schema=False, dependencies=[Depends(public)])
    def page(path: str) -> Response:
        if path.startswith(_RESERVED):
            raise Problem(NOT_FOUND)
        file = _file(dist, path)
        if file is not None:
            cache = ASSET_CACHE if path.startswith("assets/") else "no-cache"
            return FileResponse(file, headers={"cache-control": cache})
        if "." in path.rpartition("/")[2]:
            raise Problem(NOT_FOUND)  # a missing file is not a page
        shell = dist / "index.html"
        if not shell.is_file():
            raise Problem(PAGES_MISSING, detail="python3 tasks.py web")
        return FileResponse(shell, headers={"cache-control": "no-cache"})

    return router


def _file(dist: Path, path: str) -> Path | None:
    """Return the file inside `dist`, or None; never one outside, whatever the path says."""
    if not path or "\0" in path:
        return None
    file = (dist / path).resolve()
    if not file.is_relative_to(dist.resolve()) or not file.is_file():
        return None
    return None if file.name.startswith(".") else file

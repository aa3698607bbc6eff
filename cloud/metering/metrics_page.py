"""The figures of `aquacis intake`: a page of its own, since `serve` is another process."""

from __future__ import annotations

import json
import os
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from cloud.kernel import private_files, telemetry, web
from cloud.kernel.config import Settings

SILENT_S = 10.0  # a client that says nothing holds a thread no longer

log = telemetry.logger(__name__)


def publish(settings: Settings) -> ThreadingHTTPServer | None:
    """Serve this process's figures on a free local port, written to <state>/intake.json (0600).

    As on `serve`, whoever asks needs the token; in production without one nothing listens (None).
    """
    found: dict[str, object] = {"pid": os.getpid()}
    server = None
    if settings.metrics_token is None and settings.env != "development":
        log.warning("metrics_not_served", reason="no metrics token is set")
    else:
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(settings))
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
        found["metrics"] = f"http://127.0.0.1:{server.server_port}/metrics"
        log.info("metrics_served", url=found["metrics"])
    private_files.write(settings.state / "intake.json", json.dumps(found).encode())
    return server


def _handler(settings: Settings) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = SILENT_S

        def do_GET(self) -> None:
            if self.path != "/metrics":
                self._answer(HTTPStatus.NOT_FOUND)
            elif not web.may_read_metrics(self.headers.get("authorization", ""), settings):
                self._answer(HTTPStatus.UNAUTHORIZED, ("WWW-Authenticate", "Bearer"))
            else:
                self._answer(
                    HTTPStatus.OK, ("Content-Type", CONTENT_TYPE_LATEST), body=generate_latest()
                )

        def _answer(
            self, status: HTTPStatus, header: tuple[str, str] | None = None, *, body: bytes = b""
        ) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if header is not None:
                self.send_header(*header)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *given: object) -> None:
            """Say nothing: a scrape each few seconds is no news."""

    return Handler

"""The agent's own page and figures, for whoever stands at the gateway or tunnels to it.

    GET /          a page in Spanish, without scripts, that renews itself
    GET /metrics   the same as Prometheus text

On loopback alone: `ssh -L 8090:127.0.0.1:8090 gateway`. It only shows; nothing can be changed here,
and nothing secret is known to it: it is handed a `Status` once a second and asks for no more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn
from typing import Final

from edge_agent import VERSION
from edge_agent.config import Config
from edge_agent.health import Status
from edge_agent.local_metrics import METRICS_TYPE, metrics
from edge_agent.local_page import PAGE_TYPE, page

LOOPBACK: Final = "127.0.0.1"
MOST_AT_ONCE: Final = 4  # requests; each has a thread of about 100 KiB for a moment
PATIENCE_S: Final = 5.0  # with who connects and says nothing
# A page of somewhere else may point a name of its own at 127.0.0.1; its requests still carry it.
OWN_NAMES: Final = frozenset(("127.0.0.1", "localhost", "[::1]"))
HEADERS: Final = (
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; img-src data:"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
)

Log = Callable[..., None]


@contextmanager
def local_page(config: Config, log: Log) -> Iterator[Callable[[Status], None] | None]:
    """Serve the page meanwhile, where the settings want one; yield what shows it a status.

    A port that is taken must not keep an agent from its work: it is logged, and there is no page.
    """
    if config.local_port is None:
        yield None
        return
    about = {"gateway": config.gateway, "version": VERSION, "broker": config.broker.address}
    try:
        server = LocalServer(port=config.local_port, **about)
    except OSError as error:
        log("local_page_failed", port=config.local_port, reason=error.strerror)
        yield None
        return
    server.start()
    log("local_page", url=server.url)
    try:
        yield server.show
    finally:
        server.stop()


class LocalServer:
    """Serves the newest status. `show` may come from any thread; requests never wait for it."""

    def __init__(self, *, port: int, gateway: str, version: str, broker: str) -> None:
        """Take the port; 0 = any free one. Raises OSError."""
        self._status: Status | None = None
        self._about = (gateway, version, broker)
        self._server = _Server((LOOPBACK, port), self._handler())
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.5}, daemon=True
        )
        self._thread.name = "local-page"

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self._server.server_port}/"

    def show(self, status: Status) -> None:
        """Answer with this from now on."""
        self._status = status

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop within a second; requests under way are left to end by themselves."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str) -> tuple[int, str, str]:
        """Return status code, content type and body."""
        gateway, version, broker = self._about
        status = self._status
        if path not in {"/", "/metrics"}:
            return 404, "text/plain; charset=utf-8", "aquí sólo hay / y /metrics\n"
        if status is None:
            return 503, "text/plain; charset=utf-8", "el agente está arrancando\n"
        if path == "/metrics":
            return 200, METRICS_TYPE, metrics(status, gateway=gateway, version=version)
        return 200, PAGE_TYPE, page(status, gateway=gateway, version=version, broker=broker)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        answer = self.answer

        class Handler(BaseHTTPRequestHandler):
            server_version = "aquacis-edge"
            sys_version = ""
            timeout = PATIENCE_S

            def do_GET(self) -> None:
                self._reply(with_body=True)

            def do_HEAD(self) -> None:
                self._reply(with_body=False)

            def _reply(self, *, with_body: bool) -> None:
                host = (self.headers.get("Host") or "").rpartition(":")[0] or self.headers.get(
                    "Host"
                )
                if host not in OWN_NAMES:
                    self.send_error(421)
                    return
                code, kind, text = answer(self.path.partition("?")[0])
                body = text.encode("utf-8")
                self.send_response(code)
                for name, said in (("Content-Type", kind), ("Content-Length", str(len(body)))):
                    self.send_header(name, said)
                for name, said in HEADERS:
                    self.send_header(name, said)
                self.end_headers()
                if with_body:
                    self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing: who looks at the page is no news."""

        return Handler


class _Server(ThreadingMixIn, HTTPServer):
    """One thread a request, few at a time; more than that are turned away at once."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = MOST_AT_ONCE
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._room = threading.BoundedSemaphore(MOST_AT_ONCE)
        super().__init__(address, handler)

    def verify_request(self, request: object, client_address: object) -> bool:
        return self._room.acquire(blocking=False)

    def process_request_thread(self, request: object, client_address: object) -> None:
        try:
            super().process_request_thread(request, client_address)  # type: ignore[arg-type]  # passed on
        finally:
            self._room.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that went away."""

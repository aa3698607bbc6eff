"""The real application on a free port, over a real PostgreSQL, and Debian's Chromium before it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, StorageState, ViewportSize, expect, sync_playwright
from psycopg import connect

from cloud import app as composition
from cloud.kernel.auth.principal import Role
from cloud.kernel.auth.users import ensure_user
from cloud.kernel.clock import SystemClock, to_us
from cloud.kernel.config import Settings
from cloud.kernel.db import Database
from cloud.kernel.platform import Platform
from decoders.value import value
from tests.browser.seeded_city import ADMINISTRATIONS, GATEWAYS, NOW, seed

if TYPE_CHECKING:
    from tests.conftest import Template

CHROMIUM = "/usr/bin/chromium"
ROOT = Path(__file__).resolve().parents[2]
WEB = ROOT / "cloud" / "portal" / "web"
PASSWORD = "agua-clara-para-todos"
START_S = 20.0
STOP_S = 10.0
NARROWEST: ViewportSize = {"width": 320, "height": 568}  # WCAG 2.2, 1.4.10
PATIENCE_MS = 30_000  # for a machine that runs every other test beside these

# It asks nothing of the network but the page under test.
QUIET = (
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


@value
class Site:
    """Where the application under test is, and who may sign in: each with PASSWORD."""

    url: str
    supervisor: str = "ana"  # sees everything the pages show
    clerk: str = "luis"  # sees meters only


@pytest.fixture(scope="session")
def site(database_template: Template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The application as `aquacis serve` runs it, its city's clock at `NOW`, its past sent."""
    if not (WEB / "dist" / "index.html").is_file():
        pytest.fail("the pages are not built: python3 tasks.py web")
    state = tmp_path_factory.mktemp("site")
    with _copy_of(database_template) as database:
        listener = socket.create_server(("127.0.0.1", 0))
        settings = Settings(
            state=state,
            http_port=listener.getsockname()[1],
            clock=f"file:{_clock(state)}",
            administrations=ADMINISTRATIONS,
            gateways=GATEWAYS,
        )
        platform = composition.assemble(settings, database)
        seed(platform)
        ensure_user(database, "ana", [Role.SUPERVISOR, Role.NETWORK], ["queretaro"], PASSWORD)
        ensure_user(database, "luis", [Role.CLERK], ["queretaro"], PASSWORD)
        with _serving(platform, listener):
            yield Site(url=settings.base_url)
        platform.close()


@contextmanager
def _copy_of(template: Template) -> Iterator[Database]:
    """Copy the migrated database once for the whole run: these tests only look at it."""
    server = template.server
    with connect(server.dsn(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE browser TEMPLATE {template.name}")
        yield Database(server.dsn("browser"), server.passwords_path)
        connection.execute("DROP DATABASE browser WITH (FORCE)")


@contextmanager
def _serving(platform: Platform, listener: socket.socket) -> Iterator[None]:
    stop = threading.Event()
    consumers = composition.start_consumers(platform, stop)
    application = composition.create_app(platform)
    server = uvicorn.Server(
        uvicorn.Config(application, log_config=None, access_log=False, lifespan="off")
    )
    serving = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="http")
    serving.start()
    end = time.monotonic() + START_S
    while not server.started:
        assert serving.is_alive(), "the server ended before it began"
        assert time.monotonic() < end, f"the server did not start in {START_S:.0f} s"
        time.sleep(0.02)
    try:
        yield
    finally:
        stop.set()
        server.should_exit = True
        for thread in (serving, consumers):
            thread.join(STOP_S)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium with an empty profile; the tests are skipped where it is not installed.

    Closed with its module: while it is open this thread has an event loop, and tests that start
    one of their own would fail beside it.
    """
    if shutil.which(CHROMIUM) is None:
        pytest.skip(f"chromium is not installed here ({CHROMIUM}); on Debian: apt-get install it")
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # its sandbox refuses root
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, *sandbox])
        yield browser
        browser.close()


@pytest.fixture
def stranger(chromium: Browser) -> Iterator[Page]:
    """A desktop on which nobody has signed in."""
    with _page(chromium, phone=False) as page:
        yield page


@pytest.fixture(scope="module")
def signed_in(chromium: Browser, site: Site) -> StorageState:
    """What the browser keeps once the supervisor has signed in: the issuer's cookie."""
    with _page(chromium, phone=False) as page:
        sign_in(page, site, "/medidores", name=site.supervisor)
        return page.context.storage_state()


@pytest.fixture(params=["desktop", "phone"])
def page(
    request: pytest.FixtureRequest, chromium: Browser, signed_in: StorageState
) -> Iterator[Page]:
    """A desktop and a phone on which the supervisor has signed in before."""
    with _page(chromium, phone=request.param == "phone", kept=signed_in) as page:
        yield page


@contextmanager
def _page(chromium: Browser, *, phone: bool, kept: StorageState | None = None) -> Iterator[Page]:
    """Open a page; on closing, fail when its console complained of anything."""
    context = chromium.new_context(
        viewport=NARROWEST if phone else {"width": 1280, "height": 800},
        is_mobile=phone,
        has_touch=phone,
        locale="es-MX",
        timezone_id="America/Mexico_City",
        storage_state=kept,
    )
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    context.close()
    assert complaints == [], "the console of the page has no errors, nor CSP reports"


def sign_in(page: Page, site: Site, path: str, *, name: str) -> None:
    """Open a page and sign in through the issuer's own form, as a person does."""
    page.goto(site.url + path)
    page.get_by_label("Usuario").fill(name)
    page.get_by_label("Contraseña").fill(PASSWORD)
    page.get_by_role("button", name="Entrar").click()
    page.wait_for_url(site.url + path)


def _clock(state: Path) -> Path:
    """Stop the city's clock near `NOW`: it runs, at the speed of the test's own seconds."""
    path = state / "clock.json"
    told = {"wall_us": SystemClock().now_us(), "sim_us": to_us(NOW), "speed": 1}
    path.write_text(json.dumps(told))
    return path

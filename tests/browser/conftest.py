"""The real application on a free port, over a real PostgreSQL, and Debian's Chromium before it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, Playwright, sync_playwright

from cloud import app as composition
from cloud.kernel.auth.principal import Role
from cloud.kernel.auth.users import ensure_user
from cloud.kernel.clock import SystemClock, to_us
from cloud.kernel.config import Settings
from cloud.kernel.db import Database
from decoders.value import value
from tests.browser.seeded_city import ADMINISTRATIONS, GATEWAYS, NOW, seed

CHROMIUM = "/usr/bin/chromium"
ROOT = Path(__file__).resolve().parents[2]
WEB = ROOT / "cloud" / "portal" / "web"
PASSWORD = "agua-clara-para-todos"
START_S = 20.0

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


@pytest.fixture(scope="module")
def site(module_database: Database) -> Iterator[Site]:
    """The application as `aquacis serve` runs it, its city's clock at `NOW`, its past sent."""
    if not (WEB / "dist" / "index.html").is_file():
        pytest.fail("the pages are not built: python3 tasks.py web")
    with tempfile.TemporaryDirectory(prefix="aquacis-test-") as folder, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        settings = Settings(
            state=Path(folder),
            http_port=listener.getsockname()[1],
            clock=f"file:{_clock(Path(folder))}",
            administrations=ADMINISTRATIONS,
            gateways=GATEWAYS,
        )
        platform = composition.assemble(settings, module_database)
        seed(platform)
        _people(module_database)
        stop = threading.Event()
        consumers = composition.start_consumers(platform, stop)
        server = uvicorn.Server(
            uvicorn.Config(
                composition.create_app(platform), log_config=None, access_log=False, lifespan="off"
            )
        )
        listener.listen()
        serving = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        serving.start()
        _await(server, serving)
        yield Site(url=settings.base_url)
        stop.set()
        server.should_exit = True
        for thread in (serving, *consumers):
            thread.join(10)
        platform.close()


@pytest.fixture(scope="session")
def _playwright() -> Iterator[Playwright]:
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="session")
def chromium(_playwright: Playwright) -> Iterator[Browser]:
    """Debian's Chromium with an empty profile; the tests are skipped where it is not installed."""
    if shutil.which(CHROMIUM) is None:
        pytest.skip(f"chromium is not installed here ({CHROMIUM}); on Debian: apt-get install it")
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # its sandbox refuses root
    browser = _playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, *sandbox])
    yield browser
    browser.close()


@pytest.fixture(params=["desktop", "phone"])
def page(request: pytest.FixtureRequest, chromium: Browser) -> Iterator[Page]:
    """A page on a desktop and on a phone. It fails the test that lets the console complain."""
    phone = request.param == "phone"
    context = chromium.new_context(
        viewport={"width": 390, "height": 844} if phone else {"width": 1280, "height": 800},
        is_mobile=phone,
        has_touch=phone,
        locale="es-MX",
        timezone_id="America/Mexico_City",
    )
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    context.close()
    assert complaints == [], "the console of the page has no errors, nor CSP reports"


def _people(database: Database) -> None:
    now = SystemClock().now()
    for name, roles in (("ana", [Role.SUPERVISOR, Role.NETWORK]), ("luis", [Role.CLERK])):
        ensure_user(database, name, roles, ["queretaro"], PASSWORD, now=now)


def _clock(state: Path) -> Path:
    """Stop the city's clock near `NOW`: it runs, at the speed of the test's own seconds."""
    path = state / "clock.json"
    told = {"wall_us": SystemClock().now_us(), "sim_us": to_us(NOW), "speed": 1}
    path.write_text(json.dumps(told))
    return path


def _await(server: uvicorn.Server, serving: threading.Thread) -> None:
    end = time.monotonic() + START_S
    while not server.started:
        assert serving.is_alive(), "the server ended before it began"
        assert time.monotonic() < end, f"the server did not start in {START_S:.0f} s"
        time.sleep(0.02)

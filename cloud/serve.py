"""The long-running commands: `aquacis serve`, `aquacis intake`; and `aquacis config show`."""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import uvicorn

from cloud import app
from cloud.kernel import config, console, private_files, telemetry
from cloud.kernel.config import Settings
from cloud.kernel.platform import Platform
from cloud.kernel.state import prepare
from cloud.metering import intake as metering_intake

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

WATCH_S = 0.5  # how often the database server is looked at
GRACE_S = 5  # for requests under way when asked to stop

log = telemetry.logger(__name__)


def add_commands(commands: Commands) -> None:
    """Register the commands of this module."""
    serve_parser = commands.add_parser(
        "serve",
        help="serve the API and the pages, and run the event consumers",
        description="Serve until SIGINT or SIGTERM. AQUACIS_HTTP_PORT=0 takes a free port; "
        "the address is written to <state>/endpoints.json (0600) and logged.",
    )
    serve_parser.set_defaults(run=serve)
    intake_parser = commands.add_parser(
        "intake", help="take in what gateways send, decode and store it, acknowledge it"
    )
    intake_parser.set_defaults(run=intake)
    config_parser = commands.add_parser("config", help="the settings of this installation")
    actions = config_parser.add_subparsers(metavar="ACTION", required=True)
    show = actions.add_parser("show", help="print every setting, secrets masked")
    show.set_defaults(run=show_config)


def show_config(arguments: argparse.Namespace) -> int:
    console.answer(arguments, config.shown(console.settings()))
    return 0


def intake(_: argparse.Namespace) -> int:
    signal.signal(signal.SIGTERM, _leave)  # until intake has handlers of its own
    settings = prepared("intake")
    platform = app.open_platform(settings)
    try:
        with leaving_with_server(platform):
            exit_code = metering_intake.main(platform)
        _require_server(platform)
        return exit_code
    finally:
        platform.close()


def serve(_: argparse.Namespace) -> int:
    signal.signal(signal.SIGTERM, _leave)  # until the server runs and can finish its requests
    settings = prepared("serve")
    listener = listen(settings)
    settings = replace(settings, http_port=listener.getsockname()[1])
    platform = app.open_platform(settings)
    try:
        publish_endpoint(settings)
        with leaving_with_server(platform):
            run_server(platform, listener)
        _require_server(platform)
        return 0
    finally:
        platform.close()
        listener.close()


def _require_alive(thread: threading.Thread) -> None:
    if not thread.is_alive():
        raise RuntimeError(f"thread {thread.name} ended")


def _require_server(platform: Platform) -> None:
    if platform.failure is not None:
        raise platform.failure  # its Spanish text is the command's last word


@contextmanager
def leaving_with_server(platform: Platform) -> Iterator[None]:
    """Ask this process to stop, as SIGTERM does, when the database server was given up."""
    gc.freeze()  # what a process is made of is no garbage: collections need not walk through it
    done = threading.Event()

    def watch() -> None:
        while not done.wait(WATCH_S):
            if platform.failure is not None:
                os.kill(os.getpid(), signal.SIGTERM)
                return

    watching = threading.Thread(target=watch, name="server-watch", daemon=True)
    watching.start()
    try:
        yield
    finally:
        done.set()
        watching.join()


def _leave(number: int, _: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)  # unwinds: what was started is stopped


def prepared(process: str) -> Settings:
    """Return settings this process may start with, its logs set up and the settings logged.

    What it makes from now on is closed to others. Raises `ConfigurationInvalid`, and
    `ServerError` for a state folder that is not safe.
    """
    os.umask(0o077)
    settings = console.settings()
    telemetry.configure(process, hidden=config.secrets_of(settings))
    config.refuse_sandbox(settings)
    prepare(settings.state)
    log.info("configured", **config.shown(settings))
    return settings


def listen(settings: Settings) -> socket.socket:
    """Bind before anything else starts: a taken port is said at once."""
    family = socket.AF_INET6 if ":" in settings.http_host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.http_host, settings.http_port))
    except OSError as error:
        listener.close()
        raise console.CommandFailed(
            f"no se puede escuchar en {settings.http_host}:{settings.http_port}: "
            f"{error.strerror}; elija otro puerto con AQUACIS_HTTP_PORT (0: uno libre)",
            code="port_taken",
        ) from error
    listener.listen(2048)
    return listener


def publish_endpoint(settings: Settings) -> None:
    """Add our address to <state>/endpoints.json, which `up` and tests read."""
    path = settings.state / "endpoints.json"
    held = json.loads(path.read_text()) if path.exists() else {}
    told = {**held, "url": settings.base_url, "pid": os.getpid()}
    private_files.write(path, json.dumps(told).encode())
    log.info("serving", url=settings.base_url)


def run_server(platform: Platform, listener: socket.socket) -> None:
    """Answer requests and consume events until SIGINT or SIGTERM."""
    stop = threading.Event()
    consumers = app.start_consumers(platform, stop)
    checks = {**platform.ready_checks, "consumers": lambda: _require_alive(consumers)}
    platform = replace(platform, ready_checks=checks)
    server = uvicorn.Server(
        uvicorn.Config(
            app.create_app(platform),
            log_config=None,  # ours
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=GRACE_S,
            server_header=False,
            forwarded_allow_ips=platform.settings.trusted_proxies,
        )
    )

    def stopping(number: int, _: FrameType | None) -> None:
        log.info("stopping", signal=signal.Signals(number).name)
        stop.set()
        server.should_exit = True

    held = {number: signal.signal(number, stopping) for number in (signal.SIGINT, signal.SIGTERM)}
    serving = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="http")
    try:
        serving.start()
        while serving.is_alive():
            serving.join(0.5)
    finally:
        stop.set()
        server.should_exit = True
        serving.join(GRACE_S + 5)
        consumers.join(GRACE_S)
        for number, before in held.items():
            signal.signal(number, before)

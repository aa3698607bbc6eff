"""The composition root: the only module that knows every context and every adapter."""

from __future__ import annotations

import threading
import time
from contextlib import AbstractContextManager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import httpx
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from cloud import flow
from cloud.kernel import db, problems, telemetry, web
from cloud.kernel.auth import api as auth_api
from cloud.kernel.auth import issuer_api, remote_api
from cloud.kernel.auth.guard import public
from cloud.kernel.auth.issuer import Issuer
from cloud.kernel.auth.keys import LocalKeys
from cloud.kernel.auth.resource import KeySource, RemoteKeys, TokenVerifier, rules_of
from cloud.kernel.blobs import FolderBlobs
from cloud.kernel.clock import Clock, SystemClock, clock_named
from cloud.kernel.config import Settings
from cloud.kernel.db import Database
from cloud.kernel.keyvault import KeyVault, open_vault
from cloud.kernel.platform import Check, Platform, Pools, open_server
from cloud.kernel.postgres import Server
from cloud.kernel.postgres_bus import PostgresBus
from cloud.kernel.postgres_errors import ServerError
from cloud.metering import api as metering_api
from cloud.operations import api as operations_api

CONTEXTS = (db.KERNEL, db.context("metering"), db.context("operations"))
DIST = Path(__file__).parent / "portal" / "web" / "dist"
OK = "ok"

log = telemetry.logger(__name__)


def open_platform(settings: Settings) -> Platform:
    """Start or find what this process stands on, with every schema up to date. Close it.

    Raises `ServerError`, `db.MigrationChanged`, `db.SchemaIsNewer`, `UnwrapRefused`.
    """
    server = open_server(settings)
    try:
        database = Database(server.dsn(), server.passwords_path)
        database.migrate(CONTEXTS)
        return assemble(settings, database, server=server)
    except BaseException:
        server.stop()
        raise


def assemble(
    settings: Settings,
    database: Database,
    *,
    server: Server | None = None,
    wall: Clock | None = None,
) -> Platform:
    """Join the parts over a migrated database; `server`, if given, stops with them.

    Tests begin here.
    """
    wall = wall or SystemClock()
    vault = open_vault(settings)
    pools = Pools(database)
    local = remote = None
    if settings.issuer is None:
        local = local_issuer(settings, pools, vault, wall)
    else:
        remote = RemoteKeys(settings.issuer, httpx.Client(), time.monotonic)
    keys: KeySource | None = local.keys if local else remote
    assert keys is not None
    checks: dict[str, Check] = {"database": lambda: _database_answers(pools)}
    warnings: dict[str, Check] = {}
    if server is not None and server.free_bytes() is not None:  # not one of yours
        checks["server"] = lambda: _require_kept(server)
        warnings["disk"] = server.require_intake
    return Platform(
        settings=settings,
        clock=clock_named(settings.clock),
        wall=wall,
        database=database,
        blobs=FolderBlobs(settings.state / "blobs"),
        vault=vault,
        tokens=TokenVerifier(rules_of(settings), keys, lambda: wall.now_us() / 1e6),
        issuer=local,
        remote_issuer=remote,
        pools=pools,
        server=server,
        ready_checks=checks,
        warnings=warnings,
    )


def local_issuer(settings: Settings, pools: Pools, vault: KeyVault, wall: Clock) -> Issuer:
    """Make the identity provider of a laptop."""

    def connect() -> AbstractContextManager[db.Connection]:
        return pools.of("kernel").connection()

    keys = LocalKeys(connect, vault, wall.now, time.monotonic)
    return Issuer(settings=settings, keys=keys, connect=connect, wall=wall)


def create_app(platform: Platform) -> FastAPI:
    """Make the HTTP application: every context's routes, the issuer's, and the pages."""
    app = FastAPI(
        title="AquaCIS",
        version=cloud_version(),
        openapi_url=None,  # served by a route of ours, which declares its guard like any other
        docs_url=None,  # its scripts come from elsewhere: the CSP would refuse them
        redoc_url=None,
        responses=problems.RESPONSES,
    )
    app.state.platform = platform
    app.add_middleware(web.Envelope, settings=platform.settings)
    problems.install(app)
    app.include_router(health_routes(app))
    app.include_router(auth_api.router)
    app.include_router(remote_api.router if platform.issuer is None else issuer_api.router)
    app.include_router(metering_api.router)
    app.include_router(operations_api.router)
    app.include_router(web.pages(DIST))  # last: it answers whatever nobody else did
    return app


def start_consumers(platform: Platform, stop: threading.Event) -> threading.Thread:
    """Run every consumer that `cloud.flow` routes to, until `stop` is set."""
    bus = PostgresBus(
        platform.database, platform.blobs, sources=flow.SOURCES, upcasters=flow.UPCASTERS
    )
    thread = threading.Thread(
        target=bus.run, args=(flow.subscriptions(platform), stop), name="consumers"
    )
    thread.start()
    return thread


def health_routes(app: FastAPI) -> APIRouter:
    """Return what supervisors and tools ask: alive, ready, figures, the API's description."""
    router = APIRouter(dependencies=[Depends(public)], include_in_schema=False)

    @router.get("/healthz")
    def alive() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/readyz")
    def ready(platform: web.OpenPlatform) -> JSONResponse:
        """Say whether requests are answered. What only intake cannot do is shown, and is no no."""
        checks = {name: outcome(name, check) for name, check in platform.ready_checks.items()}
        warned = {name: outcome(name, check) for name, check in platform.warnings.items()}
        is_ready = all(said == OK for said in checks.values())
        told = {"ready": is_ready, "checks": {**checks, **warned}}
        return JSONResponse(told, 200 if is_ready else 503)

    @router.get("/metrics")
    def metrics(request: Request, platform: web.OpenPlatform) -> Response:
        web.require_metrics_token(request, platform.settings)
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    @router.get("/openapi.json")
    def openapi() -> JSONResponse:
        return JSONResponse(app.openapi())

    return router


def outcome(name: str, check: Check) -> str:
    """Return OK, or the code of what is wrong: ours, or the name of somebody else's error."""
    try:
        check()
    except ServerError as error:
        log.warning("not_ready", part=name, code=error.code, error=str(error))
        return error.code
    except Exception as error:
        log.warning("not_ready", part=name, error=str(error))
        return type(error).__name__
    return OK


def cloud_version() -> str:
    try:
        return version("aquacis")
    except PackageNotFoundError:  # a clone that was not installed
        return "0.1.0"


def _require_kept(server: Server) -> None:
    if server.failure is not None:
        raise server.failure


def _database_answers(pools: Pools) -> None:
    with pools.of("kernel").connection(timeout=2.0) as connection:
        connection.execute("SELECT 1")

"""What one process of the cloud stands on, handed to whoever serves a request or an event."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import field

from psycopg_pool import ConnectionPool

from cloud.kernel import postgres
from cloud.kernel.auth.issuer import Issuer
from cloud.kernel.auth.resource import RemoteKeys, TokenVerifier
from cloud.kernel.blobs import BlobStore
from cloud.kernel.clock import Clock
from cloud.kernel.config import Settings
from cloud.kernel.db import Connection, Database
from cloud.kernel.keyvault import KeyVault
from cloud.kernel.postgres_errors import ServerError
from cloud.kernel.state import prepare
from decoders.value import value

POOL_CONNECTIONS = 8  # for each context; more than two cores can use, fewer than the threads
POOL_WAIT_S = 5.0  # then the caller is told to try again

Check = Callable[[], None]  # raises when the part is not ready


class Pools:
    """One lazily opened connection pool for each context."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._held: dict[str, ConnectionPool[Connection]] = {}

    def of(self, context: str) -> ConnectionPool[Connection]:
        with self._lock:
            if context not in self._held:
                pool = self._database.pool(context, POOL_CONNECTIONS)
                pool.timeout = POOL_WAIT_S
                self._held[context] = pool
            return self._held[context]

    def close(self) -> None:
        with self._lock:
            for pool in self._held.values():
                pool.close()
            self._held.clear()


def open_server(settings: Settings) -> postgres.Server:
    """Return the database server the settings name, started if it is ours. Stop it.

    Raises `ServerError`.
    """
    if settings.database_url is None:
        return postgres.ensure(settings.state)
    prepare(settings.state)
    return postgres.YourServer(settings.database_url, settings.state / "passwords.json")


@value
class Platform:
    """Made once by `cloud.app.open_platform`; closed when the process stops."""

    settings: Settings
    clock: Clock  # of the city: simulated in the sandbox
    wall: Clock  # of the machine: tokens, locks, retries
    database: Database
    blobs: BlobStore
    vault: KeyVault
    tokens: TokenVerifier
    issuer: Issuer | None  # ours, or
    remote_issuer: RemoteKeys | None  # somebody else's: never both
    pools: Pools
    server: postgres.Server | None = None  # None: a test's, of which nothing is asked
    ready_checks: Mapping[str, Check] = field(default_factory=dict)
    warnings: Mapping[str, Check] = field(default_factory=dict)  # shown; we answer all the same

    def pool(self, context: str) -> ConnectionPool[Connection]:
        """Return the context's pool; its connections carry that context's own role."""
        return self.pools.of(context)

    @property
    def failure(self) -> ServerError | None:
        """Why the database server is gone for good (`postgres.Server.failure`): time to end."""
        return None if self.server is None else self.server.failure

    def require_intake(self) -> None:
        """Raise `DiskNearlyFull` when nothing more may be taken in."""
        if self.server is not None:
            self.server.require_intake()

    def close(self) -> None:
        self.pools.close()
        if self.server is not None:
            self.server.stop()

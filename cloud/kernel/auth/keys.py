"""The local issuer's signing keys: ES256, private part sealed by the key vault, rotated.

A key that signs no more stays published until the last token it signed has ended.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import psycopg
from joserfc.jwk import ECKey, KeySet
from psycopg.types.json import Jsonb

from cloud.kernel.db import Connection
from cloud.kernel.keyvault import KeyVault, Wrapped
from decoders.value import value

ALGORITHM = "ES256"
CURVE = "P-256"
PUBLISHED_AFTER_RETIREMENT = timedelta(hours=1)  # > the life of an access or ID token
RELOAD_S = 60.0
_ROTATION_LOCK = 4_277_009_102_011  # any number that nobody else locks with


@value
class SigningKey:
    """The key that signs now."""

    kid: str
    key: ECKey


class LocalKeys:
    """`KeySource` of our own issuer; also signs. Safe to use from many threads."""

    def __init__(
        self,
        connect: Callable[[], Any],  # a context manager that gives a kernel connection
        vault: KeyVault,
        now: Callable[[], datetime],
        monotonic_s: Callable[[], float],
    ) -> None:
        self._connect = connect
        self._vault = vault
        self._now = now
        self._monotonic_s = monotonic_s
        self._lock = threading.Lock()
        self._loaded_at = float("-inf")
        self._published = KeySet([])
        self._signing: SigningKey | None = None

    def keys(self, *, kid: str | None) -> KeySet:
        """Return every key whose tokens may still be valid."""
        with self._lock:
            self._refresh()
            return self._published

    def signing(self) -> SigningKey:
        """Return the key that signs now, made at the first call of all."""
        with self._lock:
            self._refresh()
            assert self._signing is not None
            return self._signing

    def rotate(self) -> str:
        """Make a new key sign from now on; return its id."""
        with self._lock, self._connect() as connection:
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [_ROTATION_LOCK])
            kid = _add_key(connection, self._vault, self._now())
            self._loaded_at = float("-inf")
            return kid

    def _refresh(self) -> None:
        if self._monotonic_s() - self._loaded_at < RELOAD_S:
            return
        try:
            self._load()
        except psycopg.OperationalError:
            if self._signing is None:
                raise  # else the keys we hold still sign and verify while the database is away
        self._loaded_at = self._monotonic_s()

    def _load(self) -> None:
        with self._connect() as connection:
            rows = _rows(connection, self._now())
            if not any(row["retired_at"] is None for row in rows):
                connection.execute("SELECT pg_advisory_xact_lock(%s)", [_ROTATION_LOCK])
                rows = _rows(connection, self._now())
                if not any(row["retired_at"] is None for row in rows):
                    _add_key(connection, self._vault, self._now())
                    rows = _rows(connection, self._now())
        newest = rows[0]
        private = self._vault.unwrap(Wrapped.from_bytes(newest["wrapped"]), _use(newest["kid"]))
        self._published = KeySet([ECKey.import_key(row["public_jwk"]) for row in rows])
        self._signing = SigningKey(kid=newest["kid"], key=ECKey.import_key(json.loads(private)))


def _use(kid: str) -> bytes:
    """Name what a private key is sealed for."""
    return f"kernel.signing_keys.{kid}".encode()


def _rows(connection: Connection, now: datetime) -> list[dict[str, Any]]:
    """Return published keys, the one that signs first."""
    found = connection.execute(
        "SELECT kid, public_jwk, wrapped, retired_at FROM signing_keys"
        " WHERE retired_at IS NULL OR retired_at > %s"
        " ORDER BY retired_at IS NOT NULL, created_at DESC",
        [now - PUBLISHED_AFTER_RETIREMENT],
    )
    return [
        {"kid": kid, "public_jwk": public, "wrapped": wrapped, "retired_at": retired_at}
        for kid, public, wrapped, retired_at in found.fetchall()
    ]


def _add_key(connection: Connection, vault: KeyVault, now: datetime) -> str:
    made = ECKey.generate_key(CURVE, private=True)
    kid = made.thumbprint()
    named = {"kid": kid, "use": "sig", "alg": ALGORITHM}
    private = json.dumps({**made.as_dict(private=True), **named}).encode()
    wrapped = vault.wrap(private, _use(kid)).to_bytes()
    public = {**made.as_dict(private=False), **named}
    connection.execute("UPDATE signing_keys SET retired_at = %s WHERE retired_at IS NULL", [now])
    connection.execute(
        "INSERT INTO signing_keys (kid, algorithm, public_jwk, wrapped, created_at)"
        " VALUES (%s, %s, %s, %s, %s)",
        [kid, ALGORITHM, Jsonb(public), wrapped, now],
    )
    return kid


def rewrap_keys(connection: Connection, vault: KeyVault) -> int:
    """Seal every private key again under the vault's newest version; return how many."""
    rows = connection.execute("SELECT kid, wrapped FROM signing_keys FOR UPDATE").fetchall()
    for kid, wrapped in rows:
        assert isinstance(wrapped, bytes)
        again = vault.rewrap(Wrapped.from_bytes(wrapped), _use(str(kid)))
        connection.execute(
            "UPDATE signing_keys SET wrapped = %s WHERE kid = %s", [again.to_bytes(), kid]
        )
    return len(rows)

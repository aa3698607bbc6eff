"""Signing keys: made once, sealed, published as long as their tokens live."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePublicNumbers,
)
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc import jwt

from cloud.kernel.auth.keys import LocalKeys
from cloud.kernel.db import Connection, Database
from cloud.kernel.keyvault import FileKeyVault, UnwrapRefused

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


class Sandbox:
    """A database, a vault, and clocks that tests set."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.folder = folder
        self.at = NOW
        self.monotonic_s = 0.0
        self.away = False

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        if self.away:
            raise psycopg.OperationalError("away")
        with self.database.connect("kernel") as connection:
            yield connection

    def keys(self) -> LocalKeys:
        vault = FileKeyVault(self.folder / "kek.json")
        return LocalKeys(self.connect, vault, lambda: self.at, lambda: self.monotonic_s)


@pytest.fixture
def sandbox(module_database: Database, tmp_path: Path) -> Sandbox:
    with module_database.connect("kernel") as connection:
        connection.execute("TRUNCATE signing_keys")
    return Sandbox(module_database, tmp_path)


def kids(keys: LocalKeys) -> list[str | None]:
    return [key.kid for key in keys.keys(kid=None).keys]


def test_the_first_key_is_made_once_however_many_ask(sandbox: Sandbox) -> None:
    with ThreadPoolExecutor(4) as starts:
        signing = list(starts.map(lambda _: sandbox.keys().signing().kid, range(4)))

    assert len(set(signing)) == 1


def test_an_outside_library_verifies_what_we_sign(sandbox: Sandbox) -> None:
    """By cryptography alone: R and S from the token, the point from the published key."""
    keys = sandbox.keys()
    signing = keys.signing()
    header = {"alg": "ES256", "kid": signing.kid}
    signed, _, signature = jwt.encode(header, {"sub": "1"}, signing.key).rpartition(".")
    (published,) = keys.keys(kid=None).as_dict(private=False)["keys"]
    x, y, raw = (unpadded(text) for text in (published["x"], published["y"], signature))
    point = EllipticCurvePublicNumbers(number(x), number(y), SECP256R1())

    point.public_key().verify(
        encode_dss_signature(number(raw[:32]), number(raw[32:])), signed.encode(), ECDSA(SHA256())
    )


def unpadded(text: str | list[str]) -> bytes:
    assert isinstance(text, str)
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def number(raw: bytes) -> int:
    return int.from_bytes(raw, "big")


def test_another_process_signs_with_the_same_key(sandbox: Sandbox) -> None:
    assert sandbox.keys().signing().kid == sandbox.keys().signing().kid


def test_a_rotated_key_stays_published_for_an_hour(sandbox: Sandbox) -> None:
    keys = sandbox.keys()
    old = keys.signing().kid
    new = keys.rotate()

    assert keys.signing().kid == new
    assert kids(keys) == [new, old]
    sandbox.at += timedelta(hours=1, seconds=1)
    assert kids(sandbox.keys()) == [new]


def test_another_process_notices_a_rotation_within_a_minute(sandbox: Sandbox) -> None:
    here, there = sandbox.keys(), sandbox.keys()
    here.signing()
    new = there.rotate()
    sandbox.monotonic_s += 61

    assert here.signing().kid == new


def test_keys_that_are_held_outlive_a_database_that_is_away(sandbox: Sandbox) -> None:
    keys = sandbox.keys()
    kid = keys.signing().kid
    sandbox.away = True
    sandbox.monotonic_s += 61

    assert keys.signing().kid == kid
    with pytest.raises(psycopg.OperationalError):
        sandbox.keys().signing()


def test_without_the_vaults_key_nothing_can_be_signed(sandbox: Sandbox) -> None:
    sandbox.keys().signing()
    (sandbox.folder / "kek.json").unlink()

    with pytest.raises(UnwrapRefused):
        sandbox.keys().signing()

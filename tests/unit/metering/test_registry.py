"""Meters, names and radio keys: imported, adopted, rotated; memory that notices changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cloud.kernel.db import Database
from cloud.kernel.keyvault import FileKeyVault
from cloud.metering import copying
from cloud.metering.registry import NewMeter, Registry
from cloud.metering.service import Metering
from tests.heard import (
    KEY,
    MINUTE,
    NOON,
    QUERETARO,
    Gateway,
    eui,
    import_keys,
    lorawan,
    metering_on,
    readings,
    rows_of,
    wmbus,
    wmbus_meter,
)

NAME = str(wmbus_meter(5))
NEWER = bytes(range(16, 32))


@pytest.fixture
def service(database: Database, tmp_path: Path) -> Iterator[Metering]:
    with metering_on(database, tmp_path) as made:
        yield made


def test_importing_twice_adds_nothing(service: Metering) -> None:
    meters = [NewMeter(name=NAME, administration="queretaro", key=KEY)]

    assert service.import_meters(meters) == (1, 1)
    assert service.import_meters(meters) == (0, 0)


def test_a_key_is_never_stored_in_clear(service: Metering, database: Database) -> None:
    import_keys(service, NAME)

    [(wrapped,)] = rows_of(database, "SELECT wrapped FROM meter_keys")
    assert KEY not in bytes(wrapped)


def test_a_new_key_is_a_new_version_and_takes_over_at_once(
    service: Metering, database: Database
) -> None:
    gateway = Gateway()
    import_keys(service, NAME)
    gateway.send(service, wmbus(5, 100, heard_at=NOON))
    import_keys(service, NAME, key=NEWER)
    gateway.send(
        service, wmbus(5, 110, heard_at=NOON + 61 * MINUTE, key=NEWER), at=NOON + 62 * MINUTE
    )

    assert rows_of(database, "SELECT key_version FROM receptions ORDER BY heard_at") == [(1,), (2,)]
    assert len(readings(database)) == 2


def test_keys_are_wrapped_anew_after_the_vault_rotates(
    service: Metering, database: Database, tmp_path: Path
) -> None:
    import_keys(service, NAME)
    vault = FileKeyVault(tmp_path / "keys" / "kek.json")
    vault.rotate()
    with metering_on(database, tmp_path) as rotated:
        assert rotated.rewrap_keys() == 1
        assert rotated.rewrap_keys() == 0
        assert Gateway().send(rotated, wmbus(5, 100, heard_at=NOON)).rejected == ()


def test_a_meter_heard_by_both_radios_is_one_meter(service: Metering, database: Database) -> None:
    import_keys(service, NAME, dev_eui=eui(1))
    gateway = Gateway()
    gateway.send(service, lorawan(1, [7], at=NOON - 60 * MINUTE), wmbus(5, 9, heard_at=NOON))

    assert rows_of(database, "SELECT count(DISTINCT meter_key), count(*) FROM readings") == [(1, 2)]


def test_a_meter_is_looked_up_once_and_again_when_the_registry_changes(
    service: Metering, database: Database, tmp_path: Path
) -> None:
    registry = Registry(FileKeyVault(tmp_path / "keys" / "kek.json"), [QUERETARO])
    with database.connect("metering") as connection:
        registry.refresh(connection)
        registry.use(connection)
        assert registry.keys(NAME) == ()
        import_keys(service, NAME)
        assert registry.keys(NAME) == ()  # remembered as unknown
        registry.refresh(connection)
        assert registry.keys(NAME) == (KEY,)


def test_columns_with_nulls_arrive_as_they_are(database: Database) -> None:
    null = np.array([False, True, False])
    columns = {
        "a": copying.whole("int8", np.array([1, 2, -3])),
        "b": copying.whole("int2", np.array([4, 5, 6], np.int16), null),
        "c": copying.instants(np.array([0, NOON, 1])),
        "d": copying.octets(np.frombuffer(b"abcdefghi", "V3")),
    }
    with database.connect("metering") as connection:
        connection.execute(
            "CREATE TEMPORARY TABLE t (a bigint, b smallint, c timestamptz, d bytea)"
        )
        copying.copy_rows(connection, "t", columns)
        rows = connection.execute(
            "SELECT a, b, (extract(epoch FROM c) * 1000000)::bigint, d FROM t ORDER BY d"
        ).fetchall()

    assert rows == [(1, 4, 0, b"abc"), (2, None, NOON, b"def"), (-3, 6, 1, b"ghi")]

"""Explaining reads a meter's clock as intake did; unknown meters are made or refused as set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cloud import app as composition
from cloud.kernel import config
from cloud.kernel.config import Administration
from cloud.kernel.db import Database
from cloud.metering.service import Metering
from tests.heard import (
    CST_S,
    MINUTE,
    NOON,
    QUERETARO,
    Gateway,
    eui,
    import_keys,
    lorawan,
    metering_on,
    rows_of,
)
from tests.scenario.conftest import composed

WEST = Administration(code="queretaro", name="Querétaro", meter_clock_offset_s=CST_S - 3600)


@pytest.mark.parametrize(
    ("own_s", "administration", "offset_s"),
    [(None, QUERETARO, CST_S), (CST_S + 1800, QUERETARO, CST_S + 1800), (0, WEST, 0)],
)
def test_the_offset_in_force_explains_the_reading(
    database: Database,
    tmp_path: Path,
    own_s: int | None,
    administration: Administration,
    offset_s: int,
) -> None:
    with metering_on(database, tmp_path, administrations=(administration,)) as service:
        import_keys(service, eui(1), key=None, clock_offset_s=own_s)
        late = NOON + 600 * MINUTE  # whatever the meter's clock says, the profile is past
        Gateway().send(service, lorawan(1, [110, 100], at=NOON, heard_at=late), at=late)
    with composed(database, tmp_path) as api:
        explained = api.get("/explain/reading", meter=eui(1), at="2026-06-03T00:00:00Z")

    assert explained["meter_clock_offset_s"] == offset_s
    assert explained["register_l"] == {"stored": 110, "decoded_again": 110}
    assert explained["same"]


@pytest.mark.parametrize(("wanted", "made"), [("provisional", 1), ("refuse", 0)])
def test_meters_nobody_declared_are_made_or_refused_as_set(
    database: Database, tmp_path: Path, wanted: str, made: int
) -> None:
    given = {
        "AQUACIS_STATE": str(tmp_path),
        "AQUACIS_UNKNOWN_METERS": wanted,
        "AQUACIS_ADMINISTRATIONS": json.dumps({"queretaro": {"name": "Querétaro"}}),
    }
    metering_on(database, tmp_path).close()
    platform = composition.assemble(config.load(tmp_path, given), database)
    try:
        with Metering.on(platform) as metering:
            Gateway().send(metering, lorawan(1, [100], at=NOON), at=NOON + MINUTE)
    finally:
        platform.close()

    assert rows_of(database, "SELECT count(*) FROM meters") == [(made,)]
    letters = rows_of(database, "SELECT code FROM row_dead_letters")
    assert letters == [("unknown_meter",)] * (1 - made)

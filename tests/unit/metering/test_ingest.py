"""What intake makes of good messages, on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.kernel.db import Database
from cloud.metering.service import Metering
from tests.heard import HOUR, NOON, Gateway, eui, lorawan, metering_on, readings, rows_of


@pytest.fixture
def service(database: Database, tmp_path: Path) -> Iterator[Metering]:
    with metering_on(database, tmp_path) as made:
        yield made


def test_a_profile_becomes_one_reading_an_hour(service: Metering, database: Database) -> None:
    ack = Gateway().send(service, lorawan(1, [1030, 1020, 1020, 1000], at=NOON - HOUR))

    assert ack.upto == 1
    assert ack.rejected == ()
    assert readings(database) == [
        (eui(1), NOON - (4 - n) * HOUR, litres)
        for n, litres in enumerate([1000, 1020, 1020, 1030])
    ]

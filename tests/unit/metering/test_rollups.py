"""Litres of a day: added up from its registers, unknown where one fell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from cloud.kernel.clock import from_us
from cloud.kernel.db import Database
from cloud.metering import rollups, shapes, views
from cloud.metering.intervals import local_day
from cloud.metering.service import Metering
from tests.heard import DAY, HOUR, MINUTE, NOON, Gateway, lorawan, metering_on

TODAY = local_day(from_us(NOON))
TOMORROW = TODAY + timedelta(days=1)


@pytest.fixture
def service(database: Database, tmp_path: Path) -> Iterator[Metering]:
    with metering_on(database, tmp_path) as made:
        yield made


def days(
    service: Metering, database: Database, *profiles: tuple[int, Sequence[int]]
) -> list[tuple[int | None, bool]]:
    """Hear one meter's profiles (newest instant, registers newest first); (litres, fell)."""
    gateway = Gateway()
    for number, (at, registers) in enumerate(profiles):
        gateway.send(service, lorawan(1, registers, at=at, counter=number), at=at + MINUTE)
    with database.connect("metering") as connection:
        [key] = connection.execute("SELECT meter_key FROM meters").fetchall()
        rollups.recompute(connection, [(key[0], TODAY), (key[0], TOMORROW)])
        found = [
            shapes.day(row)
            for row in views.days(
                connection, meter_key=key[0], from_on=TODAY, to_on=TOMORROW + timedelta(days=1)
            )
        ]
    return [(day["litres"], day["went_back"]) for day in found]


def test_a_day_runs_to_the_next_day_s_first_register(service: Metering, database: Database) -> None:
    heard = days(service, database, (NOON, [110, 100]), (NOON + DAY, [170, 160]))

    assert heard == [(60, False), (None, False)]


def test_a_new_meter_s_low_register_makes_no_negative_day(
    service: Metering, database: Database
) -> None:
    heard = days(service, database, (NOON, [50_000, 49_990]), (NOON + DAY, [12, 10]))

    assert heard == [(None, True), (None, False)]


def test_a_fall_within_the_day_is_not_hidden_by_what_ran_after_it(
    service: Metering, database: Database
) -> None:
    heard = days(
        service, database, (NOON, [500, 400]), (NOON + 3 * HOUR, [20, 10]), (NOON + DAY, [900])
    )

    assert heard == [(None, True), (None, False)]

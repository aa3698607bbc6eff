"""Meters declared after they were heard: joined under their names, or refused; never split."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud.kernel.config import Administration
from cloud.kernel.console import CommandFailed
from cloud.kernel.db import Database
from cloud.metering.importing import MeterRefused
from cloud.metering.meters_cli import new_meter
from cloud.metering.registry import NewMeter, clock_offset_s
from cloud.metering.service import Metering
from tests.heard import (
    CST_S,
    HOUR,
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


@pytest.fixture
def service(database: Database, tmp_path: Path) -> Iterator[Metering]:
    with metering_on(database, tmp_path) as made:
        yield made


def names(database: Database) -> list[tuple[Any, ...]]:
    return rows_of(database, "SELECT name, meter_key FROM meter_names ORDER BY name")


def whole(database: Database) -> tuple[str | None, str | None, str | None, bool]:
    """The one meter there is: (manufacturer, serial, DevEUI, provisional)."""
    rows = rows_of(database, "SELECT manufacturer, serial, dev_eui, provisional FROM meters")
    [(manufacturer, serial, dev_eui, provisional)] = rows
    return manufacturer, serial, dev_eui, provisional


WHOLE = ("KAM", "00000005", eui(1), False)


def test_a_meter_heard_by_lorawan_first_keeps_its_readings_under_both_names(
    service: Metering, database: Database
) -> None:
    Gateway().send(service, lorawan(1, [100, 90], at=NOON), at=NOON + MINUTE)

    import_keys(service, NAME, dev_eui=eui(1))

    assert names(database) == [(eui(1), 1), (NAME, 1)]
    assert whole(database) == WHOLE
    assert [litres for _, _, litres in readings(database)] == [90, 100]


def test_a_declared_meter_and_the_radio_it_was_heard_by_become_one_with_its_keys(
    service: Metering, database: Database
) -> None:
    import_keys(service, NAME)
    gateway = Gateway()
    gateway.send(service, lorawan(1, [100, 90], at=NOON), at=NOON + MINUTE)
    import_keys(service, NAME, key=None, dev_eui=eui(1))

    assert names(database) == [(eui(1), 2), (NAME, 2)]
    assert whole(database) == WHOLE
    heard = wmbus(5, 110, heard_at=NOON + HOUR)
    assert gateway.send(service, heard, at=NOON + HOUR + MINUTE).rejected == ()
    assert rows_of(database, "SELECT DISTINCT meter_key FROM readings") == [(2,)]


def test_two_meters_with_readings_are_not_joined(service: Metering, database: Database) -> None:
    import_keys(service, NAME)
    gateway = Gateway()
    gateway.send(service, lorawan(1, [100], at=NOON), wmbus(5, 9, heard_at=NOON), at=NOON + MINUTE)

    with pytest.raises(MeterRefused) as refused:
        import_keys(service, NAME, dev_eui=eui(1))

    assert (refused.value.code, refused.value.index) == ("dev_eui_taken", 0)
    assert [name for name, _ in names(database)] == [eui(1), NAME]


def test_a_dev_eui_of_another_serial_is_not_taken_from_it(
    service: Metering, database: Database
) -> None:
    import_keys(service, NAME, dev_eui=eui(1))
    before = names(database)
    for again in (None, str(wmbus_meter(6))):  # unknown until now; known
        if again is not None:
            import_keys(service, again)
            before = names(database)
        with pytest.raises(MeterRefused) as refused:
            import_keys(service, str(wmbus_meter(6)), dev_eui=eui(1))
        assert refused.value.code == "dev_eui_taken"
        assert NAME in str(refused.value)
    assert names(database) == before


def test_names_are_the_same_in_lower_case(service: Metering, database: Database) -> None:
    import_keys(service, NAME.lower(), dev_eui=eui(1).lower())
    Gateway().send(service, lorawan(1, [100], at=NOON), at=NOON + MINUTE)

    assert names(database) == [(eui(1), 1), (NAME, 1)]


def test_a_worker_that_knew_the_meter_before_it_was_joined_goes_on(
    service: Metering, database: Database, tmp_path: Path
) -> None:
    import_keys(service, NAME)
    gateway = Gateway()
    gateway.send(service, lorawan(1, [100], at=NOON), at=NOON + MINUTE)
    with metering_on(database, tmp_path) as other:
        import_keys(other, NAME, key=None, dev_eui=eui(1))
    heard = wmbus(5, 110, heard_at=NOON + HOUR)

    assert gateway.send(service, heard, at=NOON + HOUR + MINUTE).rejected == ()
    assert rows_of(database, "SELECT DISTINCT meter_key FROM readings") == [(2,)]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ('{"meter": "KAW-5388575"}', "meter_name_invalid"),
        ('{"meter": "KAW53885758"}', "meter_name_invalid"),
        ('{"meter": "0013EA00010203"}', "meter_name_invalid"),
        ('{"meter": "KAW-53885758", "dev_eui": "0013EA00010203"}', "dev_eui_invalid"),
        ('{"meter": "KAW-53885758", "dev_eui": "0013EA000102030G"}', "dev_eui_invalid"),
        ('{"meter": "KAW-53885758", "dev_eui": 5}', "dev_eui_invalid"),
        ('{"meter": "KAW-53885758", "key_hex": "00"}', "key_length"),
        ('{"meter": "KAW-53885758", "clock_offset_s": "-6"}', "meter_line_invalid"),
        ('{"meter": "KAW-53885758", "clock_offset_s": -999999}', "clock_offset_invalid"),
    ],
)
def test_a_line_that_is_no_meter_is_named(line: str, code: str) -> None:
    with pytest.raises(CommandFailed) as refused:
        new_meter(line, 7)

    assert refused.value.code == code
    assert str(refused.value).startswith("línea 7: ")


def test_a_meter_s_clock_is_not_set_otherwise_once_it_has_readings(
    service: Metering, database: Database
) -> None:
    Gateway().send(service, lorawan(1, [100, 90], at=NOON), at=NOON + MINUTE)
    before = readings(database)

    with pytest.raises(MeterRefused) as refused:
        import_keys(service, eui(1), key=None, clock_offset_s=CST_S + 1800)
    import_keys(service, eui(1), key=None, clock_offset_s=CST_S)  # what it was: no change

    assert refused.value.code == "offset_has_readings"
    assert readings(database) == before


def test_a_meter_s_clock_may_be_set_before_its_first_reading(
    service: Metering, database: Database
) -> None:
    import_keys(service, eui(1), key=None)
    import_keys(service, eui(1), key=None, clock_offset_s=CST_S + 1800)
    Gateway().send(service, lorawan(1, [100], at=NOON), at=NOON + MINUTE)

    assert [(at - NOON) // MINUTE for _, at, _ in readings(database)] == [-30]


def test_an_offset_is_the_meter_s_own_else_its_administration_s_else_the_country_s() -> None:
    west = Administration(code="oeste", name="Oeste", meter_clock_offset_s=-7 * 3600)

    assert clock_offset_s(0, "oeste", [west]) == 0
    assert clock_offset_s(None, "oeste", [west]) == -7 * 3600
    assert clock_offset_s(None, QUERETARO.code, [west]) == CST_S


def test_moving_to_an_administration_with_another_clock_is_a_change_of_clock(
    database: Database, tmp_path: Path
) -> None:
    west = Administration(code="oeste", name="Oeste", meter_clock_offset_s=-7 * 3600)
    with metering_on(database, tmp_path, administrations=(QUERETARO, west)) as service:
        Gateway().send(service, lorawan(1, [100], at=NOON), at=NOON + MINUTE)
        moved = NewMeter(name=eui(1), administration="oeste", key=KEY)
        with pytest.raises(MeterRefused, match="lecturas"):
            service.import_meters([moved])

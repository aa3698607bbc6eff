"""A driver is data with sources and telegrams; this holds every one to that."""

from __future__ import annotations

import json
import re
from itertools import chain
from pathlib import Path

import pytest

from decoders.drivers.driver import Driver
from decoders.drivers.registry import DRIVERS, reader_for_dev_eui_prefix, reader_for_meter
from decoders.ids import MeterId
from decoders.wmbus.records import layout_of, shape_of, shapes_of, split
from decoders.wmbus.vif import UNITS

ROOT = Path(__file__).parents[3]
NAMES_WITHOUT_UNIT = re.compile(
    r"target_date|log_time_local_standard|acoustic_noise_[1-4]|ald_last_day|module_type_config"
    "|error_code_counter"
)


def named(driver: Driver) -> str:
    return f"{driver.name}, {'LoRaWAN' if driver.dev_eui_prefixes else 'wM-Bus'}"


@pytest.mark.parametrize("driver", DRIVERS, ids=named)
def test_every_driver_has_sources_and_a_file_of_sourced_telegrams(driver: Driver) -> None:
    files = [ROOT / source for source in driver.sources if source.startswith("tests/vectors/")]

    assert len(driver.sources) > len(files) >= 1
    for file in files:
        vectors = json.loads(file.read_text())["vectors"]
        assert vectors
        assert all(vector["source"] for vector in vectors)


@pytest.mark.parametrize("driver", DRIVERS, ids=named)
def test_every_head_in_a_driver_is_one_record(driver: Driver) -> None:
    heads = chain((f.head for f in driver.fields), (i.head for i in driver.info_codes))

    for head in (driver.register, *heads):
        assert shape_of(bytes.fromhex(head)).head.hex().upper() == head


@pytest.mark.parametrize("driver", DRIVERS, ids=named)
def test_every_record_of_a_declared_layout_has_a_name(driver: Driver) -> None:
    known = {f.head for f in driver.fields} | {i.head for i in driver.info_codes}

    for layout in driver.layouts:
        for shape in shapes_of(bytes.fromhex(layout)):
            assert shape.head.hex().upper() in known or shape.meaning is not None


@pytest.mark.parametrize("driver", DRIVERS, ids=named)
def test_every_name_ends_with_its_unit(driver: Driver) -> None:
    for field in driver.fields:
        unit = field.into.rsplit("_", 1)[1]
        assert unit in UNITS or NAMES_WITHOUT_UNIT.fullmatch(field.into), field.into


def test_no_meter_has_two_drivers() -> None:
    matches = [match for driver in DRIVERS for match in driver.matches]
    prefixes = [prefix for driver in DRIVERS for prefix in driver.dev_eui_prefixes]

    assert len(set(matches)) == len(matches)
    assert len(set(prefixes)) == len(prefixes)


@pytest.mark.parametrize(
    ("manufacturer", "version", "medium", "found"),
    [
        ("KAM", 0x1B, 0x06, "kamstrup_water"),
        ("KAM", 0x1B, 0x16, "kamstrup_water"),
        ("KAM", 0x1D, 0x16, "kamstrup_water"),
        ("KAM", 0x1F, 0x16, "kamstrup_water"),
        ("KAW", 0x3A, 0x16, "kamstrup_water"),
        ("KAW", 0x3C, 0x16, "kamstrup_water"),
        ("KAW", 0x42, 0x06, "kamstrup_water"),
        ("KAW", 0x42, 0x16, "kamstrup_water"),
        ("KAM", 0x30, 0x04, None),
        ("AXI", 0x10, 0x07, "axioma_w1"),
        ("AXI", 0x1B, 0x16, None),
    ],
)
def test_a_meter_finds_its_driver(
    manufacturer: str, version: int, medium: int, found: str | None
) -> None:
    meter = MeterId(manufacturer=manufacturer, serial="1", version=version, medium=medium)

    reader = reader_for_meter(meter)

    assert (None if reader is None else reader.driver.name) == found


def test_a_device_finds_its_driver_by_its_makers_prefix() -> None:
    reader = reader_for_dev_eui_prefix(0x0013EA)

    assert reader is not None
    assert reader.driver.name == "kamstrup_water"
    assert reader_for_dev_eui_prefix(0x70B3D5) is None


def test_layouts_that_drivers_declare_read_as_they_are_written() -> None:
    for driver in DRIVERS:
        for layout in map(bytes.fromhex, driver.layouts):
            shapes = shapes_of(layout)
            encoded = b"".join(shape.head + bytes(shape.size or 0) for shape in shapes)
            assert layout_of(split(encoded, at=0)) == layout

"""All drivers, and how a telegram finds its own."""

from __future__ import annotations

from functools import lru_cache

from decoders.drivers.axioma_w1 import AXIOMA_W1
from decoders.drivers.driver import Driver, Field, InfoCode
from decoders.drivers.engelmann_faw import ENGELMANN_FAW
from decoders.drivers.kamstrup_water import KAMSTRUP_WATER, KAMSTRUP_WATER_LORAWAN
from decoders.formats import Formats
from decoders.ids import MeterId
from decoders.value import value
from decoders.wmbus.records import shape_of

DRIVERS: tuple[Driver, ...] = (
    KAMSTRUP_WATER,
    KAMSTRUP_WATER_LORAWAN,
    AXIOMA_W1,
    ENGELMANN_FAW,
)


@value
class Reader:
    """A driver with its records found by their heads, as bytes."""

    driver: Driver
    register: bytes
    fields: dict[bytes, tuple[Field, ...]]
    info_codes: dict[bytes, InfoCode]


def reader_for_meter(meter: MeterId) -> Reader | None:
    """The driver that claims a wM-Bus identity."""
    return _reader_of_type(meter.manufacturer, meter.version, meter.medium)


@lru_cache(maxsize=256)
def reader_for_dev_eui_prefix(prefix: int) -> Reader | None:
    """The driver that claims the top 24 bits of a DevEUI."""
    for driver in DRIVERS:
        if prefix in driver.dev_eui_prefixes:
            return _reader(driver)
    return None


def reader_for_lorawan_records(heads: tuple[bytes, ...]) -> Reader | None:
    """The LoRaWAN driver that names every record of a payload whose sender is not known."""
    for driver in DRIVERS:
        if driver.dev_eui_prefixes and heads:
            reader = _reader(driver)
            named = reader.fields.keys() | reader.info_codes.keys()
            if all(head in named or _is_profile(head) for head in heads):
                return reader
    return None


def known_formats() -> Formats:
    """A store that knows every compact layout that a driver declares."""
    return Formats(bytes.fromhex(layout) for driver in DRIVERS for layout in driver.layouts)


@lru_cache(maxsize=1024)
def _reader_of_type(manufacturer: str, version: int, medium: int) -> Reader | None:
    meter = MeterId(manufacturer=manufacturer, serial="", version=version, medium=medium)
    for driver in DRIVERS:
        if driver.claims(meter):
            return _reader(driver)
    return None


def _is_profile(head: bytes) -> bool:
    meaning = shape_of(head).meaning
    return meaning is not None and meaning.profile


def _reader(driver: Driver) -> Reader:
    fields: dict[bytes, tuple[Field, ...]] = {}
    for field in driver.fields:
        head = bytes.fromhex(field.head)
        fields[head] = (*fields.get(head, ()), field)
    return Reader(
        driver=driver,
        register=bytes.fromhex(driver.register),
        fields=fields,
        info_codes={bytes.fromhex(code.head): code for code in driver.info_codes},
    )

"""What a driver is: data that names the records of one meter family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal

from decoders.ids import MeterId
from decoders.reading import FieldValue
from decoders.value import value
from decoders.wmbus.data import date_of, datetime_of, decimal_of, instant_of, unsigned
from decoders.wmbus.records import Record

Read = Callable[[Record], FieldValue | None]


@value
class Match:
    """A wM-Bus identity that a driver claims, whatever the serial."""

    manufacturer: str
    version: int
    medium: int


@value
class Field:
    """A record (its head in hex) and the name its value gets. An invalid value gets none."""

    head: str
    into: str
    read: Read


@value
class InfoCode:
    """The meter's alarm word.

    head       of its record, hex
    alarms     bit → alarm name, in the order of bits
    durations  field name → lowest bit of the three that say how long
    current    field name for the alarms alone, beside `status`; None: no such field
    """

    head: str
    alarms: Mapping[int, str]
    durations: Mapping[str, int]
    current: str | None


@value
class Driver:
    """A meter family. Records that it does not name keep the standard's names.

    register  head of the cumulative volume, hex
    layouts   compact layouts its meters use, hex: record heads, concatenated
    """

    name: str
    matches: tuple[Match, ...]
    dev_eui_prefixes: tuple[int, ...]  # 24-bit manufacturer prefixes
    register: str
    fields: tuple[Field, ...]
    info_codes: tuple[InfoCode, ...]
    layouts: tuple[str, ...]
    sources: tuple[str, ...]

    def claims(self, meter: MeterId) -> bool:
        mine = Match(manufacturer=meter.manufacturer, version=meter.version, medium=meter.medium)
        return mine in self.matches


def number(record: Record) -> Decimal | None:
    """The value in the unit of its VIF."""
    return decimal_of(record)


def celsius(record: Record) -> Decimal | None:
    """A whole-degree temperature; 127 is how a dry meter says that it has none."""
    return None if record.data == b"\x7f" else decimal_of(record)


def day(record: Record) -> str | None:
    """A date as YYYY-MM-DD."""
    found = date_of(record)
    return None if found is None else found.isoformat()


def local_time(record: Record) -> str | None:
    """Date and time of the meter's clock as YYYY-MM-DDTHH:MM:SS, without a zone: it has none."""
    instant = instant_of(record)
    return None if instant is None else datetime_of(instant).strftime("%Y-%m-%dT%H:%M:%S")


def count(record: Record) -> int | None:
    """An unsigned number without a unit."""
    return unsigned(record.data)

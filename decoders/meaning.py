"""From records to what a telegram says: in a driver's names, else in the standard's."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from decoders.drivers.driver import InfoCode
from decoders.drivers.registry import Reader
from decoders.errors import Malformed
from decoders.reading import FieldValue
from decoders.value import value
from decoders.wmbus.data import (
    date_of,
    datetime_of,
    decimal_of,
    digits_of,
    instant_of,
    litres_of,
    possible,
    text_of,
    time_of,
    to_litres,
)
from decoders.wmbus.profile import read_profile, series_of
from decoders.wmbus.records import LAYER, Record

# Three bits of an info code say how long an alarm has lasted (Kamstrup's wM-Bus description).
DURATIONS = (
    "",
    "1-8 hours",
    "9-24 hours",
    "2-3 days",
    "4-7 days",
    "8-14 days",
    "15-21 days",
    "22-31 days",
)


# Seconds of each duration; a year is the Gregorian mean of 365.2425 days.
SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86_400, "y": 31_556_952}
# Bits of the transport layer's status byte (EN 13757-7, table "status field"), by their names here
_STATUS_BITS = ((0x04, "POWER_LOW"), (0x08, "PERMANENT_ERROR"), (0x10, "TEMPORARY_ERROR"))
_APPLICATION = ("", "BUSY", "ERROR", "ALARM")


@value
class Named:
    """Values by name and the alarms that are on; as in `Telegram`."""

    fields: dict[str, FieldValue]
    status: tuple[str, ...]


@value
class Measured:
    """What is stored of a telegram, whatever its values are called; as in `Telegram`."""

    info_code: int | None
    register_l: int | None
    series: tuple[tuple[int, int], ...]


NOTHING_NAMED = Named(fields={}, status=())


def named_by(records: tuple[Record, ...], reader: Reader | None) -> Named:
    """Name and convert every record: as its driver says, else as the standard does."""
    fields: dict[str, FieldValue] = {}
    status: tuple[str, ...] = ()
    for record in records:
        head = record.shape.head
        mine = () if reader is None else reader.fields.get(head, ())
        for field in mine:
            found = field.read(record)
            if found is not None:
                fields[field.into] = found
        if reader is None or not (mine or head in reader.info_codes):
            _add_standard(fields, record)
        elif head in reader.info_codes:
            word = int.from_bytes(record.data, "little")
            status = _add_alarms(fields, reader.info_codes[head], word)
    return Named(fields=fields, status=status)


def status_of(byte: int) -> tuple[str, ...]:
    """The alarms in a transport header's status byte; a maker's own bits are OTHER_<hex>.

    >>> status_of(0x14)
    ('POWER_LOW', 'TEMPORARY_ERROR')
    """
    found = [_APPLICATION[byte & 3], *(name for bit, name in _STATUS_BITS if byte & bit)]
    found.append(f"OTHER_{byte & 0xE0:X}" if byte & 0xE0 else "")
    return tuple(name for name in found if name)


def measured_by(records: tuple[Record, ...], reader: Reader | None) -> Measured:
    """Find the register, its history and the alarm word.

    Raises Malformed for a profile that contradicts itself or has no register to start from.
    """
    series = _series(records)
    if reader is None:
        return Measured(info_code=None, register_l=_register(records, series), series=series)
    info_code = register_l = None
    for record in records:
        head = record.shape.head
        if head in reader.info_codes:
            info_code = int.from_bytes(record.data, "little")
        elif head == reader.register:
            register_l = litres_of(record)
    return Measured(info_code=info_code, register_l=register_l, series=series)


def _add_alarms(fields: dict[str, FieldValue], code: InfoCode, word: int) -> tuple[str, ...]:
    """Spell out an info code; bits that nobody has named become ERROR_FLAGS_<hex>."""
    status = [name for bit, name in code.alarms.items() if word >> bit & 1]
    unnamed = word
    for bit in code.alarms:
        unnamed &= ~(1 << bit)
    for name, shift in code.durations.items():
        fields[name] = DURATIONS[word >> shift & 7]
        unnamed &= ~(7 << shift)
    if unnamed:
        status.append(f"ERROR_FLAGS_{unnamed:X}")
    fields["status"] = " ".join(status) or "OK"
    if code.current is not None:
        fields[code.current] = " ".join(status)
    return tuple(status)


def _add_standard(fields: dict[str, FieldValue], record: Record) -> None:
    """A record under the standard's own name; a second one of that name is numbered."""
    shape = record.shape
    if shape.meaning is None or shape.meaning.profile:
        return
    found = _standard_value(record)
    if found is None:
        return
    stem, unit = shape.stem, shape.unit
    name, number = shape.name, 1
    while name in fields:
        number += 1
        name = "_".join(word for word in (stem, str(number), unit) if word)
    fields[name] = found
    if unit in SECONDS and isinstance(found, Decimal):
        _add_durations(fields, name.removesuffix(f"_{unit}"), unit, found)


def _standard_value(record: Record) -> FieldValue | None:
    meaning = record.shape.meaning
    assert meaning is not None
    if meaning.unit not in ("date", "datetime"):
        number, text = decimal_of(record), text_of(record)
        if meaning.quantity == "fabrication_no" and number is not None and number >= 0:
            return f"{number:0{2 * len(record.data)}f}"  # it is printed on the meter with its zeros
        return number if text is None else text
    instant, on = instant_of(record), date_of(record)
    if instant is not None:
        return datetime_of(instant).strftime("%Y-%m-%dT%H:%M:%S")
    return time_of(record) if on is None else on.isoformat()


def _add_durations(fields: dict[str, FieldValue], stem: str, unit: str, sent: Decimal) -> None:
    """A duration in hours and years beside what was sent, rounded to 28 digits."""
    for other in ("h", "y"):
        if other != unit:
            fields[f"{stem}_{other}"] = sent * SECONDS[unit] / SECONDS[other]


def _volumes(records: Iterable[Record]) -> Iterable[Record]:
    """Total volumes as the meter counts them: no tariff, no subunit, no limit, no backward flow."""
    for record in records:
        shape, meaning = record.shape, record.shape.meaning
        if meaning is None or meaning.quantity != "volume":
            continue
        partial = shape.function or shape.tariff or shape.subunit or meaning.qualifiers
        if not partial and not meaning.profile:
            yield record


def _register(records: tuple[Record, ...], series: tuple[tuple[int, int], ...]) -> int | None:
    """The register now (storage 0), else the newest one of the series."""
    for record in _volumes(records):
        if record.shape.storage == 0:
            return litres_of(record)
    return series[0][1] if series else None


def _series(records: tuple[Record, ...]) -> tuple[tuple[int, int], ...]:
    """(instant, litres) of every volume whose instant on the meter's clock the telegram tells.

    A stored volume and the time of the same storage number make one point; an inverse compact
    profile of that storage number makes the earlier ones.
    """
    instants: dict[int, int] = {}
    profiles: list[Record] = []
    for record in records:
        meaning = record.shape.meaning
        if meaning is None:
            continue
        if meaning.quantity == "datetime" and not meaning.qualifiers:
            instant = instant_of(record)
            if instant is not None:
                instants[record.shape.storage] = instant
        elif meaning.profile and meaning.quantity == "volume":
            profiles.append(record)
    if not instants and not profiles:
        return ()
    bases = list(_volumes(records))
    for profile in profiles:
        if not any(_profiles(profile, base) for base in bases):
            raise Malformed(LAYER, profile.at, "a profile without the register it starts from")
    for base in bases:
        if base.shape.storage in instants:
            series = _told_by(base, profiles, local_us=instants[base.shape.storage])
            if series:
                return series
    return ()


def _told_by(base: Record, profiles: list[Record], *, local_us: int) -> tuple[tuple[int, int], ...]:
    """(instant, litres) of a register and of the profile that leads back from it."""
    digits, meaning = digits_of(base), base.shape.meaning
    if digits is None or meaning is None:
        return ()
    points: tuple[tuple[int, int], ...] = ((local_us, digits),)
    for profile in profiles:
        if _profiles(profile, base):
            points = series_of(read_profile(profile), base=digits, local_us=local_us)
    series = tuple((at, to_litres(raw, meaning.exponent)) for at, raw in points)
    return series if all(possible(litres) is not None for _, litres in series) else ()


def _profiles(record: Record, base: Record) -> bool:
    """Whether the inverse compact profile `record` leads back from `base`."""
    shape = record.shape
    same_unit = shape.vib[0] & 0x7F == base.shape.vib[0] & 0x7F
    return shape.storage == base.shape.storage and same_unit

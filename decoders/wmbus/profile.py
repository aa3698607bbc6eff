"""Inverse compact profiles: a register now and how it grew, newest step first.

data = LEN SC SV element…    SC: bits 7-6 increment mode, 5-4 spacing unit, 3-0 element bytes
32 one-byte increments give 33 register values: the base and 32 earlier ones. Increment mode 0 sends
the earlier registers themselves; no public telegram does so.
Source: EN 13757-3:2018, annex F.
"""

from __future__ import annotations

from datetime import timedelta

from decoders.errors import Malformed
from decoders.value import value
from decoders.wmbus.data import US_PER_SECOND, datetime_of, signed, unsigned
from decoders.wmbus.records import LAYER, Record

ABSOLUTE, INCREMENTS, DECREMENTS, SIGNED = range(4)
UNIT_SECONDS = (1, 60, 3600, 86_400)
MAX_SPACING = 250  # above are codes for months, below nothing is reserved
_MONTHS_CODE = 254
_MONTHS = {1: 6, 2: 3, 3: 1}  # spacing unit → months back, when the spacing says 254


@value
class Profile:
    """A profile's steps in raw digits of its quantity; None where the meter had no value."""

    mode: int
    unit: int
    spacing: int
    element_bytes: int
    elements: tuple[int | None, ...]


def read_profile(record: Record) -> Profile:
    """Read an inverse compact profile. Raises Malformed."""
    data = record.data
    if len(data) < 3 or data[0] >= 0xC0:
        raise Malformed(LAYER, record.at, "a profile needs its two control bytes")
    control, spacing, size = data[1], data[2], data[1] & 0x0F
    mode, unit = control >> 6, control >> 4 & 3
    if not 1 <= size <= 4 or (len(data) - 3) % size:
        raise Malformed(LAYER, record.at, f"SC {control:02X} fits no {len(data) - 3} profile bytes")
    if not 1 <= spacing <= MAX_SPACING and not (spacing == _MONTHS_CODE and unit in _MONTHS):
        raise Malformed(LAYER, record.at, f"spacing {spacing} of unit {unit} is reserved")
    read = signed if mode in (ABSOLUTE, SIGNED) else unsigned
    elements = tuple(read(data[i : i + size]) for i in range(3, len(data), size))
    return Profile(mode=mode, unit=unit, spacing=spacing, element_bytes=size, elements=elements)


def series_of(profile: Profile, *, base: int, local_us: int) -> tuple[tuple[int, int], ...]:
    """(instant, digits) of every value the profile gives, newest first, the base included.

    base      digits of the register at `local_us`
    local_us  the base's instant on the meter's clock, µs
    The first invalid step ends the series: what lies before it is not known. Of registers sent
    as such, an invalid one is merely left out.
    """
    series = [(local_us, base)]
    sign = 1 if profile.mode == DECREMENTS else -1
    for number, element in enumerate(profile.elements, start=1):
        if element is not None:
            base = element if profile.mode == ABSOLUTE else base + sign * element
            series.append((_earlier(profile, local_us, number), base))
        elif profile.mode != ABSOLUTE:
            break
    return tuple(series)


def _earlier(profile: Profile, local_us: int, steps: int) -> int:
    if profile.spacing != _MONTHS_CODE:
        seconds = UNIT_SECONDS[profile.unit] * profile.spacing * steps
        return local_us - seconds * US_PER_SECOND
    moment = datetime_of(local_us)
    months = moment.year * 12 + moment.month - 1 - _MONTHS[profile.unit] * steps
    year, month = divmod(months, 12)
    # Months end on different days: go back from the first, then forward within the month.
    last = moment.replace(year=year + (month == 11), month=(month + 1) % 12 + 1, day=1)
    last -= timedelta(days=1)
    back = last.replace(day=min(moment.day, last.day))
    return local_us - round((moment - back).total_seconds()) * US_PER_SECOND

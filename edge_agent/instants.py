"""Instants as people and servers write them, to µs since 1970 UTC.

Own parser, because `datetime.fromisoformat` of Python 3.10 takes neither "Z" nor the nine
fraction digits that ChirpStack sends.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Final

SECOND_US: Final = 1_000_000
_INSTANT: Final = re.compile(
    r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d)(?::(\d\d)(?:[.,](\d{1,12}))?)?\s*(Z|z|[+-]\d\d:?\d\d)?"
)
_FARTHEST_US: Final = 253_402_300_800 * SECOND_US  # year 10000


class BadInstant(ValueError):
    """Not an instant."""


def micros(given: object) -> int:
    """Return µs since 1970 UTC of ISO 8601 text (without a zone: UTC), or of whole µs themselves.

    >>> micros("2026-11-24T08:35:52.283429466+00:00") == micros("2026-11-24T08:35:52.283429Z")
    True
    """
    if isinstance(given, int) and not isinstance(given, bool):
        if not 0 <= given < _FARTHEST_US:
            raise BadInstant(f"{given} µs is before 1970 or after 9999")
        return given
    if not isinstance(given, str):
        raise BadInstant(f"ISO 8601 text or µs since 1970 is expected, got {given!r:.40}")
    parts = _INSTANT.fullmatch(given)
    if parts is None:
        raise BadInstant(f"ISO 8601 is expected, got {given[:40]!r}")
    minute, second, fraction, zone = parts.groups()
    return (
        _minute_us(minute)
        - _zone_us(zone or "Z")
        + int(second or 0) * SECOND_US
        + int((fraction or "0").ljust(6, "0")[:6])
    )


def iso(at: int) -> str:
    """Write µs since 1970 UTC for people.

    >>> iso(1_500_000)
    '1970-01-01T00:00:01Z'
    """
    moment = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=at // SECOND_US)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


@lru_cache(maxsize=256)
def _minute_us(minute: str) -> int:
    try:
        at = datetime.strptime(minute.replace(" ", "T") + "+0000", "%Y-%m-%dT%H:%M%z")
    except ValueError:
        raise BadInstant(f"no such minute: {minute}") from None
    return int(at.timestamp()) * SECOND_US


@lru_cache(maxsize=64)
def _zone_us(zone: str) -> int:
    if zone in {"Z", "z"}:
        return 0
    sign = -1 if zone[0] == "-" else 1
    return sign * (int(zone[1:3]) * 3600 + int(zone[-2:]) * 60) * SECOND_US

"""The last week of a meter, hour by hour, in 168 bytes; and where its flow stands still. Pure.

One byte holds the rate of the native interval that ended in an hour: whole litres an hour up to
200, above that in steps of 6 %, rounded down. Nothing is interpolated: the hours that a longer
interval covers are unknown, unless the register stood still over all of it.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

from edge_agent.leaks_limits import HOUR_US

HOURS: Final = 168
UNKNOWN: Final = 255
NOTHING_KNOWN: Final = bytes([UNKNOWN]) * HOURS
DAY_H: Final = 24

_EXACT: Final = 200
_STEP: Final = 1.06


def _rates() -> tuple[int, ...]:
    rates = list(range(_EXACT + 1))
    while len(rates) < UNKNOWN:
        rates.append(int(rates[-1] * _STEP) + 1)
    return tuple(rates)


RATES: Final = _rates()  # code → l/h; the last one stands for all that is faster

# A flow stands still where it comes back to the same rate: within 2 l/h (a litre of resolution at
# both ends of an interval) or 15 % (the pressure of day and night: N1 = 0.5, ± 30 % of pressure).
STANDS_L: Final = 2
STANDS_SHARE: Final = 0.15
PASSED_OVER: Final = 3  # lower values before the floor: use that ended, a meter's slip


def code_of(litres: int, lasted_us: int) -> int:
    """Return the code of `litres` in an interval of `lasted_us`: its rate rounded to 1 l/h."""
    rate_lph = (litres * HOUR_US + lasted_us // 2) // lasted_us
    if rate_lph <= _EXACT:
        return int(rate_lph)
    return bisect_right(RATES, rate_lph) - 1


def code_of_rate(lph: float) -> int:
    """Return the least code that stands for `lph` or more."""
    code = bisect_right(RATES, lph) - 1
    return code if RATES[code] >= lph else min(code + 1, UNKNOWN - 1)


def advanced(hours: bytes, by: int, code: int, *, stood_still: bool) -> bytes:
    """Return `hours`, oldest first, `by` hours later, the newest of them at `code`."""
    between = bytes([0 if stood_still else UNKNOWN]) * min(by - 1, HOURS - 1)
    return (hours + between + bytes([code]))[-HOURS:]


def floor_of(codes: Sequence[int], standing: int) -> int | None:
    """Return the rate at which `standing` of these hours stand still, l/h; None: they do not.

    A floor may have up to PASSED_OVER lower hours below it. The answer is the middle of it.

    >>> floor_of([12, 9, 11, 10, 240, 10, 180, 10], 5)
    10
    >>> floor_of([4, 9, 15, 23, 31, 50, 77, 120], 5) is None
    True
    """
    known = sorted([code for code in codes if code != UNKNOWN])
    for first in range(min(PASSED_OVER + 1, len(known) - standing + 1)):
        low = RATES[known[first]]
        high = RATES[known[first + standing - 1]]
        if high - low <= max(STANDS_L, low * STANDS_SHARE):
            return RATES[known[first + standing // 2]]
    return None


def marks_from(code: int) -> bytes:
    """Return the table for `bytes.translate` that marks hours known to reach `code` as 1."""
    return bytes([49 if code <= c < UNKNOWN else 48 for c in range(256)])


def runs(marked: bytes, least: int) -> list[tuple[int, int]]:
    """Return the runs of at least `least` marked hours as half-open places."""
    return [found.span() for found in re.finditer(b"1{%d,}" % least, marked)]

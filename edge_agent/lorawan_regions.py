"""Data rate and channel indices, which the uplink integrity code of LoRaWAN 1.1 covers. Pure.

A packet forwarder says frequency, spreading factor and bandwidth; the index of each is the
region's. Where channels are not numbered by frequency (EU868 and its kin get theirs by MAC
commands), every index of the first sixteen channels is possible.
Source: LoRaWAN Regional Parameters RP002-1.0.4, 2.4 (EU868), 2.5 (US915), 2.8 (AU915).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

MOST_CHANNELS: Final = 16
STEP_125_HZ: Final = 200_000
STEP_500_HZ: Final = 1_600_000
NARROW: Final = 64  # channels of 125 kHz, before those of 500 kHz
WIDE: Final = 8


def _rates(**factors: int) -> Mapping[str, int]:
    return factors


US915_RATES: Final = _rates(SF10BW125=0, SF9BW125=1, SF8BW125=2, SF7BW125=3, SF8BW500=4)
AU915_RATES: Final = {f"SF{12 - rate}BW125": rate for rate in range(6)} | {"SF8BW500": 6}
EU868_RATES: Final = {f"SF{12 - rate}BW125": rate for rate in range(6)} | {"SF7BW250": 6, "": 7}


def radios(region: str, *, datr: str, freq_hz: int) -> tuple[tuple[int, int], ...]:
    """Return the (data rate index, channel index) that a transmission may have had; none: unknown.

    >>> radios("us915", datr="SF7BW125", freq_hz=904_500_000)
    ((3, 11),)
    """
    return REGIONS[region](datr, freq_hz)


def _us915(datr: str, freq_hz: int) -> tuple[tuple[int, int], ...]:
    return _fixed(US915_RATES, datr, freq_hz, narrow_hz=902_300_000, wide_hz=903_000_000)


def _au915(datr: str, freq_hz: int) -> tuple[tuple[int, int], ...]:
    return _fixed(AU915_RATES, datr, freq_hz, narrow_hz=915_200_000, wide_hz=915_900_000)


def _eu868(datr: str, _freq_hz: int) -> tuple[tuple[int, int], ...]:
    rate = EU868_RATES.get(datr)
    return () if rate is None else tuple((rate, channel) for channel in range(MOST_CHANNELS))


def _fixed(
    rates: Mapping[str, int], datr: str, freq_hz: int, *, narrow_hz: int, wide_hz: int
) -> tuple[tuple[int, int], ...]:
    rate = rates.get(datr)
    if rate is None:
        return ()
    is_wide = datr.endswith("BW500")
    first_hz, step_hz, count = (
        (wide_hz, STEP_500_HZ, WIDE) if is_wide else (narrow_hz, STEP_125_HZ, NARROW)
    )
    channel = round((freq_hz - first_hz) / step_hz)
    if not 0 <= channel < count:
        return ()
    return ((rate, channel + NARROW if is_wide else channel),)


REGIONS: Final[Mapping[str, Callable[[str, int], tuple[tuple[int, int], ...]]]] = {
    "us915": _us915,
    "au915": _au915,
    "eu868": _eu868,
}

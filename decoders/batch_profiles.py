"""Hourly LoRaWAN profiles by the thousand: one numpy sweep for all payloads of one layout.

A payload is swept when it is, byte for byte,

    78 | 7A ACC STS CFG(2)    transport header, security mode 0
    44 6D  type F             the newest instant, on the meter's own clock
    44 13  int32              litres then
    4D 93 13  LEN SC SV …     how they grew: elements of one or two bytes
    2F …                      fill

with nothing invalid in it. Anything else is left for the decoder that takes one at a time and
knows every case, so the answers are the same by construction.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from decoders.value import value
from decoders.wmbus.profile import DECREMENTS, MAX_SPACING, SIGNED, UNIT_SECONDS

Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]
Int64s = npt.NDArray[np.int64]
_HEADER_BYTES = {0x78: 1, 0x7A: 5}
_BASE_BYTES = 16  # the three heads, the date, the litres, LEN
_FILL = 0x2F
_INVALID_LITRES = -(1 << 31)
_US_PER_DAY, _US_PER_MINUTE, _US_PER_SECOND = 86_400_000_000, 60_000_000, 1_000_000


@value
class Swept:
    """Frames of one layout: (frames,) indices, (frames, values) µs of the meter's clock, litres."""

    frames: Int64s
    local_at: Int64s
    litres: Int64s


def sweep(payload: Bytes, *, start: Int64s, length: Int64s, frames: Int64s) -> Iterator[Swept]:
    """Decode those of `frames` that are plain profiles; the others are in no result.

    payload        all payloads of a batch, one after another
    start, length  of each frame's payload in it
    """
    if not len(frames):
        return
    for size in np.unique(length[frames]).tolist():
        of_size = frames[length[frames] == size]
        if size <= 1 + _BASE_BYTES + 2:
            continue
        sent = payload[start[of_size][:, None] + np.arange(size)]
        for ci, header in _HEADER_BYTES.items():
            mine = sent[:, 0] == ci
            if ci == 0x7A:
                mine &= (sent[:, 4] & 0x1F) == 0
            if mine.any():
                yield from _of_header(of_size[mine], sent[mine, header:])


def _of_header(frames: Int64s, sent: Bytes) -> Iterator[Swept]:
    """Split by (LEN, SC, SV). `sent` starts at the first record."""
    if sent.shape[1] <= _BASE_BYTES + 2:
        return
    heads = (
        (sent[:, 0] == 0x44)
        & (sent[:, 1] == 0x6D)
        & (sent[:, 6] == 0x44)
        & (sent[:, 7] == 0x13)
        & (sent[:, 12] == 0x4D)
        & (sent[:, 13] == 0x93)
        & (sent[:, 14] == 0x13)
    )
    shape = (sent[:, 15:18].astype(np.int64) * (1 << 16, 1 << 8, 1)).sum(axis=1)
    for code in np.unique(shape[heads]).tolist():
        mine = heads & (shape == code)
        swept = _of_shape(frames[mine], sent[mine], code >> 16, code >> 8 & 0xFF, code & 0xFF)
        if swept is not None:
            yield swept


def _of_shape(frames: Int64s, sent: Bytes, room: int, control: int, spacing: int) -> Swept | None:
    """Decode profiles that share LEN, SC and SV; None when that is no plain profile."""
    mode, unit, width = control >> 6, control >> 4 & 3, control & 0x0F
    end = _BASE_BYTES + room
    plain = room < 0xC0 and mode and width in (1, 2) and 1 <= spacing <= MAX_SPACING
    if not plain or end > sent.shape[1] or (room - 2) % width or room <= 2:
        return None
    elements = np.ascontiguousarray(sent[:, _BASE_BYTES + 2 : end])
    kind = "<" + ("i" if mode == SIGNED else "u") + str(width)
    steps = elements.view(kind).astype(np.int64)
    invalid = -(1 << 8 * width - 1) if mode == SIGNED else (1 << 8 * width) - 1
    base = np.ascontiguousarray(sent[:, 8:12]).view("<i4")[:, 0].astype(np.int64)
    local_at, dated = _instants(sent[:, 2:6].astype(np.int64))
    good = dated & (base != _INVALID_LITRES)
    good &= (steps != invalid).all(axis=1) & (sent[:, end:] == _FILL).all(axis=1)
    if not good.all():
        frames, steps, base, local_at = frames[good], steps[good], base[good], local_at[good]
    if mode != DECREMENTS:
        np.negative(steps, out=steps)
    litres = np.empty((len(frames), steps.shape[1] + 1), np.int64)
    litres[:, 0] = base
    np.cumsum(steps, axis=1, out=litres[:, 1:])
    litres[:, 1:] += base[:, None]
    step_us = UNIT_SECONDS[unit] * spacing * _US_PER_SECOND
    back = np.arange(litres.shape[1], dtype=np.int64) * step_us
    return Swept(frames=frames, local_at=local_at[:, None] - back, litres=litres)


def _instants(sent: Int64s) -> tuple[Int64s, Bools]:
    """Type F dates (frames, 4) as µs, and which of them are dates of a century they name."""
    minute, hour = sent[:, 0] & 0x3F, sent[:, 1] & 0x1F
    day, month = sent[:, 2] & 0x1F, sent[:, 3] & 0x0F
    century = sent[:, 1] >> 5 & 3
    year = 1900 + 100 * century + (sent[:, 2] >> 5 | sent[:, 3] >> 4 << 3)
    good = ((sent[:, 0] & 0x80) == 0) & (century > 0) & (minute < 60) & (hour < 24)
    good &= (day >= 1) & (month >= 1) & (month <= 12)
    months = (year - 1970) * 12 + month - 1
    first = _days_before(months)
    good &= first + day <= _days_before(months + 1)
    minutes = hour * 60 + minute
    return (first + day - 1) * _US_PER_DAY + minutes * _US_PER_MINUTE, good


def _days_before(months: Int64s) -> Int64s:
    """Days from 1970 to the start of a month counted from January 1970."""
    days: Int64s = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    return days

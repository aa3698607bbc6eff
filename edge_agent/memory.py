"""What is remembered of one meter between its frames, and how a restart gets it back. Pure.

A gateway hears thousands of meters with little memory of its own, so each one's is kept as the
bytes of its checkpoint, a sixth of what the same takes as objects.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, MutableMapping
from dataclasses import replace
from typing import Final

from decoders.value import value
from edge_agent import leaks


@value
class Meter:
    """What is remembered of one meter. Hours and days are numbered as in `cloud_clock`.

    extremes   of the day: (place in `reduction.EXTREME_FIELDS`, least, most)
    """

    hour: int = -1  # of the newest stored telegram with a register
    bare_hour: int = -1  # … and without one
    info_code: int = -1
    counter: int = 0  # LoRaWAN: of the uplink that fed the rules last
    session: int = 0
    day: int = -1
    extremes: tuple[tuple[int, float, float], ...] = ()
    extreme_rows: int = 0
    flow: leaks.Flow | None = None


NEW_METER: Final = Meter()
NEVER_LATE: Final = leaks.NEVER_LATE


class Meters(MutableMapping[str, Meter]):
    """The memory of all meters by natural id, oldest first; a meter comes out as it went in."""

    def __init__(self) -> None:
        self._packed: dict[str, bytes] = {}

    def __getitem__(self, name: str) -> Meter:
        meter = unpack(self._packed[name])
        assert meter is not None
        return meter

    def __setitem__(self, name: str, meter: Meter) -> None:
        self._packed[name] = pack(meter)

    def __delitem__(self, name: str) -> None:
        del self._packed[name]

    def __contains__(self, name: object) -> bool:
        return name in self._packed

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)

    def packed(self, name: str) -> bytes:
        """Return a meter's checkpoint. Raises KeyError."""
        return self._packed[name]


def with_flow(meter: Meter, flow: leaks.Flow) -> Meter:
    """Return `meter` with what the leak rules remember now."""
    return replace(meter, flow=flow)


# version, hour, bare_hour, info_code, counter, session, day, extreme_rows, how many extremes;
# then the extremes, then the flow
_MEMORY: Final = struct.Struct("<BqqqIIqBB")
_EXTREME: Final = struct.Struct("<Bdd")
_MEMORY_1: Final = struct.Struct("<BqqqII")  # of version 1, which forgot the day's extremes
_MEMORY_VERSION: Final = 2


def pack(meter: Meter) -> bytes:
    """Return what is remembered of a meter as bytes for a checkpoint."""
    head = _MEMORY.pack(
        *(_MEMORY_VERSION, meter.hour, meter.bare_hour, meter.info_code),
        *(meter.counter, meter.session, meter.day, meter.extreme_rows, len(meter.extremes)),
    )
    extremes = b"".join([_EXTREME.pack(*extreme) for extreme in meter.extremes])
    return head + extremes + (leaks.pack(meter.flow) if meter.flow is not None else b"")


def last_at(packed: bytes) -> int:
    """Return the instant of the newest register of what `pack` wrote, µs; NEVER_LATE without one.

    Read in place: it is asked of every meter each hour.
    """
    if len(packed) < _MEMORY.size or packed[0] != _MEMORY_VERSION:
        return NEVER_LATE
    return leaks.last_at(packed, _MEMORY.size + packed[_MEMORY.size - 1] * _EXTREME.size)


def unpack(packed: bytes) -> Meter | None:
    """Read what `pack` wrote, in this version or an earlier one; None where another did."""
    if len(packed) >= _MEMORY_1.size and packed[0] == 1:
        _, hour, bare_hour, info_code, counter, session = _MEMORY_1.unpack_from(packed)
        day, extreme_rows, extremes_end = -1, 0, _MEMORY_1.size
        extremes: tuple[tuple[int, float, float], ...] = ()
    elif len(packed) >= _MEMORY.size and packed[0] == _MEMORY_VERSION:
        _, hour, bare_hour, info_code, counter, session, *rest = _MEMORY.unpack_from(packed)
        day, extreme_rows, count = rest
        extremes_end = _MEMORY.size + count * _EXTREME.size
        if len(packed) < extremes_end:
            return None
        extremes = tuple(_EXTREME.iter_unpack(packed[_MEMORY.size : extremes_end]))
    else:
        return None
    return Meter(
        hour=hour,
        bare_hour=bare_hour,
        info_code=info_code,
        counter=counter,
        session=session,
        day=day,
        extremes=extremes,
        extreme_rows=extreme_rows,
        flow=leaks.unpack(packed[extremes_end:]),
    )

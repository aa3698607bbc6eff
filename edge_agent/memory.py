"""What is remembered of one meter between its frames, and how a restart gets it back. Pure."""

from __future__ import annotations

import struct
from typing import Final

from decoders.value import value
from edge_agent import leaks


@value
class Meter:
    """What is remembered of one meter. Hours and days are numbered as in `cloud_clock`."""

    hour: int = -1  # of the newest stored telegram with a register
    bare_hour: int = -1  # … and without one
    info_code: int = -1
    counter: int = 0  # LoRaWAN: of the uplink that fed the rules last
    session: int = 0
    day: int = -1
    extremes: tuple[tuple[float, float] | None, ...] = ()
    extreme_rows: int = 0
    flow: leaks.Flow | None = None


NEW_METER: Final = Meter()


def with_flow(meter: Meter, flow: leaks.Flow) -> Meter:
    """Return `meter` with what the leak rules remember now."""
    return Meter(
        hour=meter.hour,
        bare_hour=meter.bare_hour,
        info_code=meter.info_code,
        counter=meter.counter,
        session=meter.session,
        day=meter.day,
        extremes=meter.extremes,
        extreme_rows=meter.extreme_rows,
        flow=flow,
    )


_MEMORY: Final = struct.Struct("<BqqqII")
_MEMORY_VERSION: Final = 1


def pack(meter: Meter) -> bytes:
    """Return what a restart must not forget of a meter. The day's extremes may start afresh."""
    head = _MEMORY.pack(
        *(_MEMORY_VERSION, meter.hour, meter.bare_hour, meter.info_code),
        *(meter.counter, meter.session),
    )
    return head + (leaks.pack(meter.flow) if meter.flow is not None else b"")


def unpack(packed: bytes) -> Meter | None:
    """Read what `pack` wrote; None where another version did."""
    if len(packed) < _MEMORY.size or packed[0] != _MEMORY_VERSION:
        return None
    _, hour, bare_hour, info_code, counter, session = _MEMORY.unpack_from(packed)
    return Meter(
        hour=hour,
        bare_hour=bare_hour,
        info_code=info_code,
        counter=counter,
        session=session,
        flow=leaks.unpack(packed[_MEMORY.size :]),
    )

"""Caps on rows that say little each: so many of one code an hour, the rest counted and reported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import cbor2

from decoders.uplink import RowKind
from edge_agent import reports
from edge_agent.leaks import HOUR_US
from edge_agent.outbox import Draft

ROWS_PER_HOUR: Final = 60  # of each code; there are about a dozen codes


def report(said: Mapping[str, object], *, at: int) -> Draft:
    """Return a report row: what the gateway has to say about itself; too much of it is cut."""
    return Draft(heard_at=at, kind=RowKind.REPORT, payload=reports.packed(said))


@dataclass
class Cap:
    """How many rows of one code this hour took, and what it held back."""

    hour: int
    stored: int = 0
    suppressed: int = 0
    from_at: int = 0
    to_at: int = 0


@dataclass
class Caps:
    """The caps of all codes. Hours are numbered since 1970 by the gateway's clock."""

    of: dict[str, Cap] = field(default_factory=dict)

    def passed(self, code: str, row: Draft, now: int) -> tuple[Draft, ...]:
        """Return `row` if its code may have it, and before it what an earlier hour held back."""
        cap, reports = self._cap(code, now)
        if cap.stored < ROWS_PER_HOUR:
            cap.stored += 1
            return (*reports, row)
        _count(cap, row.heard_at)
        return reports

    def hold_back(self, code: str, heard_at: int, now: int) -> tuple[Draft, ...]:
        """Count a row that is not wanted; return what an earlier hour held back."""
        cap, reports = self._cap(code, now)
        _count(cap, heard_at)
        return reports

    def reports(self, now: int) -> tuple[Draft, ...]:
        """Return what the hours before this one held back, once."""
        said: list[Draft] = []
        for code, cap in list(self.of.items()):
            if cap.hour != now // HOUR_US:
                said += _suppressed(code, cap, now)
                del self.of[code]
        return tuple(said)

    def pending(self, now: int) -> tuple[Draft, ...]:
        """Return what is held back and not reported yet; the hours' shares stay used up."""
        said: list[Draft] = []
        for code, cap in self.of.items():
            said += _suppressed(code, cap, now)
            cap.suppressed = 0
        return tuple(said)

    def _cap(self, code: str, now: int) -> tuple[Cap, tuple[Draft, ...]]:
        cap = self.of.get(code)
        reports: tuple[Draft, ...] = ()
        if cap is None or cap.hour != now // HOUR_US:
            reports = _suppressed(code, cap, now) if cap is not None else ()
            cap = self.of[code] = Cap(hour=now // HOUR_US)
        return cap, reports


def _count(cap: Cap, heard_at: int) -> None:
    cap.from_at = min(cap.from_at, heard_at) if cap.suppressed else heard_at
    cap.to_at = max(cap.to_at, heard_at) if cap.suppressed else heard_at
    cap.suppressed += 1


def _suppressed(code: str, cap: Cap, now: int) -> tuple[Draft, ...]:
    if not cap.suppressed:
        return ()
    said = {
        "kind": "suppressed",
        "code": code,
        "count": cap.suppressed,
        "from_at": cap.from_at,
        "to_at": cap.to_at,
    }
    return (report(said, at=now),)


def pack(caps: Caps) -> bytes:
    """Return the caps as CBOR for a checkpoint: what was held back must not vanish unreported."""
    of = caps.of.items()
    return cbor2.dumps(
        {code: [c.hour, c.stored, c.suppressed, c.from_at, c.to_at] for code, c in of}
    )


def unpack(packed: bytes) -> Caps:
    """Read what `pack` wrote; empty where something else did."""
    try:
        given = cbor2.loads(packed)
        return Caps(of={code: Cap(*map(int, figures)) for code, figures in given.items()})
    except (cbor2.CBORDecodeError, AttributeError, TypeError, ValueError):
        return Caps()

"""What a gateway's outbox does not hold any more, row by row and by kind: from message to losses.

One message may have a thousand small gaps, since a full outbox gives up the less important rows
first. All of one kind become one loss, with every row number in it. Pure.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from cloud.metering.model import Loss
from decoders.uplink import Gap, LossKind


class Declared:
    """The gaps of one message, to be looked up by row."""

    def __init__(self, gaps: Sequence[Gap]) -> None:
        """`gaps` rise, as the codec sees to."""
        self._gaps = gaps
        self._firsts = [gap.first for gap in gaps]
        self._found: dict[LossKind, Found] = {}

    def gap_with(self, seq: int) -> Gap | None:
        """Return the gap that row `seq` lies in, None where it lies in none."""
        place = bisect_right(self._firsts, seq) - 1
        gap = self._gaps[place] if place >= 0 else None
        return gap if gap is not None and seq <= gap.last else None

    def pass_over(self, gap: Gap, first: int, last: int) -> None:
        """Take rows first … last of a gap for lost. Calls come in rising order."""
        self._found.setdefault(gap.kind, Found(gap.from_at, gap.to_at)).add(gap, first, last)

    def losses(self, stream: bytes) -> list[Loss]:
        """Return what was passed over, one loss for each kind."""
        return [
            Loss(
                stream=stream,
                first_seq=found.runs[0][0],
                last_seq=found.runs[-1][1],
                reason="declared",
                certain=True,
                from_at=found.from_at,
                to_at=found.to_at,
                kind=kind.name.lower(),
                runs=tuple(found.runs),
            )
            for kind, found in self._found.items()
        ]


@dataclass
class Found:
    """Rows of one kind. Bounds in µs, the gateway's clock."""

    from_at: int
    to_at: int
    runs: list[tuple[int, int]] = field(default_factory=list)

    def add(self, gap: Gap, first: int, last: int) -> None:
        self.from_at, self.to_at = min(self.from_at, gap.from_at), max(self.to_at, gap.to_at)
        if self.runs and self.runs[-1][1] + 1 == first:
            self.runs[-1] = self.runs[-1][0], last
        else:
            self.runs.append((first, last))

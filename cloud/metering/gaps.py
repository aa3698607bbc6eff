"""What a gateway's outbox does not hold any more, row by row and by kind: from message to losses.

One message may have a thousand small gaps, since a full outbox gives up the less important rows
first. All of one kind become one loss, with every row number in it. Pure.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from cloud.metering.model import Loss
from decoders.uplink import Gap, LossKind, Lost


class Declared:
    """What one message declares lost, to be looked up by row."""

    def __init__(self, gaps: Sequence[Gap], lost: Sequence[Lost], *, upto: int) -> None:
        """Take exact gaps, which rise, as the codec sees to, and ranges, which need not.

        upto   nothing behind this row is believed
        """
        self._gaps = gaps
        self._firsts = [gap.first for gap in gaps]
        self._ranges = sorted(lost, key=lambda one: one.first)
        self._upto = upto
        self._found: dict[LossKind, Found] = {}
        self._of_ranges: list[tuple[int, int, Lost]] = []

    def passed_over(self, seq: int, most: int) -> int | None:
        """Take row `seq` and those behind it, up to `most`, for lost, as far as one gap or range
        says so; return the last of them, None where nothing is said of it. Calls come in rising
        order.
        """
        if seq > self._upto:
            return None
        exact = self._gap_with(seq)
        gap = exact or next((one for one in self._ranges if one.first <= seq <= one.last), None)
        if gap is None:
            return None
        last = min(gap.last, most, self._upto)
        if isinstance(gap, Lost):
            self._of_ranges.append((seq, last, gap))
        else:
            self._found.setdefault(gap.kind, Found(gap.from_at, gap.to_at)).add(gap, seq, last)
        return last

    def _gap_with(self, seq: int) -> Gap | None:
        place = bisect_right(self._firsts, seq) - 1
        gap = self._gaps[place] if place >= 0 else None
        return gap if gap is not None and seq <= gap.last else None

    def losses(self, stream: bytes) -> list[Loss]:
        """Return what was passed over: one loss for each range, and one for each kind of gaps."""
        return [
            Loss(
                stream=stream,
                first_seq=first,
                last_seq=last,
                reason="declared",
                certain=True,
                from_at=gap.from_at,
                to_at=gap.to_at,
            )
            for first, last, gap in self._of_ranges
        ] + [
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

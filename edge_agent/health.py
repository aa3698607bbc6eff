"""What the agent says of itself beside its own counts: the board, its sources and their rates.

The same figures go to the cloud with every message, to the log once a minute, and to the local
page. Names end in their unit; what is not known is absent.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Protocol

from decoders.value import value
from edge_agent import core
from edge_agent.board import resident_kib
from edge_agent.outbox import Outbox
from edge_agent.sources.port import Source

EACH_S: Final = 10.0  # the board is looked at, and the sources are counted, no more often
WINDOW_S: Final = 300.0  # a rate is that of the last five minutes
HOUR_S: Final = 3600.0
# Of the counts of what was heard: a message takes 60 figures, and the cloud adds `heard` up.
FIRST_FIGURES: Final = frozenset(("heard", "stored", "repeats"))
SOURCE_FIGURES: Final = ("up", "heard", "bad", "deaths")  # of many sources the last ones go first
LOGGED_EACH_S: Final = 60.0
WATCHED_EACH_S: Final = 1.0

Log = Callable[..., None]

Figures = Mapping[str, int]


class Measured(Protocol):
    """`board.Board`, or what a test puts in its place."""

    def figures(self) -> dict[str, int]: ...


class Nothing:
    """A board that says nothing."""

    def figures(self) -> dict[str, int]:
        return {}


@value
class SourceState:
    """One source. `per_hour`: frames heard in the last five minutes, as a rate; None at first."""

    name: str
    is_up: bool
    heard: int
    bad: int
    deaths: int
    per_hour: int | None


@value
class Status:
    """All that the local page shows. `figures` as in the message to the cloud."""

    at: int  # µs since 1970 UTC, the gateway's clock
    clock_ahead_us: int | None  # of the cloud's, where acks told
    connected: bool
    figures: Figures
    sources: tuple[SourceState, ...]


class Health:
    """Looks at the board and the sources now and then, and remembers when the last ack came."""

    def __init__(
        self,
        sources: Sequence[Source] = (),
        board: Measured | None = None,
        watcher: Callable[[Status], None] | None = None,
        settings: Figures = MappingProxyType({}),
    ) -> None:
        """`watcher`: handed the agent's status about once a second; the local page.

        `settings`: figures that hold as long as the process, such as the room an outbox may take
        """
        self._settings = dict(settings)
        self._board = board or Nothing()
        self._watcher = watcher
        self._watched_s = self._logged_s = float("-inf")
        self._sources = sources
        self._looked_s = float("-inf")
        self._seen: dict[str, int] = {}
        self._details: dict[str, int] = {}  # what a source counts besides: why inputs were bad, …
        self._acked_s: float | None = None
        self._counts: deque[tuple[float, dict[str, int]]] = deque()
        self.sources: tuple[SourceState, ...] = ()

    def acked(self, now_s: float) -> None:
        """The cloud answered."""
        self._acked_s = now_s

    def of(
        self, state: core.State, outbox: Outbox, *, committed: int, inbox: int
    ) -> dict[str, int]:
        """Return all figures of an agent, the most important ones first.

        source_committed   inputs of all sources on disk (or known not to need it), this process
        """
        lost, own = outbox.lost.items(), state.reduction.figures
        return {
            "source_committed": committed,
            "outbox_rows": outbox.held,
            "outbox_bytes": outbox.size,
            **self._settings,
            "outbox_pending": outbox.pending,
            "inbox": inbox,
            "meters": len(state.reduction.meters),
            "layouts": len(state.reduction.layouts.formats),
            "credit": state.link.credit,
            "resident_kib": resident_kib(),
            **{f"outbox_lost_{kind}": rows for kind, rows in lost if rows},
            **{n: f for n, f in own.items() if n in FIRST_FIGURES},
            **self.figures(time.monotonic()),
            **own,
            **self._details,
        }

    def tell(
        self, state: core.State, figures: Callable[[], dict[str, int]], *, at: int, log: Log
    ) -> None:
        """Hand the figures to the log and to who watches, each when its time has come."""
        now_s = time.monotonic()
        if now_s - self._logged_s >= LOGGED_EACH_S:
            self._logged_s = now_s
            log("health", **figures())
        if self._watcher is not None and now_s - self._watched_s >= WATCHED_EACH_S:
            self._watched_s = now_s
            best = state.reduction.clock.best
            status = Status(
                at=at,
                clock_ahead_us=None if best is None else best.ahead_us,
                connected=state.link.connected,
                figures=figures(),
                sources=self.sources,
            )
            self._watcher(status)

    def figures(self, now_s: float) -> dict[str, int]:
        """Return the newest ack's age, the sources' rates and counts, and the board's figures."""
        if now_s - self._looked_s >= EACH_S:
            self._looked_s = now_s
            self._look(now_s)
        if self._acked_s is None:
            return dict(self._seen)
        return {"last_ack_age_s": int(now_s - self._acked_s), **self._seen}

    def _look(self, now_s: float) -> None:
        counted: dict[str, int] = {}
        for source in self._sources:
            figures: Callable[[], Figures] | None = getattr(source, "figures", None)
            counted |= figures() if figures is not None else {}
        while self._counts and now_s - self._counts[0][0] > WINDOW_S:
            self._counts.popleft()
        self._counts.append((now_s, counted))
        self.sources = tuple(self._state(source.name, counted) for source in self._sources)
        rates = {
            f"source_{state.name}_per_hour": state.per_hour
            for state in self.sources
            if state.per_hour is not None
        }
        first = {
            figure: counted[figure]
            for what in SOURCE_FIGURES
            for source in self._sources
            if (figure := f"source_{source.name}_{what}") in counted
        }
        self._seen = {**rates, **self._board.figures(), **first}
        self._details = {name: count for name, count in counted.items() if name not in first}

    def _state(self, name: str, counted: Figures) -> SourceState:
        def count(what: str, of: Figures = counted) -> int:
            return of.get(f"source_{name}_{what}", 0)

        since_s, then = self._counts[0]
        now_s, _ = self._counts[-1]
        past_s = now_s - since_s
        more = count("heard") - count("heard", then)
        return SourceState(
            name=name,
            is_up=bool(count("up")),
            heard=count("heard"),
            bad=count("bad"),
            deaths=count("deaths"),
            per_hour=round(more * HOUR_S / past_s) if past_s > 0 else None,
        )

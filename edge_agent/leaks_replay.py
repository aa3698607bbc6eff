"""Register series out of files, through the streaming rules, as the agent would have heard them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Final

from decoders.value import value
from edge_agent import leaks, leaks_status, npz
from edge_agent.leaks_limits import DEFAULT_LIMITS, Limits

NEEDED: Final = frozenset({"offset", "t_local_epoch_s", "register_l"})
SECOND_US: Final = 1_000_000
LONGEST_REPEAT_S: Final = 2 * 3600  # summer time gives one hour twice; more is another order


class NoSeries(ValueError):
    """A file that holds no register series; says why."""


@value
class Series:
    """The reads of one meter: seconds of the file's own epoch, and litres."""

    at_s: Sequence[int]
    register_l: Sequence[int]


@value
class Alert:
    """A notification that would have been sent. `at`: in the file's epoch, seconds."""

    file: str
    series: int
    at: int
    rule: str
    l_per_h: int


def read_series(path: Path) -> tuple[Series, ...]:
    """Return the series of a file. Raises NoSeries."""
    try:
        missing = sorted(NEEDED - npz.names(path))
        if missing:
            raise NoSeries(f"{path.name}: no array {', '.join(missing)}")
        offset = npz.whole_numbers(path, "offset")
        at_s = npz.whole_numbers(path, "t_local_epoch_s")
        register_l = npz.whole_numbers(path, "register_l")
    except npz.ArrayUnreadable as error:
        raise NoSeries(str(error)) from None
    bounds = list(offset)
    if len(at_s) != len(register_l) or bounds != sorted(bounds):
        raise NoSeries(f"{path.name}: offset, t_local_epoch_s and register_l do not go together")
    if bounds and (bounds[0] < 0 or bounds[-1] > len(at_s)):
        raise NoSeries(f"{path.name}: offset points outside of the reads")
    return tuple(
        Series(at_s=at_s[begin:end], register_l=register_l[begin:end])
        for begin, end in pairwise(bounds)
    )


def replayed(
    name: str, series: Sequence[Series], limits: Limits = DEFAULT_LIMITS
) -> tuple[Alert, ...]:
    """Return the notifications of a file's series in the order in which they would have gone out.

    Each meter is alone with its own reads; the newest read of all says how late it is.
    """
    ends_s = max([max(one.at_s, default=0) for one in series], default=0)
    found = [
        Alert(file=name, series=i, at=at_s, rule=finding.kind, l_per_h=finding.rate_lph)
        for i, one in enumerate(series)
        for at_s, finding in notifications(f"{name}/{i}", one, ends_s, limits)
    ]
    return tuple(sorted(found, key=lambda alert: (alert.at, alert.series)))


def notifications(
    meter: str, series: Series, ends_s: int, limits: Limits
) -> Iterator[tuple[int, leaks.Finding]]:
    """Yield what would have been told of one meter, and when."""
    flow: leaks.Flow | None = None
    silent_s = -(-limits.silent_us // SECOND_US)
    for at_s, register_l in _in_order(series):
        if flow is not None and at_s * SECOND_US - flow.last[0] >= limits.silent_us:
            late_s = flow.last[0] // SECOND_US + silent_s
            flow, found = leaks_status.silent(flow, meter, late_s * SECOND_US, limits)
            yield from [(late_s, finding) for finding in found if finding.notify]
        flow, found = leaks.feed(flow, meter, (at_s * SECOND_US, register_l), limits)
        if found:
            yield from [(at_s, finding) for finding in found if finding.notify]
    if flow is not None:
        late_s = flow.last[0] // SECOND_US + silent_s
        if late_s <= ends_s:
            _, found = leaks_status.silent(flow, meter, late_s * SECOND_US, limits)
            yield from [(late_s, finding) for finding in found if finding.notify]


def _in_order(series: Series) -> Sequence[tuple[int, int]]:
    """Return the reads as they came; sorted by time only where a file is in another order."""
    reads = list(zip(series.at_s, series.register_l, strict=True))
    newest = accumulate(series.at_s, max)
    back = any(late - at > LONGEST_REPEAT_S for late, at in zip(newest, series.at_s, strict=True))
    return sorted(reads, key=lambda read: read[0]) if back else reads

"""What goes ahead of its turn while a long backlog is sent: alerts, then what is heard meanwhile.

The stream is sent in order, and a month of it takes a while. A leak found last week, or this
minute, should not wait for that. So copies of such rows go first, in messages of their own that
the cloud marks as taken; in order they come again and are passed over. What is acknowledged stays
contiguous, and nothing depends on a copy: it may be lost, doubled or refused.

One such message is under way at a time, of at most as many rows as the cloud says; alerts and
live rows take turns, so that neither waits for the other, even where one is not taken. Pure.
"""

from __future__ import annotations

from dataclasses import replace
from enum import IntEnum
from typing import Final

from decoders.uplink import Ack
from decoders.value import value

EACH_S: Final = 1.0  # between two such messages: live rows wait no longer, and bring company


class Ahead(IntEnum):
    """Which rows a message ahead of its turn is to have."""

    NONE = 0
    ALERTS = 1
    LIVE = 2


@value
class Early:
    """How far rows were sent ahead of their turn.

    rows        the cloud takes so many in one message; 0 = none
    since       rows above it were heard since the connection began
    alerts      alerts at and below it are taken, or have no need to be
    live        rows above `since` and at or below it are taken
    under_way   the newest row of the message under way, `reach` where the cursor goes with it
    refused     the cloud could not read a message: in order it must be found, alone
    """

    rows: int = 0
    since: int = 0
    alerts: int = 0
    live: int = 0
    under_way: int = 0
    kind: Ahead = Ahead.NONE
    reach: int = 0
    spoke_s: float = float("-inf")
    deadline_s: float = 0.0
    refused: bool = False


@value
class Asked:
    """Send up to `rows` rows of a kind from `first` on."""

    kind: Ahead
    first: int
    rows: int


def connected(early: Early, *, acked: int, head: int) -> Early:
    """Another connection: what was under way is lost, what was taken stays so."""
    return replace(
        early,
        rows=0,
        since=head,
        alerts=max(early.alerts, acked),
        live=max(early.live, head),
        under_way=0,
        refused=False,
    )


def restored(early: Early, *, acked: int) -> Early:
    """The cloud went back to an earlier state: copies that it took after `acked` may be gone."""
    return replace(early, alerts=min(early.alerts, acked), live=early.since, under_way=0)


def acknowledged(early: Early, ack: Ack) -> Early:
    """Take what an ack says of copies."""
    early = replace(early, rows=ack.early)
    if any(seq == 0 for seq, _ in ack.rejected):
        return replace(early, refused=True, under_way=0)
    if not early.under_way or ack.took is None or ack.took < early.under_way:
        return early
    early = _moved(early, early.kind, early.reach)
    return replace(early, under_way=0)


def next_ahead(early: Early, *, acked: int, head: int, credit: int, now_s: float) -> Asked | None:
    """Return what to send ahead now: only while more waits than the cloud takes at once."""
    if not early.rows or early.refused or head - acked <= credit:
        return None
    if now_s < early.spoke_s + EACH_S or (early.under_way and now_s < early.deadline_s):
        return None
    alerts, live = max(early.alerts, acked), max(early.live, acked)
    alerts_wait, live_waits = alerts < early.since, live < head
    if alerts_wait and not (live_waits and early.kind == Ahead.ALERTS):  # else: in turn
        return Asked(kind=Ahead.ALERTS, first=alerts + 1, rows=early.rows)
    if live_waits:
        return Asked(kind=Ahead.LIVE, first=live + 1, rows=early.rows)
    return None


def sent(
    early: Early, *, kind: Ahead, last: int, reach: int, now_s: float, patience_s: float
) -> Early:
    """A message of such rows went out; `last` 0: there were none up to `reach`."""
    if not last:
        return _moved(early, kind, reach)
    return replace(
        early,
        under_way=last,
        kind=kind,
        reach=reach,
        spoke_s=now_s,
        deadline_s=now_s + patience_s,
    )


def _moved(early: Early, kind: Ahead, reach: int) -> Early:
    if kind == Ahead.ALERTS:
        return replace(early, alerts=max(early.alerts, reach))
    return replace(early, live=max(early.live, reach))

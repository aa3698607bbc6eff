"""The agent's half of the ack protocol, as a pure state machine: what to send next, and when.

Sent and acknowledged are counted by row number. The cloud's `upto` is contiguous: everything at
or below it is committed there, dead-lettered or declared lost. On every connection the agent says
hello first and sends rows only once the cloud has answered: the answer carries the credit, and
where to begin when the cloud was restored from a backup. When no ack brings progress in time,
everything after `acked` is sent again (go-back-n); the cloud acknowledges repeats again.
A broker's PUBACK means nothing here.

A message that the cloud cannot read as a whole comes back with its code under row number 0. Then
one message at a time is sent, of half as many rows each time it is refused again; a row that is
refused alone is given up: declared lost, but kept with its code. Where that happens row after row
it is the cloud that is ill, so it goes slower and slower. A version that the cloud does not know
yet is waited for instead.

All instants here are monotonic seconds: retries must not follow a clock that people set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from decoders.uplink import Ack
from edge_agent import early, said
from edge_agent.early import Ahead
from edge_agent.link import Acknowledge, Effect, GiveUp, Link, Pace, Publish, RestartStream

__all__ = ["Acknowledge", "Effect", "GiveUp", "Link", "Pace", "Publish", "RestartStream"]

SLOWEST_TIMES: Final = 4  # of the slowest progress of late: then an ack is taken for lost
EARLY_SHARE: Final = 4  # a batch of a quarter of the credit need not wait for company


def connected(link: Link, *, now_s: float) -> Link:
    """A subscribed connection stands: greet at once, then wait for the answer."""
    return replace(
        link,
        connected=True,
        greeted=False,
        attempt=0,
        sent=link.acked,
        deadline_s=now_s,
        unanswered=0,
        said=said.waived(link.said, link.unanswered),
        waiting_s=now_s if link.head > link.acked else None,
        early=early.connected(link.early, acked=link.acked, head=link.head),
    )


def delivered(link: Link, *, now_s: float, pace: Pace, chance: float) -> Link:
    """The broker has one of our messages: from here on, and not before, the cloud can answer."""
    if not link.connected or link.sent <= link.acked:
        return link
    patience_s = _patience_s(link, max(0, link.attempt - 1), pace, chance)
    return replace(link, deadline_s=max(link.deadline_s, now_s + patience_s))


def disconnected(link: Link) -> Link:
    return replace(link, connected=False, greeted=False)


def committed(link: Link, *, first: int, head: int, now_s: float) -> Link:
    """Rows were added to the outbox, or its oldest were dropped."""
    waiting_s = link.waiting_s
    if waiting_s is None and head > link.sent:
        waiting_s = now_s
    return replace(link, first=first, head=head, waiting_s=waiting_s)


def published(
    link: Link,
    *,
    last: int,
    rows: int,
    now_s: float,
    pace: Pace,
    chance: float,
    sent_at: int = 0,
) -> Link:
    """A message with `rows` rows up to `last` (0 = a hello) was handed to the broker's client.

    sent_at   what it says of when it was sent, µs: the cloud names it so when it answers
    """
    newest = said.sent(link.said, rows=rows, last=last, sent_at=sent_at, unanswered=link.unanswered)
    link = replace(link, spoke_s=now_s, unanswered=link.unanswered + 1, said=newest)
    if last == 0:
        return link
    deadline_s = link.deadline_s
    if link.sent <= link.acked:
        link = replace(link, progress_s=now_s)
        deadline_s = now_s + _patience_s(link, link.attempt, pace, chance)
    sent = max(link.sent, last)
    waiting_s = now_s if link.head > sent else None
    return replace(link, sent=sent, deadline_s=deadline_s, waiting_s=waiting_s)


def published_ahead(
    link: Link, *, kind: Ahead, last: int, reach: int, now_s: float, pace: Pace, chance: float
) -> Link:
    """A message ahead of its turn went out, or (`last` 0) there was nothing up to `reach`."""
    patience_s = _patience_s(link, 1, pace, chance)
    sent = early.sent(
        link.early, kind=kind, last=last, reach=reach, now_s=now_s, patience_s=patience_s
    )
    if not last:
        return replace(link, early=sent)
    return replace(link, early=sent, spoke_s=now_s, unanswered=link.unanswered + 1)


def acknowledged(
    link: Link, ack: Ack, *, now_s: float, pace: Pace, chance: float
) -> tuple[Link, Sequence[Effect]]:
    """Take an ack; one of another stream changes nothing."""
    if ack.stream != link.stream:
        return link, ()
    if max(ack.upto, ack.seen) > (link.head if link.opened is None else link.opened):
        return link, (RestartStream(),)
    link = replace(
        _answered(link, ack),
        opened=None,
        greeted=link.connected,
        credit=ack.credit,
        attempt=link.attempt if link.greeted else 0,
        early=early.acknowledged(link.early, ack),
    )
    unreadable = next((code for seq, code in ack.rejected if seq == 0), None)
    if unreadable is not None:
        return _refused(link, ack, unreadable, now_s=now_s, pace=pace, chance=chance)
    if ack.resend_from is not None:
        return _rewound(link, ack, now_s=now_s, pace=pace)
    if ack.upto <= link.acked:
        return link, (
            (Acknowledge(upto=link.acked, rejected=ack.rejected),) if ack.rejected else ()
        )
    link = replace(link, progress_s=now_s, slowest_s=_slowest_s(link, now_s))
    deadline_s = now_s + _patience_s(link, 0, pace, chance)
    sent = max(link.sent, ack.upto)
    probe = link.probe * 2 if link.probe * 2 < pace.batch_rows else 0
    took_rows = 0 < link.said.last <= ack.upto
    link = replace(
        link,
        acked=ack.upto,
        sent=sent,
        attempt=0,
        deadline_s=deadline_s,
        probe=probe,
        given_up=0 if took_rows else link.given_up,
    )
    return link, (Acknowledge(upto=ack.upto, rejected=ack.rejected),)


def restarted(link: Link, *, stream: bytes, head: int, now_s: float) -> Link:
    """The rows were numbered anew under another stream: greet again."""
    fresh = Link(stream=stream, first=1, head=head)
    return connected(fresh, now_s=now_s) if link.connected else fresh


def next_message(
    link: Link, *, now_s: float, pace: Pace, chance: float, news: bool
) -> tuple[Link, Publish | None]:
    """Return what to send now, if anything. `news`: health has changed since the last message."""
    hello = Publish(first=link.sent + 1, rows=0, opened=link.opened)
    if not link.connected:
        return link, None
    if not link.greeted:
        if now_s < link.deadline_s:
            return link, None
        return _waiting_longer(link, now_s=now_s, pace=pace, chance=chance), hello
    unanswered = link.sent > link.acked or (link.probe and link.unanswered)
    if unanswered and now_s >= link.deadline_s:
        link = _waiting_longer(link, now_s=now_s, pace=pace, chance=chance)
        link = replace(
            link,
            sent=link.acked,
            waiting_s=now_s - pace.linger_s,
            unanswered=0,
            said=said.waived(link.said, link.unanswered),
        )
    rows = _rows_ahead(link, now_s=now_s) or _rows_in_order(link, now_s=now_s, pace=pace)
    if rows is not None:
        return link, rows
    quiet_s = now_s - link.spoke_s
    starved = link.head > link.sent and link.credit == 0
    is_time = (
        quiet_s >= pace.heartbeat_s
        or (news and quiet_s >= pace.news_s)
        or (starved and quiet_s >= pace.starved_s)
    )
    return link, hello if is_time else None


def _rows_ahead(link: Link, *, now_s: float) -> Publish | None:
    if link.probe:
        return None
    asked = early.next_ahead(
        link.early, acked=link.acked, head=link.head, credit=link.credit, now_s=now_s
    )
    if asked is None:
        return None
    return Publish(first=asked.first, rows=asked.rows, ahead=asked.kind)


def _rows_in_order(link: Link, *, now_s: float, pace: Pace) -> Publish | None:
    rows = _rows_to_send(link, now_s=now_s, pace=pace)
    return Publish(first=max(link.sent + 1, link.first), rows=rows) if rows else None


def _rows_to_send(link: Link, *, now_s: float, pace: Pace) -> int:
    beyond = max(link.sent, link.first - 1)
    in_flight = beyond - max(link.acked, link.first - 1)
    rows = min(link.head - beyond, link.credit - in_flight, pace.batch_rows)
    if rows <= 0 or now_s < link.rest_until_s:
        return 0
    if link.probe:
        return 0 if link.unanswered else min(rows, link.probe)
    enough = rows >= min(pace.batch_rows, max(1, link.credit // EARLY_SHARE))
    lingered = link.waiting_s is not None and now_s - link.waiting_s >= pace.linger_s
    return rows if enough or lingered else 0


def _refused(
    link: Link, ack: Ack, code: str, *, now_s: float, pace: Pace, chance: float
) -> tuple[Link, Sequence[Effect]]:
    """The cloud could not read a message of ours."""
    if ack.resend_from is None:
        link = replace(link, greeted=False, sent=link.acked)
        return _waiting_longer(link, now_s=now_s, pace=pace, chance=chance), ()
    is_named = ack.answers is not None
    if is_named and link.probe and ack.answers not in link.said.at:
        return link, ()  # of a message before
    was_last = is_named or link.unanswered == 0
    rows = link.said.rows if is_named or link.said.hello_at is None else 0
    link = replace(link, unanswered=0 if is_named else link.unanswered)
    if link.probe == 1 and was_last and rows == 1:
        if is_named or not link.said.doubt:
            return _given_up(link, ack, code, now_s=now_s, pace=pace, chance=chance)
        link = replace(link, said=replace(link.said, doubt=link.said.doubt - 1))
    probe = link.probe
    if probe == 0 or was_last:
        probe = max(1, (min(rows, probe) if probe else rows or pace.batch_rows) // 2)
    link, effects = _rewound(link, ack, now_s=now_s, pace=pace, again=True)
    deadline_s = now_s + _patience_s(link, link.attempt, pace, chance)
    return replace(link, probe=probe, deadline_s=deadline_s), effects


def _given_up(
    link: Link, ack: Ack, code: str, *, now_s: float, pace: Pace, chance: float
) -> tuple[Link, Sequence[Effect]]:
    """The row that was alone in its message is the one that the cloud cannot read."""
    given_up = GiveUp(seq=link.said.last, code=code)
    link, effects = _rewound(link, ack, now_s=now_s, pace=pace, again=True)
    rest_s = _patience_s(link, link.given_up - 1, pace, chance) if link.given_up else 0.0
    link = replace(link, probe=2, given_up=link.given_up + 1, rest_until_s=now_s + rest_s)
    return link, (*effects, given_up)


def _answered(link: Link, ack: Ack) -> Link:
    """Count an answer; in the search for a bad row, one of an earlier message counts nothing."""
    known = link.said
    if ack.answers is None and not link.unanswered:
        return replace(link, said=replace(known, owed=max(0, known.owed - 1)))
    if ack.answers is not None and link.probe and ack.answers not in (*known.at, known.hello_at):
        return link
    return replace(link, unanswered=max(0, link.unanswered - 1))


def _rewound(
    link: Link, ack: Ack, *, now_s: float, pace: Pace, again: bool = False
) -> tuple[Link, Sequence[Effect]]:
    """Begin again at `resend_from`, once: every message in flight may ask for the same.

    Never behind `upto`: what lies between, the cloud does not say that it has.
    """
    resend_from = min(ack.resend_from or 1, ack.upto + 1)
    same = resend_from == link.rewound and now_s - link.rewound_s < pace.ack_timeout_s
    if same and link.acked >= resend_from - 1 and not again:
        return link, ()
    upto = max(0, min(resend_from - 1, link.head))
    link = replace(
        link,
        acked=upto,
        sent=upto,
        rewound=resend_from,
        rewound_s=now_s,
        waiting_s=now_s - pace.linger_s,
        early=early.restored(link.early, acked=upto) if upto < link.acked else link.early,
    )
    return link, (Acknowledge(upto=upto),)


def _waiting_longer(link: Link, *, now_s: float, pace: Pace, chance: float) -> Link:
    patience_s = _patience_s(link, link.attempt, pace, chance)
    return replace(link, attempt=link.attempt + 1, deadline_s=now_s + patience_s)


def _slowest_s(link: Link, now_s: float) -> float:
    """Return the longest wait for progress; an old one counts a quarter less with every ack."""
    return max(now_s - link.progress_s, 0.75 * link.slowest_s)


def _patience_s(link: Link, attempt: int, pace: Pace, chance: float) -> float:
    """Double with every attempt, ± a quarter by `chance` in [0, 1): gateways must not chime.

    A cloud that takes long over a backlog is waited for longer, or repeats would add to its load.
    """
    usual_s = max(pace.ack_timeout_s, SLOWEST_TIMES * link.slowest_s)
    doubled = usual_s * 2 ** min(attempt, 16)
    return float(min(pace.ack_timeout_max_s, doubled) * (0.75 + 0.5 * chance))

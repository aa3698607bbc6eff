"""What goes ahead of its turn: alerts of the backlog, then what is heard while it drains."""

from __future__ import annotations

from pathlib import Path

from decoders.uplink import Ack, Batch, RowKind
from edge_agent import early, protocol
from edge_agent.clock import SystemClock
from edge_agent.early import Ahead, Early
from edge_agent.forward import Echo, message_of
from edge_agent.inputs import Published
from edge_agent.outbox import Draft, Outbox
from edge_agent.protocol import Link, Pace, Publish

STREAM = bytes(16)
PACE = Pace(batch_rows=100)


def draining(*, head: int = 1000, acked: int = 0) -> Link:
    """Return a link that has been greeted by a cloud which takes 50 rows ahead."""
    link = protocol.connected(Link(stream=STREAM, head=head, acked=acked), now_s=0.0)
    ack = Ack(stream=STREAM, upto=acked, credit=200, cloud_at=1, early=50)
    link, _ = protocol.acknowledged(link, ack, now_s=0.0, pace=PACE, chance=0.5)
    return link


def asked(link: Link, now_s: float) -> tuple[Link, Publish | None]:
    return protocol.next_message(link, now_s=now_s, pace=PACE, chance=0.5, news=False)


def ahead(link: Link, *, kind: Ahead, last: int, reach: int, now_s: float) -> Link:
    return protocol.published_ahead(
        link, kind=kind, last=last, reach=reach, now_s=now_s, pace=PACE, chance=0.5
    )


def took(link: Link, last: int, now_s: float) -> Link:
    ack = Ack(stream=STREAM, upto=link.acked, credit=200, cloud_at=1, early=50, took=last)
    return protocol.acknowledged(link, ack, now_s=now_s, pace=PACE, chance=0.5)[0]


def test_alerts_of_the_backlog_go_first_then_what_is_heard_meanwhile() -> None:
    link = draining()

    link, first = asked(link, 0.0)
    assert first == Publish(first=1, rows=50, ahead=Ahead.ALERTS)
    link = took(ahead(link, kind=Ahead.ALERTS, last=700, reach=1000, now_s=0.0), 700, 0.1)
    link = protocol.committed(link, first=1, head=1003, now_s=0.5)

    link, second = asked(link, 2.0)
    assert second == Publish(first=1001, rows=50, ahead=Ahead.LIVE)
    link = took(ahead(link, kind=Ahead.LIVE, last=1003, reach=1003, now_s=2.0), 1003, 2.1)

    link, third = asked(link, 4.0)
    assert third == Publish(first=1, rows=100), "in order, as if nothing had gone ahead"


def test_alerts_that_the_cloud_has_no_room_for_do_not_hold_up_what_is_heard_meanwhile() -> None:
    link = protocol.committed(draining(), first=1, head=1003, now_s=0.0)
    link, first = asked(link, 0.0)
    assert first == Publish(first=1, rows=50, ahead=Ahead.ALERTS)
    link = ahead(link, kind=Ahead.ALERTS, last=700, reach=700, now_s=0.0)

    second = early.next_ahead(link.early, acked=0, head=1003, credit=200, now_s=60.0)
    assert second == early.Asked(kind=Ahead.LIVE, first=1001, rows=50)
    link = took(ahead(link, kind=Ahead.LIVE, last=1003, reach=1003, now_s=60.0), 1003, 60.1)

    third = early.next_ahead(link.early, acked=0, head=1003, credit=200, now_s=62.0)
    assert third == early.Asked(kind=Ahead.ALERTS, first=1, rows=50)


def test_what_goes_ahead_leaves_the_credit_and_the_numbers_in_order_alone() -> None:
    link = draining()

    after = ahead(link, kind=Ahead.ALERTS, last=700, reach=1000, now_s=0.0)

    assert (after.sent, after.acked) == (link.sent, link.acked)
    _, message = asked(after, 0.1)
    assert message == Publish(first=1, rows=100)


def test_a_copy_that_nobody_answers_is_sent_again_after_a_while() -> None:
    link = ahead(draining(), kind=Ahead.ALERTS, last=700, reach=1000, now_s=0.0)

    assert early.next_ahead(link.early, acked=0, head=1000, credit=200, now_s=5.0) is None
    again = early.next_ahead(link.early, acked=0, head=1000, credit=200, now_s=60.0)

    assert again == early.Asked(kind=Ahead.ALERTS, first=1, rows=50)


def test_nothing_goes_ahead_to_a_cloud_that_cannot_take_it_nor_when_little_waits() -> None:
    dull = Early(since=1000)
    ready = Early(rows=50, since=1000)

    assert early.next_ahead(dull, acked=0, head=1000, credit=200, now_s=1.0) is None
    assert early.next_ahead(ready, acked=900, head=1000, credit=200, now_s=1.0) is None
    assert early.next_ahead(ready, acked=0, head=1000, credit=200, now_s=1.0) is not None


def test_once_the_cloud_could_not_read_a_message_nothing_goes_ahead_on_this_connection() -> None:
    link = draining()
    refusal = Ack(
        stream=STREAM, upto=0, credit=200, cloud_at=1, early=50, resend_from=1,
        rejected=((0, "uplink_malformed"),),
    )  # fmt: skip

    link, _ = protocol.acknowledged(link, refusal, now_s=0.0, pace=PACE, chance=0.5)

    assert early.next_ahead(link.early, acked=0, head=1000, credit=200, now_s=9.0) is None
    again = early.connected(link.early, acked=0, head=1000)
    assert not again.refused


def test_a_restored_cloud_gets_the_alerts_ahead_again() -> None:
    done = Early(rows=50, since=1000, alerts=1000, live=1200)

    back = early.restored(done, acked=300)

    assert (back.alerts, back.live) == (300, 1000)


def test_alerts_are_found_among_the_rows_until_there_are_no_more(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db", new_stream=lambda: STREAM, now_us=1)
    kinds = [RowKind.ANOMALY if i % 100 == 99 else RowKind.WMBUS for i in range(1000)]
    outbox.append([Draft(heard_at=1, kind=kind, payload=b"x" * 50) for kind in kinds], {})

    some, told = message(outbox, Publish(first=1, rows=3, ahead=Ahead.ALERTS))
    assert some is not None
    assert some.early
    assert list(some.rows.column("seq")) == [100, 200, 300]
    assert (told.last, told.reach, told.ahead) == (300, 300, Ahead.ALERTS)

    rest, _ = message(outbox, Publish(first=301, rows=50, ahead=Ahead.ALERTS))
    assert rest is not None
    assert list(rest.rows.column("seq")) == [400, 500, 600, 700, 800, 900, 1000]

    none, past = message(outbox, Publish(first=1001, rows=50, ahead=Ahead.ALERTS))
    assert none is None, "nothing is sent where there is nothing"
    assert (past.last, past.reach) == (0, 1000)
    outbox.close()


def message(outbox: Outbox, asked: Publish) -> tuple[Batch | None, Published]:
    return message_of(
        outbox,
        asked,
        gateway="norte",
        agent="test",
        clock=SystemClock(),
        echo=Echo(),
        health={},
        traceparent="",
    )

"""What is sent when: the parts of the protocol that deserve a sentence of their own."""

from __future__ import annotations

import pytest

from decoders.uplink import Ack
from edge_agent.protocol import (
    Acknowledge,
    GiveUp,
    Link,
    Pace,
    Publish,
    RestartStream,
    acknowledged,
    committed,
    connected,
    disconnected,
    next_message,
    published,
    restarted,
)

STREAM = b"s" * 16
PACE = Pace(batch_rows=10, linger_s=0.25)


class Talk:
    """A link, a clock and what went out."""

    def __init__(self, link: Link | None = None) -> None:
        self.link = link or Link(stream=STREAM)
        self.now_s = 1000.0
        self.effects: list[object] = []

    def connect(self) -> None:
        self.link = connected(self.link, now_s=self.now_s)

    def hold(self, head: int) -> None:
        self.link = committed(self.link, first=1, head=head, now_s=self.now_s)

    def said(self, *, news: bool = False) -> Publish | None:
        """What goes out now."""
        self.link, message = next_message(
            self.link, now_s=self.now_s, pace=PACE, chance=0.5, news=news
        )
        if message is not None:
            last = message.first + message.rows - 1 if message.rows else 0
            self.link = published(
                self.link,
                last=last,
                rows=message.rows,
                now_s=self.now_s,
                pace=PACE,
                chance=0.5,
                sent_at=int(self.now_s * 1e6),
            )
        return message

    def hear(self, upto: int, **given: object) -> None:
        told = {"stream": STREAM, "upto": upto, "credit": 100, "cloud_at": 1, **given}
        ack = Ack(**told)  # type: ignore[arg-type]  # the test says what
        self.link, effects = acknowledged(self.link, ack, now_s=self.now_s, pace=PACE, chance=0.5)
        self.effects += effects


def greeted(head: int = 0) -> Talk:
    talk = Talk()
    talk.connect()
    talk.hold(head)
    talk.said()
    talk.hear(0)
    return talk


def test_nothing_is_said_before_the_connection_and_hello_first() -> None:
    talk = Talk()
    talk.hold(50)
    assert talk.said() is None

    talk.connect()

    assert talk.said() == Publish(first=1, rows=0)
    assert talk.said() is None, "rows wait for the answer"
    talk.hear(0)
    assert talk.said() == Publish(first=1, rows=10)


def test_a_hello_without_an_answer_is_repeated_with_growing_patience() -> None:
    talk = Talk()
    talk.connect()
    talk.said()
    spoke = []
    for _ in range(400):
        talk.now_s += 1
        if talk.said() is not None:
            spoke.append(talk.now_s - 1000)

    assert spoke == [10, 30, 70, 150, 270, 390]


def test_rows_wait_a_moment_for_company_and_a_full_batch_does_not() -> None:
    talk = greeted()
    talk.hold(3)

    assert talk.said() is None
    talk.now_s += 0.3
    assert talk.said() == Publish(first=1, rows=3)
    talk.hold(13)
    assert talk.said() == Publish(first=4, rows=10)


def test_no_more_than_the_credit_is_in_flight() -> None:
    talk = greeted(100)
    talk.hear(0, credit=15)

    assert [talk.said(), talk.said(), talk.said()] == [
        Publish(first=1, rows=10),
        Publish(first=11, rows=5),
        None,
    ]
    talk.hear(10, credit=15)
    assert talk.said() == Publish(first=16, rows=10)


def test_without_credit_the_cloud_is_asked_for_some_now_and_then() -> None:
    talk = greeted(5)
    talk.hear(0, credit=0)
    talk.now_s += PACE.starved_s

    assert talk.said() == Publish(first=1, rows=0)


def test_without_an_ack_everything_unacknowledged_is_sent_again() -> None:
    talk = greeted(20)
    assert [talk.said(), talk.said()] == [Publish(first=1, rows=10), Publish(first=11, rows=10)]
    talk.hear(10)
    assert talk.effects == [Acknowledge(upto=10)]
    talk.now_s += 9
    assert talk.said() is None
    talk.now_s += 2

    assert talk.said() == Publish(first=11, rows=10)


def test_a_cloud_that_is_slow_is_waited_for_longer() -> None:
    talk = greeted(60)
    talk.hear(0, credit=30)
    while talk.said():
        pass
    for upto in (10, 20):
        talk.now_s += 8
        talk.hear(upto, credit=30)
        assert talk.said() is not None

    talk.now_s += 29
    assert talk.said() is None
    talk.now_s += 4
    assert talk.said() == Publish(first=21, rows=10)


def test_the_cloud_may_ask_for_rows_that_it_had_acknowledged() -> None:
    talk = greeted(20)
    talk.said()
    talk.said()
    talk.hear(20)

    talk.hear(5, resend_from=6)
    talk.hear(5, resend_from=6)

    assert talk.effects == [Acknowledge(upto=20), Acknowledge(upto=5)]
    assert talk.said() == Publish(first=6, rows=10)


def test_a_request_beyond_what_the_cloud_has_acknowledges_nothing() -> None:
    talk = greeted(50)
    talk.hear(10)

    talk.hear(10, resend_from=40)

    assert talk.link.acked == 10
    assert talk.said() == Publish(first=11, rows=10)


def test_a_lower_upto_alone_is_an_old_ack_not_a_request() -> None:
    talk = greeted(20)
    talk.said()
    talk.hear(10)

    talk.hear(4)

    assert talk.link.acked == 10


def test_refused_rows_count_as_acknowledged_with_their_code() -> None:
    talk = greeted(5)
    talk.now_s += 1
    talk.said()

    talk.hear(5, rejected=((2, "crc"),))

    assert talk.effects == [Acknowledge(upto=5, rejected=((2, "crc"),))]


def test_an_ack_beyond_the_head_means_that_the_outbox_is_an_old_copy() -> None:
    talk = greeted(5)

    talk.hear(9)

    assert talk.effects == [RestartStream()]
    talk.link = restarted(talk.link, stream=b"t" * 16, head=5, now_s=talk.now_s)
    assert talk.said() == Publish(first=1, rows=0)
    assert talk.link.stream == b"t" * 16


def test_an_outbox_that_lost_rows_it_had_told_of_gives_their_numbers_to_no_others() -> None:
    talk = Talk(Link(stream=STREAM, head=90, opened=90, acked=85))
    talk.connect()
    talk.hold(100)
    assert talk.said() == Publish(first=86, rows=0, opened=90), "the ten new ones are not told of"

    talk.hear(85, seen=100)

    assert talk.effects == [RestartStream()]


def test_an_outbox_that_has_all_it_ever_told_of_goes_on() -> None:
    talk = Talk(Link(stream=STREAM, head=90, opened=90, acked=85))
    talk.connect()
    talk.hold(100)
    talk.said()

    talk.hear(85, seen=90)
    talk.hear(85, seen=100)

    assert talk.effects == []


def test_an_ack_of_another_stream_says_nothing() -> None:
    talk = greeted(5)
    before = talk.link

    talk.hear(5, stream=b"x" * 16)

    assert talk.link == before


def test_a_message_that_cannot_be_read_is_halved_until_one_row_is_alone_and_given_up() -> None:
    talk = greeted(20)
    sizes = []
    for _ in range(50):
        message = talk.said()
        if message is None:
            talk.now_s += 0.3
            continue
        sizes.append((message.first, message.rows))
        poisoned = message.rows and message.first <= 4 < message.first + message.rows
        if poisoned and not any(isinstance(e, GiveUp) for e in talk.effects):
            upto = talk.link.acked
            talk.hear(upto, rejected=((0, "uplink_malformed"),), resend_from=upto + 1)
        elif message.rows:
            talk.hear(message.first + message.rows - 1)
        else:
            talk.hear(talk.link.acked)
        if talk.link.acked == 20:
            break

    assert [e for e in talk.effects if isinstance(e, GiveUp)] == [
        GiveUp(seq=4, code="uplink_malformed")
    ]
    assert talk.link.acked == 20
    assert (4, 1) in sizes
    assert talk.link.probe == 0


def test_a_cloud_that_refuses_everything_gets_few_rows_given_up() -> None:
    talk = greeted(1000)
    for _ in range(3000):
        message = talk.said()
        if message is not None:
            upto = talk.link.acked
            talk.hear(upto, rejected=((0, "failed"),), resend_from=upto + 1)
        talk.now_s += 1

    given_up = [effect.seq for effect in talk.effects if isinstance(effect, GiveUp)]
    assert 2 <= len(given_up) < 40


def test_an_answer_that_was_lost_does_not_hold_up_the_search_for_a_bad_row() -> None:
    talk = greeted(1)
    talk.now_s += PACE.heartbeat_s
    talk.link = connected(talk.link, now_s=talk.now_s)
    talk.said()
    talk.hear(0)
    talk.now_s += PACE.heartbeat_s
    assert talk.said() == Publish(first=1, rows=1)
    talk.link = published(
        talk.link, last=0, rows=0, now_s=talk.now_s, pace=PACE, chance=0.5
    )  # a hello whose answer will never come

    talk.hear(0, rejected=((0, "uplink_malformed"),), resend_from=1)
    assert talk.said() is None
    talk.now_s += 15

    assert talk.said() == Publish(first=1, rows=1)


def test_a_version_that_the_cloud_does_not_know_yet_is_waited_for() -> None:
    talk = greeted(20)
    talk.said()

    talk.hear(0, rejected=((0, "uplink_version"),))

    assert talk.said() is None
    talk.now_s += 25
    assert talk.said() == Publish(first=1, rows=0)
    assert talk.effects == []


def test_news_and_silence_are_worth_a_hello() -> None:
    talk = greeted()
    assert talk.said(news=True) is None
    talk.now_s += PACE.news_s
    assert talk.said(news=True) == Publish(first=1, rows=0)
    assert talk.said(news=True) is None
    talk.now_s += PACE.heartbeat_s
    assert talk.said() == Publish(first=1, rows=0)


def test_a_lost_connection_ends_the_talk_and_the_next_begins_at_what_is_acknowledged() -> None:
    talk = greeted(20)
    talk.said()
    talk.link = disconnected(talk.link)
    assert talk.said() is None

    talk.connect()
    talk.said()
    talk.hear(0)
    talk.now_s += 1

    assert talk.said() == Publish(first=1, rows=10)


def test_a_pace_that_no_message_can_carry_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_rows"):
        Pace(batch_rows=0)


@pytest.mark.parametrize("names", [True, False], ids=["it names the message", "an older cloud"])
@pytest.mark.parametrize("late_s", [0.5, 25.0])
def test_a_refusal_that_comes_late_makes_no_other_row_be_given_up(
    names: bool, late_s: float
) -> None:
    talk, on_the_way = greeted(10), list[tuple[float, int, int, int]]()
    for _ in range(8000):
        talk.now_s += 0.1
        while on_the_way and on_the_way[0][0] <= talk.now_s:
            _, first, last, sent_at = on_the_way.pop(0)
            acked, answers = talk.link.acked, sent_at if names else None
            if first <= 3 <= last:
                refused = ((0, "uplink_malformed"),)
                talk.hear(acked, rejected=refused, resend_from=acked + 1, answers=answers)
            elif first <= acked + 1:
                talk.hear(max(acked, last), answers=answers)
            else:
                talk.hear(acked, resend_from=acked + 1, answers=answers)
        if any(isinstance(effect, GiveUp) for effect in talk.effects):
            break
        message = talk.said()
        if message is not None and message.rows:
            last = message.first + message.rows - 1
            sent_at = int(talk.now_s * 1e6)
            on_the_way.append((talk.now_s + late_s, message.first, last, sent_at))

    given_up = [effect.seq for effect in talk.effects if isinstance(effect, GiveUp)]
    assert given_up == [3], talk.now_s

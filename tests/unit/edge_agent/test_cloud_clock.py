"""Hours by the cloud's clock: what acks tell of it, and which telegram of an hour is kept."""

from __future__ import annotations

from decimal import Decimal

import pytest

from decoders.encode import encode_wmbus, kamstrup_flowiq_records, session_number
from decoders.ids import MeterId
from decoders.uplink import Ack, RowKind
from edge_agent import cloud_clock, core, protocol, reduction
from edge_agent.cloud_clock import UNKNOWN, CloudClock
from edge_agent.inputs import AckReceived, ClockStepped, Connected, Heard, Now, Published, Store
from edge_agent.keys import address_of
from edge_agent.leaks import HOUR_US

METER = MeterId(manufacturer="KAW", serial="53885758", version=0x3C, medium=0x16)
KEY = bytes(range(16))
NOON = 1_772_452_800_000_000  # 2026-03-02T12:00:00Z
SECOND = 1_000_000
MINUTE = 60 * SECOND
STEP = 16 * SECOND


class Gateway:
    """A core whose clock is ahead of the cloud's, and the telegrams that it kept."""

    def __init__(self, *, ahead: int) -> None:
        self.ahead = ahead
        policy = reduction.Policy(keys={address_of(str(METER)): (KEY,)})
        self.state = core.State(
            reduction=reduction.State(policy=policy),
            link=protocol.Link(stream=bytes(16)),
            pace=protocol.Pace(),
        )
        self.kept: list[int] = []  # true instants

    def now(self, at: int) -> Now:
        return Now(at=at + self.ahead, wall_s=at / SECOND)

    def ask(self, at: int, *, up: int, down: int) -> None:
        """Exchange a message and its ack, which take so long on the way."""
        sent = Published(last=0, sent_at=at + self.ahead)
        self.state, _ = core.step(self.state, sent, self.now(at))
        ack = Ack(stream=bytes(16), upto=0, credit=100, cloud_at=at + up)
        back = at + up + down
        told = AckReceived(ack=ack, at=back + self.ahead)
        self.state, _ = core.step(self.state, told, self.now(back))

    def hear(self, at: int, *, key_known: bool = True) -> None:
        if not key_known:
            self.state.reduction.policy = reduction.Policy()
        number = session_number(session=1, minutes=at // MINUTE % 500_000, encrypted=True)
        frame = encode_wmbus(
            kamstrup_flowiq_records(total_l=1000, info_code=0, flow_lph=0, water_c=(15, 15)),
            meter=METER,
            session_number=number,
            access_number=1,
            key=KEY,
        )
        told = Heard(kind=RowKind.WMBUS, frame=frame, heard_at=at + self.ahead)
        self.state, effects = core.step(self.state, told, self.now(at))
        rows = [row for effect in effects if isinstance(effect, Store) for row in effect.rows]
        self.kept += [row.heard_at - self.ahead for row in rows if row.kind == RowKind.WMBUS]


@pytest.mark.parametrize("key_known", [True, False])
@pytest.mark.parametrize("ahead", [20 * MINUTE, -50 * MINUTE, 0, 3 * HOUR_US])
def test_the_first_of_each_true_hour_is_kept_whatever_the_gateways_clock(
    ahead: int, key_known: bool
) -> None:
    gateway = Gateway(ahead=ahead)
    gateway.ask(NOON - MINUTE, up=SECOND // 10, down=SECOND // 10)

    for at in range(NOON, NOON + 3 * HOUR_US, STEP):
        gateway.hear(at + 5 * SECOND, key_known=key_known)

    assert gateway.kept == [NOON + 5 * SECOND + hour * HOUR_US for hour in range(3)]


def test_before_the_first_ack_hours_are_those_of_the_gateways_clock() -> None:
    gateway = Gateway(ahead=20 * MINUTE)

    for at in range(NOON, NOON + 2 * HOUR_US, 4 * MINUTE):
        gateway.hear(at)

    assert [(at - NOON) // MINUTE for at in gateway.kept] == [0, 40, 100]


@pytest.mark.parametrize("up_share", [Decimal("0"), Decimal("0.5"), Decimal("1")])
@pytest.mark.parametrize("phase", range(0, 16, 3))
def test_a_slow_way_to_the_cloud_costs_a_second_row_and_never_the_hours_first(
    up_share: Decimal, phase: int
) -> None:
    """The round trip takes 10 s, all of it on the way up, or down, or half and half."""
    gateway = Gateway(ahead=20 * MINUTE)
    way = 10 * SECOND
    up = int(way * up_share)
    gateway.ask(NOON - MINUTE, up=up, down=way - up)
    assert gateway.state.reduction.clock.best is not None
    wrong_us = gateway.state.reduction.clock.best.ahead_us - gateway.ahead
    assert abs(wrong_us) <= way // 2

    for at in range(NOON - 10 * MINUTE, NOON + 3 * HOUR_US, STEP):
        gateway.hear(at + phase * SECOND)

    for believed in (0, wrong_us, way // 2, -way // 2):  # the cloud's own error
        for hour in range(3):
            edge = NOON + hour * HOUR_US
            first = min(at for at in gateway.kept if at - believed >= edge)
            assert first - believed - edge <= STEP + 2 * 3 * way // 2
    assert len(gateway.kept) <= 2 * 4


def test_a_lone_telegram_at_the_edge_of_an_hour_is_kept_and_so_is_the_next_sure_one() -> None:
    gateway = Gateway(ahead=20 * MINUTE)
    gateway.ask(NOON - HOUR_US, up=SECOND, down=SECOND)
    gateway.hear(NOON - 30 * MINUTE)

    gateway.hear(NOON - SECOND)
    gateway.hear(NOON + 20 * MINUTE)

    assert gateway.kept == [NOON - 30 * MINUTE, NOON - SECOND, NOON + 20 * MINUTE]


def test_the_best_of_recent_exchanges_counts() -> None:
    clock = UNKNOWN
    for way in (8 * SECOND, 2 * SECOND, 30 * SECOND):
        clock = cloud_clock.asked(clock, sent_at=MINUTE)
        clock = cloud_clock.answered(clock, cloud_at=way // 2, received_at=MINUTE + way)

    assert clock.best is not None
    assert (clock.best.ahead_us, clock.best.uncertainty_us) == (MINUTE, SECOND + 1)
    assert clock.day(25 * HOUR_US) == 1


def exchanged(clock: CloudClock, *, ahead: int, times: int = 1) -> CloudClock:
    for _ in range(times):
        clock = cloud_clock.asked(clock, sent_at=NOON + ahead)
        clock = cloud_clock.answered(
            clock, cloud_at=NOON + SECOND, received_at=NOON + ahead + 2 * SECOND
        )
    return clock


def best_of(clock: CloudClock) -> int:
    assert clock.best is not None
    return clock.best.ahead_us


def test_one_ack_that_contradicts_is_doubted_and_a_second_is_believed() -> None:
    clock = exchanged(UNKNOWN, ahead=0, times=5)

    once = exchanged(clock, ahead=30 * SECOND)
    twice = exchanged(once, ahead=30 * SECOND)

    assert [best_of(c) for c in (clock, once, twice)] == [0, 0, 30 * SECOND]
    assert best_of(exchanged(once, ahead=0)) == 0
    assert exchanged(once, ahead=0).doubt is None


def test_old_exchanges_are_forgotten() -> None:
    clock = exchanged(UNKNOWN, ahead=0)
    for _ in range(cloud_clock.SAMPLES):
        clock = cloud_clock.asked(clock, sent_at=NOON)
        clock = cloud_clock.answered(
            clock, cloud_at=NOON + 2 * SECOND, received_at=NOON + 4 * SECOND
        )

    assert clock.best is not None
    assert clock.best.uncertainty_us == 2 * SECOND + 1


def test_acks_that_nobody_asked_for_or_that_took_too_long_say_nothing() -> None:
    unasked = cloud_clock.answered(UNKNOWN, cloud_at=1, received_at=2)
    long_ago = cloud_clock.asked(UNKNOWN, sent_at=0)
    late = cloud_clock.answered(long_ago, cloud_at=1, received_at=11 * MINUTE)
    back = cloud_clock.answered(
        cloud_clock.asked(UNKNOWN, sent_at=MINUTE), cloud_at=1, received_at=0
    )

    assert [c.best for c in (unasked, late, back)] == [None, None, None]


def test_many_messages_without_an_ack_are_remembered_up_to_a_limit_and_not_across_connections() -> (
    None
):
    gateway = Gateway(ahead=0)
    for at in range(100):
        told = Published(last=0, sent_at=NOON + at)
        gateway.state, _ = core.step(gateway.state, told, gateway.now(NOON))
    assert len(gateway.state.reduction.clock.asked) == cloud_clock.MOST_ASKED

    gateway.state, _ = core.step(gateway.state, Connected(), gateway.now(NOON))

    assert gateway.state.reduction.clock.asked == ()


def test_a_gateway_whose_clock_is_set_right_goes_on_in_the_same_hours() -> None:
    gateway = Gateway(ahead=20 * MINUTE)
    gateway.ask(NOON - MINUTE, up=1000, down=1000)
    gateway.hear(NOON + 5 * SECOND)

    gateway.ahead = 0
    told = ClockStepped(from_at=NOON + 20 * MINUTE, to_at=NOON)
    gateway.state, _ = core.step(gateway.state, told, gateway.now(NOON))
    gateway.hear(NOON + 10 * MINUTE)
    gateway.hear(NOON + 65 * MINUTE)

    assert gateway.kept == [NOON + 5 * SECOND, NOON + 65 * MINUTE]


def test_a_restart_remembers_the_best_sample() -> None:
    clock = exchanged(UNKNOWN, ahead=20 * MINUTE)

    assert cloud_clock.unpack(cloud_clock.pack(clock)).best == clock.best
    assert cloud_clock.pack(UNKNOWN) == b""
    assert cloud_clock.unpack(b"") == UNKNOWN
    assert cloud_clock.unpack(b"\x63" + cloud_clock.pack(clock)[1:]) == UNKNOWN
    frozen = bytes.fromhex("01008c8647000000000100000000000000")
    assert best_of(cloud_clock.unpack(frozen)) == 20 * MINUTE

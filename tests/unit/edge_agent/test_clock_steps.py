"""What an agent keeps of how its clock was set, and what it tells of that with its rows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from decoders.uplink import MAX_STEPS, ClockStep, Gap, LossKind, Lost
from decoders.uplink_steps import NOBODY_KNOWS_US, sums_after
from edge_agent import clock_steps
from edge_agent.clock_steps import NONE, Steps
from edge_agent.cloud_clock import Sample

SECOND = 1_000_000
HOUR = 3600 * SECOND
NOW = 1_790_000_000 * SECOND
ONE, TWO, THREE = (bytes([n]) * 16 for n in (1, 2, 3))
BOOT = 5 * 60 * SECOND  # 1970-01-01 00:05


def begun(steps: Steps, life: bytes, *, head: int = 0, head_at: int = 0, at: int = NOW) -> Steps:
    return clock_steps.begun(steps, life=life, ahead_us=7, head=head, head_at=head_at, now_at=at)


def told(ahead: int, give_or_take: int = SECOND) -> Sample:
    return Sample(ahead_us=ahead, uncertainty_us=give_or_take)


def moved(steps: Steps, seq: int, heard_at: int) -> tuple[int, bool]:
    """When a row was heard by the clock of now, and whether that is sure."""
    known = clock_steps.of_stretch(steps, [seq])
    by_us, doubt_us = sums_after(known)[0] if known else (0, 0)
    return heard_at + by_us, doubt_us < 300 * SECOND


def test_rows_of_1970_are_moved_by_what_ntp_set_the_clock_by() -> None:
    steps = clock_steps.stepped(begun(NONE, ONE), first=4, by_us=NOW - BOOT)

    assert moved(steps, 3, BOOT - SECOND) == (NOW - SECOND, True)
    assert moved(steps, 4, NOW) == (NOW, True)


def test_a_restart_of_the_agent_alone_changes_nothing() -> None:
    steps = clock_steps.stepped(begun(NONE, ONE), first=4, by_us=HOUR)

    assert begun(clock_steps.unpack(clock_steps.pack(steps)), ONE, head=9, head_at=1) == steps
    assert steps.ahead_us == 7 + HOUR  # where the next run sees what was set meanwhile


def test_two_lives_that_acks_measured_are_as_far_apart_as_the_acks_say() -> None:
    steps = clock_steps.measured(begun(NONE, ONE), told(HOUR))  # an hour ahead of the cloud
    steps = begun(steps, TWO, head=9, head_at=NOW + HOUR, at=NOW + 5 * HOUR)
    assert moved(steps, 9, NOW + HOUR) == (NOW + HOUR, False)

    steps = clock_steps.measured(steps, told(0))  # the RTC was set while the machine was off

    assert moved(steps, 9, NOW + HOUR) == (NOW, True)
    assert moved(steps, 10, NOW) == (NOW, True)


def test_a_clock_that_is_set_between_boot_and_the_first_ack_is_not_counted_twice() -> None:
    steps = clock_steps.measured(begun(NONE, ONE), told(0))
    steps = begun(steps, TWO, head=9, head_at=NOW, at=BOOT)
    steps = clock_steps.stepped(steps, first=12, by_us=NOW + HOUR - BOOT)

    steps = clock_steps.measured(steps, told(0))

    assert moved(steps, 9, NOW) == (NOW, True)
    assert moved(steps, 11, BOOT) == (NOW + HOUR, True)


def test_a_life_that_no_ack_measured_is_doubted_and_its_1970_guessed() -> None:
    steps = begun(begun(NONE, ONE), TWO, head=3, head_at=BOOT, at=NOW)

    assert moved(steps, 3, BOOT) == (NOW, False)
    assert moved(steps, 4, NOW) == (NOW, True)

    again = clock_steps.measured(begun(steps, THREE, head=6, head_at=NOW, at=NOW + HOUR), told(0))
    assert moved(again, 3, BOOT) == (NOW, False)
    assert moved(again, 6, NOW) == (NOW, False)


def test_a_file_of_an_older_agent_is_believed_as_before() -> None:
    assert begun(NONE, ONE, head=9, head_at=BOOT).known == ()


def test_steps_are_bounded_and_what_is_joined_is_doubted_by_what_it_moved() -> None:
    steps = begun(NONE, ONE)
    for n in range(MAX_STEPS):
        steps = clock_steps.stepped(steps, first=10 * n + 2, by_us=HOUR if n else 60 * SECOND)
    steps = clock_steps.stepped(steps, first=900, by_us=2 * HOUR)

    assert len(steps.known) == MAX_STEPS
    assert steps.known[0] == ClockStep(seq=12, by_us=HOUR + 60 * SECOND, doubt_us=60 * SECOND)


def test_a_message_has_the_steps_among_its_rows_and_all_later_ones_as_one() -> None:
    steps = Steps(known=tuple(ClockStep(seq=n, by_us=n, doubt_us=1) for n in (2, 5, 8, 9)))

    assert clock_steps.of_stretch(steps, [3, 4, 6]) == (
        ClockStep(seq=5, by_us=5, doubt_us=1),
        ClockStep(seq=8, by_us=17, doubt_us=2),
    )
    assert clock_steps.of_stretch(steps, [9, 10]) == ()
    assert clock_steps.of_stretch(steps, []) == ()


def test_steps_follow_rows_that_are_numbered_anew() -> None:
    steps = Steps(known=(ClockStep(seq=4, by_us=1), ClockStep(seq=9, by_us=2)), opened=9)

    again = clock_steps.renumbered(steps, 5)

    assert (again.known, again.opened) == ((ClockStep(seq=4, by_us=2),), 4)


@pytest.mark.parametrize("measured", [None, told(5)])
@pytest.mark.parametrize("before", [None, told(-9)])
def test_a_checkpoint_holds_all_of_it(measured: Sample | None, before: Sample | None) -> None:
    known = (ClockStep(seq=4, by_us=-1, doubt_us=NOBODY_KNOWS_US), ClockStep(seq=9, by_us=2))
    steps = Steps(known=known, life=ONE, ahead_us=-5, measured=measured, opened=4, before=before)

    packed = clock_steps.pack(steps)

    assert clock_steps.unpack(packed) == steps
    assert clock_steps.unpack(packed[:-1]) == NONE
    assert clock_steps.unpack(b"\x09" + packed[1:]) == NONE
    assert clock_steps.pack(NONE) == b""
    assert clock_steps.unpack(b"") == NONE


def test_acks_that_say_the_same_again_are_not_worth_a_write() -> None:
    steps = clock_steps.measured(begun(NONE, ONE), told(0))

    assert clock_steps.measured(steps, told(SECOND, SECOND)) is steps
    assert clock_steps.measured(steps, told(0, SECOND // 4)).measured == told(0, SECOND // 4)
    moved_on = clock_steps.measured(steps, told(3 * SECOND))
    assert moved_on == replace(steps, measured=told(3 * SECOND))


@pytest.mark.parametrize(
    ("heard_at", "by_us", "kept"),
    [
        (BOOT, NOW - BOOT, NOW),  # waited in the queue while NTP set the clock
        (NOW, NOW - BOOT, NOW),  # came after
        (NOW - 2 * HOUR, HOUR, NOW - 2 * HOUR),  # an old one, delivered again
        (NOW + HOUR - SECOND, -HOUR, NOW - SECOND),
    ],
)
def test_a_frame_that_waited_while_the_clock_was_set_is_stamped_again(
    heard_at: int, by_us: int, kept: int
) -> None:
    assert clock_steps.restamped(heard_at, now_at=NOW, by_us=by_us) == kept


def test_what_is_gone_is_dated_by_the_clock_as_it_is() -> None:
    steps = Steps(known=(ClockStep(seq=5, by_us=NOW - BOOT),))
    gap = Gap(first=3, count=4, kind=LossKind.HOURLY, from_at=BOOT - SECOND, to_at=NOW + SECOND)
    lost = Lost(first=1, last=2, from_at=BOOT - 9, to_at=BOOT - 8)

    assert clock_steps.dated(steps, [gap]) == (replace(gap, from_at=NOW - SECOND),)
    assert clock_steps.dated(steps, [lost]) == (replace(lost, from_at=NOW - 9, to_at=NOW - 8),)
    assert clock_steps.dated(NONE, [gap]) == (gap,)

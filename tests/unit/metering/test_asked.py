"""What callers ask for is checked before the database sees it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cloud.kernel.problems import Problem
from cloud.metering.asked import RANGE_MAX, cursor_instant, cursor_key, time_range, zoned

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


def test_a_range_that_is_not_given_is_the_last_day() -> None:
    assert time_range(None, None, now=NOW) == (NOW - timedelta(days=1), NOW)


@pytest.mark.parametrize(
    ("from_at", "to_at", "code"),
    [
        (NOW, NOW, "range_invalid"),
        (NOW, NOW - timedelta(hours=1), "range_invalid"),
        (NOW - RANGE_MAX - timedelta(days=1), NOW, "range_invalid"),
        (datetime(2026, 3, 1), NOW, "instant_naive"),  # noqa: DTZ001  the fault under test
    ],
)
def test_a_range_that_means_nothing_is_refused(
    from_at: datetime, to_at: datetime, code: str
) -> None:
    with pytest.raises(Problem) as refused:
        time_range(from_at, to_at, now=NOW)

    assert refused.value.kind.code == code


def test_instants_are_answered_in_utc() -> None:
    local = datetime.fromisoformat("2026-03-01T18:00:00-06:00")

    assert zoned(local) == datetime(2026, 3, 2, tzinfo=UTC)
    assert zoned(local).tzinfo is UTC


@pytest.mark.parametrize("held", [None, 7, "yesterday", "2026-13-01T00:00:00Z"])
def test_a_cursor_of_another_list_is_refused(held: str | int | None) -> None:
    with pytest.raises(Problem):
        cursor_instant(held)


def test_a_key_cursor_holds_one_whole_number() -> None:
    assert cursor_key(None, first=5) == 5
    assert cursor_key((9,), first=5) == 9
    for other in [("9",), (1, 2), (None,)]:
        with pytest.raises(Problem):
            cursor_key(other, first=5)

"""Half-open periods, and a database that refuses two that overlap."""

from __future__ import annotations

import doctest
from collections.abc import Iterator
from datetime import UTC, date, datetime

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.kernel import periods as module
from cloud.kernel.db import Connection, Database, PeriodsOverlap, refusing_overlap
from cloud.kernel.periods import Period, PeriodBackwards, first_overlap

POINTS = st.integers(0, 12)


@st.composite
def periods(draw: st.DrawFn) -> Period[int]:
    starts = draw(POINTS)
    length = draw(st.none() | st.integers(1, 6))
    return Period(starts=starts, ends=None if length is None else starts + length)


def points_of(period: Period[int]) -> set[int]:
    """Every point of a small world that the period holds: the definition, spelled out."""
    return {point for point in range(30) if point in period}


def test_the_examples_of_the_documentation_hold() -> None:
    assert doctest.testmod(module).failed == 0


def test_a_period_cannot_end_before_it_starts() -> None:
    day = date(2026, 3, 1)

    with pytest.raises(PeriodBackwards, match="2026-03-01"):
        Period(starts=day, ends=day)


@given(periods(), periods())
def test_two_periods_overlap_exactly_when_they_share_a_point(
    one: Period[int], other: Period[int]
) -> None:
    shared = points_of(one) & points_of(other)
    both = one.intersection(other)

    assert one.overlaps(other) == other.overlaps(one) == bool(shared)
    assert (points_of(both) if both else set()) == shared


@given(st.lists(periods(), max_size=6))
def test_the_first_overlap_is_found_if_there_is_one(listed: list[Period[int]]) -> None:
    pairs = [(a, b) for n, a in enumerate(listed) for b in listed[:n] if a.overlaps(b)]

    found = first_overlap(listed)

    assert (found is None) == (not pairs)
    assert found is None or found[0].overlaps(found[1])


@pytest.fixture(scope="module")
def tariffs(module_database: Database) -> Iterator[Connection]:
    """A table of prices that hold in periods, in three kinds of columns."""
    with module_database.connect("metering") as connection:
        connection.execute(
            "CREATE TABLE price (tariff bigint, zone bigint, starts bigint, ends bigint);"
            "CALL forbid_overlap('price', 'starts', 'ends', 'tariff', 'zone');"
            "CREATE TABLE season (starts date, ends date);"
            "CALL forbid_overlap('season', 'starts', 'ends');"
            "CREATE TABLE contract (contract_key bigint, starts timestamptz, ends timestamptz);"
            "CALL forbid_overlap('contract', 'starts', 'ends', 'contract_key');"
        )
        connection.commit()
        yield connection


@given(st.lists(st.tuples(st.integers(-1, 1), st.integers(0, 1), periods()), max_size=12))
@settings(deadline=None)
def test_the_database_refuses_exactly_what_overlaps(
    tariffs: Connection, rows: list[tuple[int, int, Period[int]]]
) -> None:
    held: list[tuple[int, int, Period[int]]] = []
    with tariffs.transaction(force_rollback=True):
        for tariff, zone, period in rows:
            clashes = any(
                (tariff, zone) == (other, place) and period.overlaps(earlier)
                for other, place, earlier in held
            )
            refused = not insert(tariffs, (tariff, zone, period.starts, period.ends))
            assert refused == clashes
            if not refused:
                held.append((tariff, zone, period))


def insert(connection: Connection, row: tuple[int, int, int, int | None]) -> bool:
    """Add a price; say whether the database took it."""
    try:
        with connection.transaction():
            connection.execute("INSERT INTO price VALUES (%s, %s, %s, %s)", row)
    except psycopg.errors.ExclusionViolation:
        return False
    return True


def test_periods_of_dates_need_no_key(tariffs: Connection) -> None:
    rains = [("2026-06-01", "2026-10-01"), ("2026-10-01", None)]
    with tariffs.transaction(force_rollback=True):
        for row in rains:
            tariffs.execute("INSERT INTO season VALUES (%s, %s)", row)
        with pytest.raises(PeriodsOverlap, match="season_overlap"), refusing_overlap():
            tariffs.execute("INSERT INTO season VALUES ('2027-01-01', '2027-01-02')")


def test_periods_of_instants_follow_one_another_without_a_gap(tariffs: Connection) -> None:
    noon, evening = (datetime(2026, 3, 1, hour, tzinfo=UTC) for hour in (12, 18))
    with tariffs.transaction(force_rollback=True):
        tariffs.execute("INSERT INTO contract VALUES (7, %s, %s)", (noon, evening))
        tariffs.execute("INSERT INTO contract VALUES (7, %s, NULL)", (evening,))
        tariffs.execute("INSERT INTO contract VALUES (8, %s, NULL)", (noon,))
        with pytest.raises(PeriodsOverlap) as refusal, refusing_overlap():
            tariffs.execute("INSERT INTO contract VALUES (7, %s, NULL)", (noon,))
    assert refusal.value.constraint == "contract_overlap"


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ("(1, 1, 5, 5)", psycopg.errors.CheckViolation),
        ("(1, 1, 6, 5)", psycopg.errors.CheckViolation),
        ("(NULL, 1, 5, 6)", psycopg.errors.NotNullViolation),
        ("(1, 1, NULL, 6)", psycopg.errors.NotNullViolation),
    ],
)
def test_an_empty_backward_or_keyless_period_is_refused(
    tariffs: Connection, row: str, error: type[Exception]
) -> None:
    with tariffs.transaction(force_rollback=True), pytest.raises(error):
        tariffs.execute(f"INSERT INTO price VALUES {row}")


def test_a_period_of_something_else_is_refused(tariffs: Connection) -> None:
    with tariffs.transaction(force_rollback=True):
        tariffs.execute("CREATE TABLE odd (starts text, ends text)")
        with pytest.raises(psycopg.errors.RaiseException, match="timestamptz, date or bigint"):
            tariffs.execute("CALL forbid_overlap('odd', 'starts', 'ends')")

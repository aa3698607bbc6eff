"""What a caller asked for, checked: ranges of time, instants, cursors that hold an instant."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cloud.kernel.paging import CURSOR_INVALID
from cloud.kernel.problems import Problem, problem_type

RANGE_MAX = timedelta(days=400)  # a year and a bit: what a bill's dispute looks back
RANGE_DEFAULT = timedelta(days=1)
# What lies outside is a slip of the keyboard; within, arithmetic on instants cannot overflow.
FIRST_INSTANT, LAST_INSTANT = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
LAST_FRAME = b"\xff" * 17  # after every frame, which has 16 bytes
BIGINT_MAX = (1 << 63) - 1

RANGE_INVALID = problem_type("range_invalid", 422, "El intervalo de fechas no es válido")
INSTANT_NAIVE = problem_type("instant_naive", 422, "La fecha y hora necesita su zona (Z o -06:00)")
INSTANT_INVALID = problem_type("instant_invalid", 422, "La fecha debe estar entre 1970 y 2200")

Cursor = tuple[str | int | None, ...]


def zoned(at: datetime) -> datetime:
    """Return the instant in UTC. Raises `Problem` 422: without its zone, before 1970, from 2200."""
    if at.tzinfo is None:
        raise Problem(INSTANT_NAIVE)
    # compared before it is converted: in UTC the first day of year 1 may not exist
    if not FIRST_INSTANT <= at < LAST_INSTANT:
        raise Problem(INSTANT_INVALID)
    return at.astimezone(UTC)


def time_range(
    from_at: datetime | None, to_at: datetime | None, *, now: datetime
) -> tuple[datetime, datetime]:
    """Return [from, to): to now and a day back unless said. Raises `Problem` 422."""
    end = zoned(to_at) if to_at else now
    begin = zoned(from_at) if from_at else end - RANGE_DEFAULT
    if not begin < end:
        raise Problem(RANGE_INVALID, detail="«from» debe ser anterior a «to»")
    if end - begin > RANGE_MAX:
        raise Problem(RANGE_INVALID, detail=f"Pida a lo más {RANGE_MAX.days} días a la vez")
    return begin, end


def cursor_instant(held: str | int | None) -> datetime:
    """Return the instant of a cursor. Raises `Problem` 422 for a cursor of another list."""
    try:
        return zoned(datetime.fromisoformat(str(held)))
    except (ValueError, Problem):
        raise Problem(CURSOR_INVALID) from None


def cursor_key(after: Cursor | None, *, first: int) -> int:
    """Return the key of a cursor, `first` where there is none. Raises `Problem` 422."""
    if after is None:
        return first
    if len(after) != 1 or not isinstance(after[0], int) or not 0 <= after[0] <= BIGINT_MAX:
        raise Problem(CURSOR_INVALID)
    return after[0]


def cursor_reading(after: Cursor | None, *, begin: datetime) -> datetime:
    """Return where readings go on, `begin` without a cursor. Raises `Problem` 422."""
    if after is None:
        return begin
    if len(after) != 1:
        raise Problem(CURSOR_INVALID)
    return max(begin, cursor_instant(after[0]) + timedelta(microseconds=1))


def cursor_frame(after: Cursor | None) -> tuple[datetime, bytes]:
    """Return (last_heard_at, frame) of a cursor; without one, what is after every frame.

    Raises `Problem` 422 for a cursor of another list.
    """
    if after is None:
        return LAST_INSTANT, LAST_FRAME
    if len(after) != 2:
        raise Problem(CURSOR_INVALID)
    try:
        return cursor_instant(after[0]), bytes.fromhex(str(after[1]))
    except ValueError:
        raise Problem(CURSOR_INVALID) from None

"""What a caller asked for, checked: ranges of time, instants, cursors that hold an instant."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cloud.kernel.paging import CURSOR_INVALID
from cloud.kernel.problems import Problem, problem_type

RANGE_MAX = timedelta(days=400)  # a year and a bit: what a bill's dispute looks back
RANGE_DEFAULT = timedelta(days=1)
END_OF_TIME = datetime(9999, 1, 1, tzinfo=UTC)

RANGE_INVALID = problem_type("range_invalid", 422, "El intervalo de fechas no es válido")
INSTANT_NAIVE = problem_type("instant_naive", 422, "La fecha y hora necesita su zona (Z o -06:00)")


def zoned(at: datetime) -> datetime:
    """Return the instant in UTC. Raises `Problem` 422 for a time without its zone."""
    if at.tzinfo is None:
        raise Problem(INSTANT_NAIVE)
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
    except ValueError:
        raise Problem(CURSOR_INVALID) from None


def cursor_key(after: tuple[str | int | None, ...] | None, *, first: int) -> int:
    """Return the key of a cursor, `first` where there is none. Raises `Problem` 422."""
    if after is None:
        return first
    if len(after) != 1 or not isinstance(after[0], int):
        raise Problem(CURSOR_INVALID)
    return after[0]

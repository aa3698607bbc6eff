"""Pages by cursor: `?limit=&cursor=` in, `{"items": […], "next": cursor | null}` out.

A cursor is the sort key of the last row, opaque to callers. It is not secret and not trusted:
it only says where to go on, and the query filters by administration all the same.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Query

from cloud.kernel.problems import Problem, problem_type
from decoders.value import value

Row = TypeVar("Row")

LIMIT = 100
LIMIT_MAX = 1_000
CURSOR_CHARACTERS_MAX = 512

CURSOR_INVALID = problem_type("cursor_invalid", 422, "La página que pide no existe")

Key = Sequence[str | int | None]  # of the last row shown


@value
class PageRequest:
    """Which page a caller wants."""

    limit: int
    after: tuple[str | int | None, ...] | None  # None: the first page

    @property
    def rows(self) -> int:
        """How many rows to read: one more than shown tells whether there is a next page."""
        return self.limit + 1


def page_request(
    limit: Annotated[int, Query(ge=1, le=LIMIT_MAX)] = LIMIT,
    cursor: Annotated[str | None, Query(max_length=CURSOR_CHARACTERS_MAX)] = None,
) -> PageRequest:
    """Read a page request from the query. Raises `Problem` 422 for a cursor that is not ours."""
    return PageRequest(limit=limit, after=None if cursor is None else decode(cursor))


PageQuery = Annotated[PageRequest, Depends(page_request)]


def page(
    rows: Sequence[Row],
    wanted: PageRequest,
    *,
    key: Callable[[Row], Key],
    item: Callable[[Row], Any],
) -> dict[str, Any]:
    """Return one page of `rows`, of which the query read up to `wanted.rows`."""
    shown = rows[: wanted.limit]
    more = len(rows) > wanted.limit
    return {
        "items": [item(row) for row in shown],
        "next": encode(key(shown[-1])) if more and shown else None,
    }


def encode(key: Key) -> str:
    """Return the cursor of a row's sort key."""
    return urlsafe_b64encode(json.dumps(list(key)).encode()).decode().rstrip("=")


def decode(cursor: str) -> tuple[str | int | None, ...]:
    """Return the sort key of a cursor. Raises `Problem` 422."""
    try:
        held = json.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except ValueError:
        held = None
    if not isinstance(held, list) or not all(isinstance(p, str | int | None) for p in held):
        raise Problem(CURSOR_INVALID)
    return tuple(held)

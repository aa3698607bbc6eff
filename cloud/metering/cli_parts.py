"""What the commands of metering share: the open platform, one page of a list, a meter by name."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from cloud.kernel import console
from cloud.kernel.command_line import a_count
from cloud.kernel.console import CommandFailed
from cloud.kernel.paging import Key, PageRequest, decode, page
from cloud.kernel.platform import Platform
from cloud.metering import views
from cloud.metering.views import Connection, Row

CONTEXT = "metering"
ROWS = 200


def page_options(parser: argparse.ArgumentParser, *, rows: int = ROWS) -> None:
    """Let a list be read page by page."""
    parser.add_argument("--limit", type=a_count, default=rows, help=f"rows to show ({rows})")
    parser.add_argument(
        "--after", metavar="CURSOR", help="go on there: what the page before said on stderr"
    )


def wanted(arguments: argparse.Namespace) -> PageRequest:
    """Return the page that was asked for. Raises Problem for a cursor that is not ours."""
    after = None if arguments.after is None else decode(arguments.after)
    return PageRequest(limit=arguments.limit, after=after)


def answer_page(
    arguments: argparse.Namespace,
    rows: Sequence[Row],
    *,
    key: Callable[[Row], Key],
    item: Callable[[Row], Any],
) -> None:
    """Print one page, and on stderr how to go on when there is more."""
    shown = page(rows, wanted(arguments), key=key, item=item)
    console.answer(arguments, shown["items"])
    if shown["next"] is not None:
        console.remark(
            arguments,
            code="more",
            message=f"hay más: --after {shown['next']}",
            after=shown["next"],
        )


@contextmanager
def opened(arguments: argparse.Namespace) -> Iterator[tuple[Platform, Connection]]:
    """Open the platform and one transaction of metering."""
    platform: Platform = arguments.open_platform()
    try:
        with platform.pool(CONTEXT).connection() as connection:
            yield platform, connection
    finally:
        platform.close()


def meter_key_of(connection: Connection, platform: Platform, name: str) -> int:
    """Return the meter of a name, a DevEUI or a key. Raises CommandFailed."""
    key = views.meter_key_of(
        connection, administrations=platform.settings.administration_codes, name=name
    )
    if key is None:
        raise CommandFailed(f"no se conoce el medidor «{name}»", code="not_found")
    return key

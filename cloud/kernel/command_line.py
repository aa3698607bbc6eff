"""A command line that refuses in Spanish with a code (exit code 2) and shows lists page by page."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NoReturn

from cloud.kernel import console
from cloud.kernel.paging import Key, PageRequest, Row, decode, page

INSTANT_HELP = "instant with its zone, like 2026-11-24T12:00:00Z"
ROWS = 200  # that a list shows unless told otherwise
FIRST, LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)

# What argparse says in English; what is not here is passed on as it is.
_SPANISH = (
    (r"the following arguments are required: (.+)", r"falta: \1"),
    (r"one of the arguments (.+) is required", r"falta uno de: \1"),
    (r"unrecognized arguments: (.+)", r"no se reconoce: \1"),
    (r"ambiguous option: (.+) could match (.+)", r"\1 puede ser \2"),
    (r"argument (\S.*?): expected one argument", r"\1: falta su valor"),
    (r"argument (\S.*?): expected at (?:least|most) one argument", r"\1: falta su valor"),
    (r"argument (\S.*?): expected \d+ arguments?", r"\1: faltan sus valores"),
    (r"argument (\S.*?): not allowed with argument (.+)", r"\1 no va junto con \2"),
    (r"argument (\S.*?): ignored explicit argument (.+)", r"\1 no lleva valor: \2"),
    (
        r"argument (\S.*?): invalid choice: (.+) \(choose from (.+)\)",
        r"\1: no existe \2; hay \3",
    ),
    (r"argument (\S.*?): invalid int value: (.+)", r"\1: debe ser un número entero, no \2"),
    (r"argument (\S.*?): invalid float value: (.+)", r"\1: debe ser un número, no \2"),
    (r"argument (\S.*?): invalid \S+ value: (.+)", r"\1: valor no válido \2"),
    (r"argument (\S.*?): (.+)", r"\1: \2"),
)


class UsageWrong(console.CommandFailed):
    """What was typed is no command of ours."""

    def __init__(self, message: str, *, usage: str) -> None:
        super().__init__(message, code="usage", exit_code=console.USAGE)
        self.usage = usage


class Parser(argparse.ArgumentParser):
    """An argument parser that raises `UsageWrong`; its subparsers do too."""

    def error(self, message: str) -> NoReturn:
        raise UsageWrong(in_spanish(message), usage=self.format_usage().strip())


def in_spanish(message: str) -> str:
    """Return what argparse says, for people here."""
    for english, spanish in _SPANISH:
        found = re.fullmatch(english, message, re.DOTALL)
        if found:
            return found.expand(spanish)
    return message


def an_instant(text: str) -> datetime:
    """Read an instant with its zone, between 1970 and 2200."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"«{text}» no es fecha y hora, como 2026-03-01T06:00:00Z"
        ) from None
    if at.tzinfo is None:
        raise argparse.ArgumentTypeError(f"a «{text}» le falta la zona: añada Z o -06:00")
    if not FIRST <= at < LAST:
        raise argparse.ArgumentTypeError(f"«{text}»: la fecha debe estar entre 1970 y 2200")
    return at


def a_count(text: str) -> int:
    """Read how many rows to show."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:10]) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"de 1 a 1 000 000, no «{text}»")
    return int(text)


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

"""`aquacis events rejects|replay|dismiss`: facts no use case could handle, tried again."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from cloud import flow
from cloud.kernel import console, deadletter
from cloud.kernel.command_line import answer_page, page_options, wanted
from cloud.kernel.console import CommandFailed
from cloud.kernel.paging import CURSOR_INVALID
from cloud.kernel.platform import Platform
from cloud.kernel.postgres_bus import PostgresBus
from cloud.kernel.problems import Problem

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

Reject = tuple[str, deadletter.DeadLetter]  # with the context that could not handle it
Place = tuple[str, int]  # context, number


def add_commands(commands: Commands) -> None:
    """Register the commands of this module."""
    events = commands.add_parser("events", help="facts between contexts: those set aside, and why")
    actions = events.add_subparsers(metavar="ACTION", required=True)
    rejects = actions.add_parser("rejects", help="events a use case could not handle, oldest first")
    page_options(rejects)
    rejects.set_defaults(run=list_rejects)
    for name, run, says in (
        ("replay", replay, "handle one again; its effect happens once, however often you ask"),
        ("dismiss", dismiss, "close one without an effect"),
    ):
        parser = actions.add_parser(name, help=says)
        parser.add_argument("context", choices=sorted(consumers()), help="who could not handle it")
        parser.add_argument("number", type=int)
        parser.set_defaults(run=run)


def consumers() -> set[str]:
    """Return the contexts that handle events."""
    return {case.consumer for cases in flow.ROUTES.values() for case in cases}


def list_rejects(arguments: argparse.Namespace) -> int:
    asked = wanted(arguments)
    context, number = _place(asked.after)
    platform: Platform = arguments.open_platform()
    try:
        rows: list[Reject] = []
        for each in sorted(name for name in consumers() if name >= context):
            with platform.database.connect(each) as connection:
                letters = deadletter.find(
                    connection,
                    after=number if each == context else 0,
                    limit=asked.rows - len(rows),
                )
            rows += [(each, letter) for letter in letters]
    finally:
        platform.close()
    answer_page(arguments, rows, key=lambda row: [row[0], row[1].id], item=_shown)
    return 0


def _place(after: tuple[str | int | None, ...] | None) -> Place:
    """Return (context, number) that a cursor says. Raises Problem for one of another list."""
    match after:
        case None:
            return "", 0
        case (str() as context, int() as number) if 0 <= number < 1 << 63:
            return context, number
    raise Problem(CURSOR_INVALID)


def _shown(reject: Reject) -> dict[str, Any]:
    context, letter = reject
    return {
        "context": context,
        "number": letter.id,
        "subscription": letter.subscription,
        "code": letter.code,
        "attempts": letter.attempts,
        "last_at": letter.last_at,
        "reason": letter.reason,
    }


def replay(arguments: argparse.Namespace) -> int:
    platform: Platform = arguments.open_platform()
    try:
        bus = PostgresBus(
            platform.database, platform.blobs, sources=flow.SOURCES, upcasters=flow.UPCASTERS
        )
        subscriptions = flow.subscriptions(platform)
        done = bus.replay(subscriptions, arguments.context, arguments.number)
    except deadletter.NoSuchDeadLetter as unknown:
        raise _unknown(arguments) from unknown
    except Exception as failed:
        raise CommandFailed(
            f"el evento {arguments.number} no se pudo procesar otra vez: {failed}",
            code=deadletter.code_of(failed),
        ) from failed
    finally:
        platform.close()
    console.answer(arguments, {"number": arguments.number, "replayed": done})
    return 0


def dismiss(arguments: argparse.Namespace) -> int:
    platform: Platform = arguments.open_platform()
    try:
        with platform.database.connect(arguments.context) as connection:
            deadletter.dismiss(connection, arguments.number)
    except deadletter.NoSuchDeadLetter as unknown:
        raise _unknown(arguments) from unknown
    finally:
        platform.close()
    console.answer(arguments, {"number": arguments.number, "dismissed": True})
    return 0


def _unknown(arguments: argparse.Namespace) -> CommandFailed:
    return CommandFailed(
        f"{arguments.context} no tiene un evento apartado {arguments.number}", code="not_found"
    )

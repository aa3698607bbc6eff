"""`aquacis meters list|import`: which meters there are, and new ones from a file."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cloud.kernel import console
from cloud.kernel.command_line import answer_page, page_options, wanted
from cloud.kernel.console import CommandFailed
from cloud.metering import shapes, views
from cloud.metering.asked import cursor_key
from cloud.metering.cli_parts import opened
from cloud.metering.importing import MeterRefused, checked, import_meters
from cloud.metering.registry import NewMeter
from cloud.metering.views import Connection

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_commands(commands: Commands) -> None:
    """Register `meters`."""
    meters = commands.add_parser("meters", help="list meters, or import meters and their keys")
    actions = meters.add_subparsers(metavar="ACTION")
    found = actions.add_parser("list", help="meters in the order they became known")
    for parser in (meters, found):
        parser.add_argument("--search", help="any part of a serial or DevEUI")
        page_options(parser)
        parser.set_defaults(run=list_meters)
    imported = actions.add_parser(
        "import",
        help="register meters and radio keys",
        description='One JSON object a line: {"meter": "KAW-53885758", "key_hex": "…32 digits…", '
        '"dev_eui": "…16 digits…", "administration": "queretaro", "clock_offset_s": -21600}. Only '
        '"meter" is required. Importing a line twice changes nothing; a line that cannot be taken '
        "is named and nothing of the file is taken. A meter heard before under its DevEUI and the "
        "one of its serial become one, unless both have readings (dev_eui_taken).",
    )
    imported.add_argument("file", type=Path)
    imported.set_defaults(run=import_file)


def list_meters(arguments: argparse.Namespace) -> int:
    asked = wanted(arguments)
    with opened(arguments) as (platform, connection):
        rows = views.meters(
            connection,
            administrations=platform.settings.administration_codes,
            search=arguments.search,
            after=cursor_key(asked.after, first=0),
            limit=asked.rows,
        )
    answer_page(arguments, rows, key=lambda row: [row["meter_key"]], item=shapes.meter)
    return 0


def import_file(arguments: argparse.Namespace) -> int:
    read = [(number, new_meter(line, number)) for number, line in lines_of(arguments.file)]
    with opened(arguments) as (platform, connection):
        default = platform.settings.administration_codes[0]
        known = set(platform.settings.administration_codes)
        placed = placed_in(connection, [meter for _, meter in read], default=default)
        for meter in placed:
            if meter.administration not in known:
                raise CommandFailed(
                    f"{meter.name}: la administración «{meter.administration}» no está configurada",
                    code="administration_unknown",
                )
        try:
            new_meters, new_keys = import_meters(
                connection,
                placed,
                vault=platform.vault,
                now_us=platform.clock.now_us(),
                administrations=platform.settings.administrations,
            )
        except MeterRefused as refused:
            raise _refused(read[refused.index][0], refused) from None
    console.answer(
        arguments, {"meters": len(placed), "new_meters": new_meters, "new_keys": new_keys}
    )
    return 0


def placed_in(
    connection: Connection, meters: Sequence[NewMeter], *, default: str
) -> list[NewMeter]:
    """Return the meters with an administration: as their line says, else the one they are in,
    else the first of this deployment. A line about a key moves no meter.
    """
    names = [name for meter in meters for name in (meter.name, meter.dev_eui) if name]
    rows = connection.execute(
        """SELECT n.name, m.administration FROM meter_names n JOIN meters m USING (meter_key)
           WHERE n.name = ANY (%s)""",
        [names],
    )
    held: dict[str | None, str] = dict(rows.fetchall())
    return [
        replace(
            meter,
            administration=meter.administration
            or held.get(meter.name)
            or held.get(meter.dev_eui)
            or default,
        )
        for meter in meters
    ]


def _refused(line: int, refused: MeterRefused) -> CommandFailed:
    return CommandFailed(f"línea {line}: {refused}", code=refused.code)


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(f"{path}: {error}", code="file_unreadable") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield number, line


def new_meter(line: str, number: int) -> NewMeter:
    """Read one line of an import. Raises CommandFailed that names the line, never the key."""
    try:
        given = json.loads(line)
        key, offset_s = given.get("key_hex"), given.get("clock_offset_s")
        dev_eui = given.get("dev_eui")
        meter = NewMeter(
            name=str(given["meter"]),
            administration=str(given.get("administration") or ""),
            key=None if key is None else bytes.fromhex(key),
            dev_eui=None if dev_eui is None else str(dev_eui),
            clock_offset_s=None if offset_s is None else _whole(offset_s),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}"
        raise CommandFailed(
            f"línea {number}: no es un medidor ({reason})", code="meter_line_invalid"
        ) from None
    try:
        return checked(meter)
    except MeterRefused as refused:
        raise _refused(number, refused) from None


def _whole(given: object) -> int:
    if isinstance(given, bool) or not isinstance(given, int):
        raise TypeError("a whole number of seconds")
    return given

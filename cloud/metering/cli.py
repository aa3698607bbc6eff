"""`aquacis meters|readings|frames|gateways|alerts|rejects|explain`: metering at the terminal.

Runs beside the platform, on its database, for all administrations: who may log in to the machine
is its operator.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from cloud.kernel import console
from cloud.kernel.command_line import (
    INSTANT_HELP,
    an_instant,
    answer_page,
    page_options,
    wanted,
)
from cloud.kernel.console import CommandFailed
from cloud.kernel.platform import Platform
from cloud.metering import meters_cli, network_cli, shapes, views
from cloud.metering.asked import RANGE_MAX, cursor_frame, cursor_reading
from cloud.metering.cli_parts import meter_key_of, opened
from cloud.metering.explain import explain_reading, frame_fields
from cloud.metering.intervals import Point, hourly, local_day
from cloud.metering.network_views import full_hour
from cloud.metering.views import Connection, Row

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

READINGS = 1_000_000  # of one meter: more than a year of minutes
FRAME_DIGITS = 32
FRAME = re.compile(r"[0-9a-fA-F]{32}")


def add_commands(commands: Commands) -> None:
    """Register the commands of metering."""
    meters_cli.add_commands(commands)
    _add_readings(commands)
    _add_frames(commands)
    network_cli.add_commands(commands)
    _add_explain(commands)


def _add_readings(commands: Commands) -> None:
    readings = commands.add_parser("readings", help="what a meter's register was, and when")
    readings.add_argument("meter", help="KAW-53885758, a DevEUI, or the meter's key")
    readings.add_argument("--resolution", choices=("native", "hourly", "daily"), default="native")
    readings.add_argument("--from", dest="from_at", type=an_instant, help=INSTANT_HELP)
    readings.add_argument("--to", dest="to_at", type=an_instant, help=INSTANT_HELP)
    page_options(readings, rows=READINGS)
    readings.set_defaults(run=list_readings)


def _add_frames(commands: Commands) -> None:
    frames = commands.add_parser(
        "frames", help="what was heard of a meter, the last first; or one frame by its hash"
    )
    frames.add_argument("meter", help="a meter, or the 32 hex digits of a frame")
    page_options(frames)
    frames.set_defaults(run=list_frames)


def _add_explain(commands: Commands) -> None:
    explain = commands.add_parser("explain", help="why something is what it is")
    what = explain.add_subparsers(metavar="WHAT", required=True)
    reading = what.add_parser(
        "reading",
        help="from a reading to its bytes, decoded again before your eyes",
        description="Exit code 0: the bytes say the same litres again; 1: they do not.",
    )
    reading.add_argument("meter")
    reading.add_argument("instant", type=an_instant, help=INSTANT_HELP)
    reading.set_defaults(run=explain_one)


def list_readings(arguments: argparse.Namespace) -> int:
    with opened(arguments) as (platform, connection):
        key = meter_key_of(connection, platform, arguments.meter)
        end = arguments.to_at or platform.clock.now()
        begin = arguments.from_at or end - RANGE_MAX
        if arguments.resolution == "native":
            asked = wanted(arguments)
            found = views.readings(
                connection,
                meter_key=key,
                from_at=cursor_reading(asked.after, begin=begin),
                to_at=end,
                limit=asked.rows,
            )
            answer_page(
                arguments,
                found,
                key=lambda row: [row["register_at"].isoformat()],
                item=shapes.reading,
            )
            return 0
        rows: list[Any]
        if arguments.resolution == "daily":
            last = local_day(end) + timedelta(days=1)
            days = views.days(connection, meter_key=key, from_on=local_day(begin), to_on=last)
            rows = [shapes.day(row) for row in days]
        else:
            from_at = full_hour(arguments.from_at or end - timedelta(days=1))
            found = views.registers(connection, meter_key=key, from_at=from_at, to_at=end)
            points = [
                Point(at=r["register_at"], register_l=r["register_l"], late=r["late"])
                for r in found
            ]
            hours = hourly(points, from_at=from_at, to_at=full_hour(end))
            rows = [shapes.hour(one) for one in hours]
    console.answer(arguments, rows)
    return 0


def list_frames(arguments: argparse.Namespace) -> int:
    asked = wanted(arguments)
    is_frame = len(arguments.meter) == FRAME_DIGITS
    if is_frame and not FRAME.fullmatch(arguments.meter):
        raise CommandFailed(
            f"«{arguments.meter}» no es una trama: son {FRAME_DIGITS} dígitos hexadecimales",
            code="frame_invalid",
            exit_code=console.USAGE,
        )
    with opened(arguments) as (platform, connection):
        if is_frame:
            console.answer(arguments, _one_frame(connection, platform, arguments.meter))
            return 0
        administrations = platform.settings.administration_codes
        rows = views.meter_frames(
            connection,
            administrations=administrations,
            meter_key=meter_key_of(connection, platform, arguments.meter),
            before=cursor_frame(asked.after),
            limit=asked.rows,
        )
        heard = views.receptions(
            connection, administrations=administrations, frames=[row["frame"] for row in rows]
        )
    of_frame: dict[bytes, list[Row]] = {row["frame"]: [] for row in rows}
    for reception in heard:
        of_frame[reception["frame"]].append(reception)
    answer_page(
        arguments,
        rows,
        key=lambda row: [row["last_heard_at"].isoformat(), row["frame"].hex()],
        item=lambda row: _without_receptions(shapes.frame(of_frame[row["frame"]])),
    )
    return 0


def _one_frame(connection: Connection, platform: Platform, digits: str) -> Row:
    heard = views.receptions(
        connection,
        administrations=platform.settings.administration_codes,
        frames=[bytes.fromhex(digits)],
    )
    if not heard:
        raise CommandFailed("no se ha oído esa trama", code="not_found")
    return {**shapes.frame(heard), **frame_fields(connection, platform, heard[0])}


def explain_one(arguments: argparse.Namespace) -> int:
    with opened(arguments) as (platform, connection):
        key = meter_key_of(connection, platform, arguments.meter)
        explained = explain_reading(connection, platform, key, arguments.instant)
    if explained is None:
        raise CommandFailed("el medidor no tiene lecturas en ese momento", code="not_found")
    if arguments.json:
        console.answer(arguments, explained)
    else:
        print("\n".join(story(explained)))
    return 0 if explained["same"] else 1


def story(explained: dict[str, Any]) -> Iterator[str]:
    """Tell an explanation to a person, from the reading down to the bytes."""
    reading, batch = explained["reading"], explained["batch"]
    yield f"{explained['meter']['name']}  {reading['at']}  {reading['register_l']:,} l"
    yield f"  calidad     {', '.join(reading['quality']) or 'buena'}"
    yield f"  trama       {explained['frame']}  ({explained.get('integrity', '-')})"
    for one in explained["receptions"]:
        signal = "" if one["rssi_dbm"] is None else f"  {one['rssi_dbm']} dBm"
        yield f"  oída por    {one['gateway']:<12} {one['heard_at']}{signal}"
    yield f"  lote        {batch['batch']}, fila {batch['row']}  sha256 {batch['sha256']}"
    yield f"  recibida    {batch['received_at']}  reloj del gateway {batch['clock_quality']}"
    versions = explained["decoder_version"]
    yield f"  clave       versión {explained['key_version'] or '-'}"
    yield f"  decodificador  entonces {versions['then']}, ahora {versions['now']}"
    yield f"  bytes       {explained['raw']}"
    yield from (f"    {line}" for line in explained["layers"].splitlines())
    for name, held in explained["fields"].items():
        yield f"  {name:<32} {held}"
    again = explained["register_l"]["decoded_again"]
    verdict = "los mismos litros" if explained["same"] else "NO son los mismos litros"
    yield f"  de nuevo    {again if again is None else format(again, ',')} l: {verdict}"
    for conflict in explained["conflicts"]:
        yield (
            f"  conflicto   se conservó {conflict['kept_l']:,} l y no {conflict['other_l']:,} l "
            f"({conflict['rule']})"
        )


def _without_receptions(frame: Mapping[str, Any]) -> Row:
    return {name: held for name, held in frame.items() if name != "receptions"}

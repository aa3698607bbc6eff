"""`aquacis meters|readings|frames|gateways|alerts|rejects|explain`: metering at the terminal.

Runs beside the platform, on its database, for all administrations: who may log in to the machine
is its operator.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloud.kernel import console
from cloud.kernel.console import CommandFailed
from cloud.kernel.platform import Platform
from cloud.metering import network_views, shapes, views
from cloud.metering.asked import RANGE_MAX, cursor_frame
from cloud.metering.explain import explain_reading, frame_fields
from cloud.metering.importing import MeterRefused, checked, import_meters
from cloud.metering.intervals import Point, hourly, local_day
from cloud.metering.network_views import full_hour
from cloud.metering.registry import NewMeter
from cloud.metering.views import Connection, Row

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

CONTEXT = "metering"
ROWS = 200
INSTANT_HELP = "instant with its zone, like 2026-11-24T12:00:00Z"


def add_commands(commands: Commands) -> None:
    """Register the commands of metering."""
    _add_meters(commands)
    _add_readings(commands)
    _add_lists(commands)
    _add_explain(commands)


def _add_meters(commands: Commands) -> None:
    meters = commands.add_parser("meters", help="list meters, or import meters and their keys")
    actions = meters.add_subparsers(metavar="ACTION")
    found = actions.add_parser("list", help="meters by name")
    for parser in (meters, found):
        parser.add_argument("--search", help="any part of a serial or DevEUI")
        parser.set_defaults(run=list_meters)
    imported = actions.add_parser(
        "import",
        help="register meters and radio keys",
        description='One JSON object a line: {"meter": "KAW-53885758", "key_hex": "…32 digits…", '
        '"dev_eui": "…", "administration": "queretaro", "clock_offset_s": -21600}. Only "meter" '
        "is required. Importing a line twice changes nothing; a line that cannot be read is named "
        "and nothing of the file is taken.",
    )
    imported.add_argument("file", type=Path)
    imported.set_defaults(run=import_file)


def _add_readings(commands: Commands) -> None:
    readings = commands.add_parser("readings", help="what a meter's register was, and when")
    readings.add_argument("meter", help="KAW-53885758, a DevEUI, or the meter's key")
    readings.add_argument("--resolution", choices=("native", "hourly", "daily"), default="native")
    readings.add_argument("--from", dest="from_at", type=an_instant, help=INSTANT_HELP)
    readings.add_argument("--to", dest="to_at", type=an_instant, help=INSTANT_HELP)
    readings.set_defaults(run=list_readings)


def _add_lists(commands: Commands) -> None:
    frames = commands.add_parser(
        "frames", help="what was heard of a meter; or one frame by its hash"
    )
    frames.add_argument("meter", help="a meter, or the 32 hex digits of a frame")
    frames.set_defaults(run=list_frames)

    gateways = commands.add_parser("gateways", help="gateways: expected against received")
    gateways.set_defaults(run=list_gateways)

    alerts = commands.add_parser("alerts", help="leaks and bursts")
    alerts.add_argument("--state", choices=("open", "closed"))
    alerts.set_defaults(run=list_alerts)

    rejects = commands.add_parser("rejects", help="what could not be accepted, with its bytes")
    rejects.add_argument("--code", help="only of this code, e.g. wrong_key")
    rejects.set_defaults(run=list_rejects)


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


def an_instant(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise argparse.ArgumentTypeError("falta la zona: añada Z o -06:00")
    return at


def list_meters(arguments: argparse.Namespace) -> int:
    with opened(arguments) as (platform, connection):
        rows = views.meters(
            connection,
            administrations=platform.settings.administration_codes,
            search=arguments.search,
            after=0,
            limit=ROWS,
        )
    console.answer(arguments, [shapes.meter(row) for row in rows])
    return 0


def import_file(arguments: argparse.Namespace) -> int:
    read = [(number, new_meter(line, number)) for number, line in lines_of(arguments.file)]
    with opened(arguments) as (platform, connection):
        default = platform.settings.administration_codes[0]
        known = set(platform.settings.administration_codes)
        placed = [replace(m, administration=m.administration or default) for _, m in read]
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


def list_readings(arguments: argparse.Namespace) -> int:
    with opened(arguments) as (platform, connection):
        key = _meter_key(connection, platform, arguments.meter)
        end = arguments.to_at or platform.clock.now()
        begin = arguments.from_at or end - RANGE_MAX
        rows: list[Row]
        if arguments.resolution == "daily":
            last = local_day(end) + timedelta(days=1)
            days = views.days(connection, meter_key=key, from_on=local_day(begin), to_on=last)
            rows = [shapes.day(row) for row in days]
        elif arguments.resolution == "hourly":
            from_at = full_hour(arguments.from_at or end - timedelta(days=1))
            found = views.registers(connection, meter_key=key, from_at=from_at, to_at=end)
            points = [
                Point(at=r["register_at"], register_l=r["register_l"], late=r["late"])
                for r in found
            ]
            hours = hourly(points, from_at=from_at, to_at=full_hour(end))
            rows = [shapes.hour(one) for one in hours]
        else:
            found = views.readings(
                connection, meter_key=key, from_at=begin, to_at=end, limit=1_000_000
            )
            rows = [shapes.reading(row) for row in found]
    console.answer(arguments, rows)
    return 0


def list_frames(arguments: argparse.Namespace) -> int:
    with opened(arguments) as (platform, connection):
        administrations = platform.settings.administration_codes
        if len(arguments.meter) == 32:
            frame = bytes.fromhex(arguments.meter)
            heard = views.receptions(connection, administrations=administrations, frames=[frame])
            if not heard:
                raise CommandFailed("no se ha oído esa trama", code="not_found")
            said = frame_fields(connection, platform, heard[0])
            console.answer(arguments, {**shapes.frame(heard), **said})
            return 0
        key = _meter_key(connection, platform, arguments.meter)
        rows = views.meter_frames(
            connection,
            administrations=administrations,
            meter_key=key,
            before=cursor_frame(None),
            limit=ROWS,
        )
        heard = views.receptions(
            connection, administrations=administrations, frames=[row["frame"] for row in rows]
        )
    of_frame: dict[bytes, list[Row]] = {row["frame"]: [] for row in rows}
    for reception in heard:
        of_frame[reception["frame"]].append(reception)
    console.answer(arguments, [_without_receptions(shapes.frame(f)) for f in of_frame.values()])
    return 0


def list_gateways(arguments: argparse.Namespace) -> int:
    with opened(arguments) as (platform, connection):
        rows = network_views.gateways(
            connection,
            administrations=platform.settings.administration_codes,
            now=platform.clock.now(),
        )
    gateways = [shapes.gateway(row, []) for row in rows]
    console.answer(arguments, [{k: v for k, v in g.items() if k != "hours"} for g in gateways])
    return 0


def list_alerts(arguments: argparse.Namespace) -> int:
    with opened(arguments) as (platform, connection):
        rows = views.alerts(
            connection,
            administrations=platform.settings.administration_codes,
            state=arguments.state,
            meter_key=None,
            before=(1 << 63) - 1,
            limit=ROWS,
        )
    console.answer(arguments, [shapes.alert(row) for row in rows])
    return 0


def list_rejects(arguments: argparse.Namespace) -> int:
    with opened(arguments) as (platform, connection):
        rows = views.dead_letters(
            connection,
            administrations=platform.settings.administration_codes,
            code=arguments.code,
            state=None,
            before=(1 << 63) - 1,
            limit=ROWS,
            strangers=True,
        )
    console.answer(arguments, [shapes.dead_letter(row) for row in rows])
    return 0


def explain_one(arguments: argparse.Namespace) -> int:
    with opened(arguments) as (platform, connection):
        key = _meter_key(connection, platform, arguments.meter)
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


@contextmanager
def opened(arguments: argparse.Namespace) -> Iterator[tuple[Platform, Connection]]:
    """Open the platform and one transaction of metering."""
    platform: Platform = arguments.open_platform()
    try:
        with platform.pool(CONTEXT).connection() as connection:
            yield platform, connection
    finally:
        platform.close()


def _meter_key(connection: Connection, platform: Platform, name: str) -> int:
    key = views.meter_key_of(
        connection, administrations=platform.settings.administration_codes, name=name
    )
    if key is None:
        raise CommandFailed(f"no se conoce el medidor «{name}»", code="not_found")
    return key


def _without_receptions(frame: Row) -> Row:
    return {name: held for name, held in frame.items() if name != "receptions"}

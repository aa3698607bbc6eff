"""`aquacis gateways|alerts|rejects`: what the network desk looks after."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cloud.kernel import console
from cloud.kernel.command_line import answer_page, page_options, wanted
from cloud.kernel.console import CommandFailed
from cloud.kernel.platform import Platform
from cloud.metering import network_views, shapes, views
from cloud.metering.asked import BIGINT_MAX, cursor_key
from cloud.metering.cli_parts import opened
from cloud.metering.dead_letters import DeadLetterUnknown
from cloud.metering.service import Metering

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

NOT_REPLAYED = """\
exit code 1: refused again (the code says why now), or it is closed already
"""


def add_commands(commands: Commands) -> None:
    """Register `gateways`, `alerts` and `rejects`."""
    gateways = commands.add_parser("gateways", help="gateways: expected against received")
    gateways.set_defaults(run=list_gateways)
    actions = gateways.add_subparsers(metavar="ACTION")
    actions.add_parser("list", help="the same").set_defaults(run=list_gateways)
    reports = actions.add_parser(
        "reports", help="what a gateway reported of itself (source_down, shed, …), newest first"
    )
    reports.add_argument("gateway")
    reports.add_argument("--kind", help="only of this kind, e.g. source_down")
    page_options(reports)
    reports.set_defaults(run=list_reports)

    alerts = commands.add_parser("alerts", help="leaks and bursts, newest first")
    alerts.add_argument("--state", choices=("open", "closed"))
    page_options(alerts)
    alerts.set_defaults(run=list_alerts)
    _add_rejects(commands)


def _add_rejects(commands: Commands) -> None:
    rejects = commands.add_parser("rejects", help="what could not be accepted, with its bytes")
    actions = rejects.add_subparsers(metavar="ACTION")
    found = actions.add_parser("list", help="newest first")
    for parser in (rejects, found):
        parser.add_argument("--code", help="only of this code, e.g. wrong_key")
        parser.add_argument("--state", choices=("open", "replayed", "dismissed"))
        page_options(parser)
        parser.set_defaults(run=list_rejects)
    again = actions.add_parser(
        "replay", help="try one again, with today's keys and decoders", epilog=NOT_REPLAYED
    )
    again.set_defaults(run=replay)
    closed = actions.add_parser("dismiss", help="close one for good; its bytes stay")
    closed.set_defaults(run=dismiss)
    for parser in (again, closed):
        parser.add_argument("id", type=int, help="its number in the list")


def list_gateways(arguments: argparse.Namespace) -> int:
    with opened(arguments) as (platform, connection):
        rows = network_views.gateways(
            connection,
            administrations=platform.settings.administration_codes,
            now=platform.clock.now(),
        )
    gateways: list[dict[str, Any]] = []
    for row in rows:
        said = {k: v for k, v in shapes.gateway(row, []).items() if k != "hours"}
        gateways.append(said if arguments.json else said | {"health": _in_words(row["health"])})
    console.answer(arguments, gateways)
    return 0


def _in_words(health: Mapping[str, int]) -> str:
    """Return what fits a column of what an agent said of its board and its sources."""
    said: list[str] = []
    if "temperature_c" in health:
        said.append(f"{health['temperature_c']} °C")
    if "supply_mv" in health:
        said.append(f"{health['supply_mv'] / 1000:.1f} V")
    if health.get("disk_total_kib"):
        said.append(f"disco {health['disk_free_kib'] / health['disk_total_kib']:.0%} libre")
    down = [
        n for n, up in health.items() if n.startswith("source_") and n.endswith("_up") and not up
    ]
    said += [f"fuente {name[len('source_') : -len('_up')]} caída" for name in down]
    return ", ".join(said)


def list_reports(arguments: argparse.Namespace) -> int:
    asked = wanted(arguments)
    with opened(arguments) as (platform, connection):
        gateway_key = network_views.gateway_key_of(
            connection,
            administrations=platform.settings.administration_codes,
            gateway=arguments.gateway,
        )
        if gateway_key is None:
            raise CommandFailed(f"no se conoce el gateway «{arguments.gateway}»", code="not_found")
        rows = network_views.reports(
            connection,
            gateway_key=gateway_key,
            kind=arguments.kind,
            before=cursor_key(asked.after, first=BIGINT_MAX),
            limit=asked.rows,
        )
    answer_page(arguments, rows, key=lambda row: [row["report_key"]], item=shapes.report)
    return 0


def list_alerts(arguments: argparse.Namespace) -> int:
    asked = wanted(arguments)
    with opened(arguments) as (platform, connection):
        rows = views.alerts(
            connection,
            administrations=platform.settings.administration_codes,
            state=arguments.state,
            meter_key=None,
            before=cursor_key(asked.after, first=BIGINT_MAX),
            limit=asked.rows,
        )
    answer_page(arguments, rows, key=lambda row: [row["alert_key"]], item=shapes.alert)
    return 0


def list_rejects(arguments: argparse.Namespace) -> int:
    asked = wanted(arguments)
    with opened(arguments) as (platform, connection):
        rows = views.dead_letters(
            connection,
            administrations=platform.settings.administration_codes,
            code=arguments.code,
            state=arguments.state,
            before=cursor_key(asked.after, first=BIGINT_MAX),
            limit=asked.rows,
            strangers=True,
        )
    answer_page(arguments, rows, key=lambda row: [row["dead_letter_key"]], item=shapes.dead_letter)
    return 0


def replay(arguments: argparse.Namespace) -> int:
    platform: Platform = arguments.open_platform()
    try:
        with Metering.on(platform) as metering:
            done = metering.replay(arguments.id)
    except DeadLetterUnknown:
        raise _unknown(arguments) from None
    finally:
        platform.close()
    if done.code is not None:
        raise CommandFailed(
            f"el rechazo {arguments.id} no se pudo aceptar: {done.detail}", code=done.code
        )
    console.answer(
        arguments, {"id": arguments.id, "state": "replayed", "readings_new": done.readings_new}
    )
    return 0


def dismiss(arguments: argparse.Namespace) -> int:
    platform: Platform = arguments.open_platform()
    try:
        with Metering.on(platform) as metering:
            state = metering.dismiss(arguments.id)
    except DeadLetterUnknown:
        raise _unknown(arguments) from None
    finally:
        platform.close()
    if state != "dismissed":
        raise CommandFailed(f"el rechazo {arguments.id} ya se aceptó", code="dead_letter_closed")
    console.answer(arguments, {"id": arguments.id, "state": state})
    return 0


def _unknown(arguments: argparse.Namespace) -> CommandFailed:
    return CommandFailed(f"no hay un rechazo {arguments.id}", code="not_found")

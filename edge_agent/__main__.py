"""aquacis-edge: the agent on a gateway. `aquacis-edge --help` explains itself."""

from __future__ import annotations

import argparse
import os
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Final

from edge_agent import (
    VERSION,
    inspection,
    keys_commands,
    leaks_commands,
    replaying,
    selftest,
    selftest_broker,
)
from edge_agent.config import Config, read_config
from edge_agent.decoding import decode_lines
from edge_agent.hardening import harden
from edge_agent.health import Status
from edge_agent.keys import KeyFileUnusable, read_keys
from edge_agent.log_lines import log
from edge_agent.outbox import OutboxUnusable
from edge_agent.outbox_rescue import suspect
from edge_agent.settings_text import ConfigError
from edge_agent.vital_signs import VitalSigns
from edge_agent.wiring import OUTBOX_FILE, agent_of

EXIT_USAGE: Final = 2
EXIT_OUTBOX: Final = 74  # EX_IOERR
EXIT_CONFIG: Final = 78  # EX_CONFIG

HELP: Final = """\
The agent on a gateway: hears meters, decodes them, finds leaks, keeps what matters on its own
disk and forwards it until the cloud has said that it holds it.

  aquacis-edge run --config /etc/aquacis/gateway.json     work until SIGTERM or SIGINT
  aquacis-edge drain --config …                           send what is left, then exit
  aquacis-edge replay FILE --speed max --config …         take a recording, then exit
  aquacis-edge inspect --config …                         what the outbox holds
  aquacis-edge keys list --config …                       import, rotate, list the meters' keys
  rtl_wmbus | aquacis-edge decode - --keys keys.jsonl     decode lines, one JSON object each
  aquacis-edge leaks evaluate FOLDER                      the leak rules, tried on registers
  aquacis-edge selftest                                   can this machine do all of it?

The settings file is described in edge_agent/config.py, keys in edge_agent/keys.py, the
lines that `decode` and a source of kind "lines" read in edge_agent/sources/lines.py.
"""
EXITS: Final = """\
exit codes:
   0  done, or stopped by a signal after everything heard was on disk
   1  selftest failed, or decode met a line that it could not read
   2  wrong usage
  66  replay: the recording cannot be read
  74  the outbox cannot be used
  75  drain: the time was up and rows are left; nothing is lost, run it again
  77  the broker refused our subscription: its access rules or this gateway's id are wrong
  78  the settings or the key file are wrong
logs are JSON on stderr; answers are on stdout.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code. Without `arguments`: this process's own command."""
    if arguments is None:
        harden(log)
    given = _parser().parse_args(arguments)
    try:
        with files_for_us_alone():
            return int(given.command(given))
    except KeyFileUnusable as error:
        log("keys_unusable", code=error.code, reason=str(error))
        return EXIT_CONFIG
    except ConfigError as error:
        log("settings_wrong", reason=str(error))
        return EXIT_CONFIG
    except (OutboxUnusable, OSError, sqlite3.DatabaseError) as error:
        log("outbox_unusable", reason=str(error))
        return EXIT_OUTBOX


@contextmanager
def files_for_us_alone() -> Iterator[None]:
    """Let nobody else read what is made meanwhile: rows hold what households use, and when."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def run(given: argparse.Namespace) -> int:
    config = _config(given)
    log("starting", version=VERSION, **config.printable())
    signs = VitalSigns(status_file=Path(given.status_file) if given.status_file else None)
    with _page(config) as show:
        agent = agent_of(config, log=signs.watching(log), watcher=show)
        _stop_on_signals(agent.stop)
        try:
            return agent.run()
        except sqlite3.DatabaseError as error:
            suspect(config.state / OUTBOX_FILE, str(error))
            raise


def _page(config: Config) -> AbstractContextManager[Callable[[Status], None] | None]:
    if config.local_port is None:
        return nullcontext()
    from edge_agent.local_server import local_page  # noqa: PLC0415  a server: only where a page is wanted

    return local_page(config, log)


def drain(given: argparse.Namespace) -> int:
    config = _config(given)
    agent = agent_of(config, log=log, with_sources=False)
    _stop_on_signals(agent.stop)
    return agent.drain(given.timeout)


def replay(given: argparse.Namespace) -> int:
    return replaying.replay(given, _config(given), log=log, stop_on_signals=_stop_on_signals)


def inspect(given: argparse.Namespace) -> int:
    return inspection.show(_config(given), as_json=given.json, with_tables=given.tables)


def keys(given: argparse.Namespace) -> int:
    try:
        return int(given.answer(given, _config(given)))
    except OSError as error:
        raise KeyFileUnusable("keys_not_written", str(error)) from None


def decode(given: argparse.Namespace) -> int:
    return decode_lines(
        given.file,
        keys=read_keys(Path(given.keys)) if given.keys else {},
        already_decrypted=given.already_decrypted,
        form="explain" if given.explain else "table" if given.table else "json",
        colour=given.colour == "always" or (given.colour == "auto" and sys.stdout.isatty()),
    )


def check_machine(given: argparse.Namespace) -> int:
    try:
        broker = selftest_broker.asked_for(given)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return selftest.run(as_json=given.json, broker=broker)


def _config(given: argparse.Namespace) -> Config:
    return read_config(Path(given.config))


def _stop_on_signals(stop: object) -> None:
    assert callable(stop)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="aquacis-edge",
        description=HELP,
        epilog=EXITS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=VERSION)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, does: object, says: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name, help=says, description=says, epilog=EXITS, formatter_class=parser.formatter_class
        )
        added.set_defaults(command=does)
        return added

    running = command("run", run, "hear, keep and forward until stopped")
    running.add_argument("--status-file", metavar="FILE", help="keep {pid, AppInfo} there")
    draining = command("drain", drain, "send what the outbox still holds, then exit")
    draining.add_argument("--timeout", type=float, default=300.0, metavar="S", help="default 300")
    playing = command("replay", replay, "take recorded lines, at their own pace or faster")
    replaying.add_options(playing)
    looking = command("inspect", inspect, "say what the outbox holds; works while the agent runs")
    looking.add_argument("--json", action="store_true", help="as one JSON object on stdout")
    looking.add_argument("--tables", action="store_true", help="also how many rows each table has")
    for with_config in (running, draining, playing, looking):
        with_config.add_argument("--config", required=True, metavar="FILE", help="settings, JSON")
    holding = command("keys", keys, "the meters' keys that this gateway holds, sealed")
    keys_commands.add_commands(holding)
    leaking = command("leaks", leaks_commands.run, "try the leak rules on registers in files")
    leaks_commands.add_commands(leaking)
    reading = command("decode", decode, "decode telegrams, one JSON object a line on stdout")
    _decode_options(reading)
    testing = command(
        "selftest", check_machine, "decode, decrypt, store and encode on this machine"
    )
    testing.add_argument("--json", action="store_true", help="as one JSON object on stdout")
    selftest_broker.add_options(testing)
    return parser


def _decode_options(reading: argparse.ArgumentParser) -> None:
    reading.add_argument("file", help="a file of lines, or - for standard input")
    reading.add_argument("--keys", metavar="FILE", help="meters' keys, JSON lines, mode 0600")
    reading.add_argument(
        "--already-decrypted",
        action="store_true",
        help="the telegrams were decrypted before they were logged, whatever they say",
    )
    forms = reading.add_mutually_exclusive_group()
    forms.add_argument("--explain", action="store_true", help="byte by byte, for people")
    forms.add_argument("--table", action="store_true", help="one row a telegram, for people")
    reading.add_argument(
        "--colour", choices=("auto", "always", "never"), default="auto", help="of --explain"
    )


if __name__ == "__main__":
    raise SystemExit(main())

"""`aquacis`: the platform's one command. Subcommands are declared by whoever owns them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import psycopg

from cloud import app, events_cli, serve
from cloud.kernel import cli as kernel_cli
from cloud.kernel import config, console
from cloud.kernel.auth import cli as auth_cli
from cloud.kernel.command_line import Parser, UsageWrong
from cloud.kernel.db import MigrationChanged, SchemaIsNewer
from cloud.kernel.keyvault import UnwrapRefused
from cloud.kernel.platform import Platform
from cloud.kernel.postgres_errors import ServerError
from cloud.kernel.problems import Problem
from cloud.metering import cli as metering_cli
from cloud.metering.service import Metering

DESCRIPTION = """\
AquaCIS: from the radio telegram of a meter to the reading on the screen.

Every setting comes from the environment (AQUACIS_…) or the TOML file that AQUACIS_CONFIG
names; `aquacis config show` prints what this process would use, with secrets masked.
"""
EXAMPLES = """\
first steps:
  aquacis config show                    what is set, and which parts are only for a laptop
  aquacis users add ana --role clerk --administration queretaro
  aquacis serve                          the API and the pages
  aquacis --json users list              the same for programs

"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code (see `aquacis --help`)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in given  # before or after the subcommand: people try both
    parsed = argparse.Namespace(json=as_json)
    try:
        parser().parse_args([word for word in given if word != "--json"], namespace=parsed)
    except UsageWrong as wrong:
        if not as_json:
            print(wrong.usage, file=sys.stderr)
        console.complain(parsed, code=wrong.code, message=str(wrong))
        return wrong.exit_code
    parsed.json = as_json
    parsed.open_platform = lambda: app.open_platform(console.settings())
    parsed.seal_again = {"meter_keys": seal_meter_keys_again}
    return run(parsed)


def run(parsed: argparse.Namespace) -> int:
    """Run the command that was parsed; return its exit code."""
    try:
        return int(parsed.run(parsed))
    except config.ConfigurationInvalid as invalid:
        for reason in invalid.reasons:
            console.complain(parsed, code="configuration_invalid", message=reason)
        return console.CONFIG
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader left; there is nobody to tell
        return console.FAILED
    except EXPECTED as error:
        exit_code, code, message = told(error)
        console.complain(parsed, code=code, message=message)
        return exit_code


def seal_meter_keys_again(platform: Platform) -> int:
    """Wrap the meters' radio keys under the newest key; return how many were not yet."""
    with Metering.on(platform) as metering:
        return metering.rewrap_keys()


EXPECTED = (
    Problem,
    console.CommandFailed,
    ServerError,
    psycopg.OperationalError,
    MigrationChanged,
    SchemaIsNewer,
    UnwrapRefused,
)


def told(error: Exception) -> tuple[int, str, str]:
    """Return exit code, code and Spanish words of an error that an operator can mend."""
    if isinstance(error, console.CommandFailed):
        return error.exit_code, error.code, str(error)
    if isinstance(error, Problem):  # an argument that the API would refuse too
        return console.USAGE, error.kind.code, error.detail or error.kind.title
    if isinstance(error, ServerError):
        return console.UNAVAILABLE, error.code, error.spanish
    if isinstance(error, psycopg.OperationalError):
        message = f"la base de datos no responde: {error}".strip()
        return console.UNAVAILABLE, "database_unavailable", message
    if isinstance(error, UnwrapRefused):
        message = f"la llave de cifrado no es la que selló los datos de esta base: {error}"
        return console.CONFIG, "key_refused", message
    message = f"la base de datos es de otra versión de este programa: {error}"
    return console.CONFIG, "schema_differs", message


def parser() -> Parser:
    """Return the parser of all commands that this installation has."""
    made = Parser(
        prog="aquacis",
        description=DESCRIPTION,
        epilog=EXAMPLES + console.EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("--json", action="store_true", help="answer with JSON on stdout, alone")
    commands = made.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for owner in (serve, kernel_cli, auth_cli, metering_cli, events_cli):
        owner.add_commands(commands)
    return made


if __name__ == "__main__":
    raise SystemExit(main())

"""`aquacis`: the platform's one command. Subcommands are declared by whoever owns them."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
from collections.abc import Sequence

import psycopg

from cloud import app
from cloud.kernel import config, console
from cloud.kernel.postgres_errors import ServerError

COMMANDS = ("cloud.serve", "cloud.kernel.cli", "cloud.kernel.auth.cli", "cloud.metering.cli")

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
    parsed = parser().parse_args([word for word in given if word != "--json"])
    parsed.json = as_json
    parsed.open_platform = lambda: app.open_platform(console.settings())
    try:
        return int(parsed.run(parsed))
    except console.CommandFailed as failed:
        console.complain(parsed, code=failed.code, message=str(failed))
        return failed.exit_code
    except config.ConfigurationInvalid as invalid:
        for reason in invalid.reasons:
            console.complain(parsed, code="configuration_invalid", message=reason)
        return console.CONFIG
    except (ServerError, psycopg.OperationalError) as error:
        code, message = "database_unavailable", f"la base de datos no responde: {error}".strip()
        if isinstance(error, ServerError):
            code, message = error.code, error.spanish
        console.complain(parsed, code=code, message=message)
        return console.UNAVAILABLE
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader left; there is nobody to tell
        return console.FAILED


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands that this installation has."""
    made = argparse.ArgumentParser(
        prog="aquacis",
        description=DESCRIPTION,
        epilog=EXAMPLES + console.EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("--json", action="store_true", help="answer with JSON on stdout, alone")
    commands = made.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in COMMANDS:
        if _exists(name):
            importlib.import_module(name).add_commands(commands)
    return made


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


if __name__ == "__main__":
    raise SystemExit(main())

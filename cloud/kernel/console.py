"""How a command answers: a table for people, JSON for programs, exit codes for scripts."""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from cloud.kernel import config
from cloud.kernel.config import Settings

ROOT = Path(__file__).resolve().parents[2]

FAILED = 1
USAGE = 2
UNAVAILABLE = 69  # EX_UNAVAILABLE: database or broker; try again
CONFIG = config.EXIT_CONFIG
EXIT_CODES = """\
exit codes:
  0   done
  1   failed; stderr says why, in Spanish with a code
  2   wrong usage
  69  the database or the broker does not answer; try again
  77  the broker lets intake in, but not read the gateways' topics
  78  the configuration does not allow it; stderr lists each reason
"""


class CommandFailed(Exception):
    """A command could not do what was asked; the message is for people, with a code."""

    def __init__(self, message: str, *, code: str, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code
        self.exit_code = exit_code


def settings() -> Settings:
    """Return this process's settings, read from the environment. Raises ConfigurationInvalid."""
    return config.load(ROOT, os.environ)


def answer(arguments: Namespace, given: Any) -> None:  # noqa: ANN401  JSON values
    """Print the answer on stdout: JSON with --json, else lines and tables for a terminal."""
    if arguments.json:
        print(json.dumps(given, ensure_ascii=False, default=_json))
        return
    if isinstance(given, Mapping):
        width = max((len(str(name)) for name in given), default=0)
        for name, held in given.items():
            print(f"{name:<{width}}  {_text(held)}")
    elif isinstance(given, Sequence) and not isinstance(given, str):
        _table(given)
    else:
        print(given)


def _table(rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        return
    names = list(rows[0])
    cells = [names, *([_text(row.get(name)) for name in names] for row in rows)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(names))]
    for line in cells:
        print("  ".join(f"{cell:<{w}}" for cell, w in zip(line, widths, strict=True)).rstrip())


def _text(held: Any) -> str:  # noqa: ANN401  JSON values
    if held is None:
        return "-"
    if isinstance(held, str | int | float):
        return str(held)
    if isinstance(held, datetime):
        return _json(held)
    return json.dumps(held, ensure_ascii=False, default=_json)


def _json(held: object) -> str:
    if isinstance(held, datetime):
        return held.isoformat().replace("+00:00", "Z")
    return str(held)


def complain(arguments: Namespace, *, code: str, message: str) -> None:
    """Say on stderr what went wrong, in the form that was asked for."""
    if arguments.json:
        print(json.dumps({"code": code, "message": message}, ensure_ascii=False), file=sys.stderr)
    else:
        print(f"aquacis: {message} [{code}]", file=sys.stderr)


def remark(arguments: Namespace, *, code: str, message: str, **more: str) -> None:
    """Say on stderr what goes with an answer; `more` is for programs."""
    if arguments.json:
        told = {"code": code, "message": message, **more}
        print(json.dumps(told, ensure_ascii=False), file=sys.stderr)
    else:
        print(f"aquacis: {message}", file=sys.stderr)

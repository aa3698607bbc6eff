"""`aquacis backup FILE` and `aquacis restore FILE`: the database in one file, and back."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cloud.kernel import backup, console
from cloud.kernel.backup import BackupFailed, DatabaseInUse, Progress
from cloud.kernel.platform import open_server

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

BACKUP = """\
Write the database into FILE (PostgreSQL's custom format, 0600). The platform may run on.

FILE holds the database alone. Then copy, from the state folder, blobs/ (the raw telegrams that
readings point to) and keys/ (without which sealed values stay sealed) beside it.
"""
RESTORE = """\
Replace the database by what FILE holds. Stop the platform first. A restore that fails or is
interrupted changes nothing. Gateways then send again what they heard after the backup.
"""


def add_commands(commands: Commands) -> None:
    """Register `backup` and `restore`."""
    for name, run, description in (
        ("backup", run_backup, BACKUP),
        ("restore", run_restore, RESTORE),
    ):
        command = commands.add_parser(
            name,
            help=description.split(".")[0].lower().replace("file", "FILE"),
            description=description,
            epilog=console.EXIT_CODES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_argument("file", type=Path, metavar="FILE")
        command.set_defaults(run=run)


def run_backup(arguments: argparse.Namespace) -> int:
    """Make a backup; print its file, size and number of tables."""
    if not arguments.file.absolute().parent.is_dir():
        raise console.CommandFailed(
            f"no existe la carpeta {arguments.file.absolute().parent}", code="carpeta-inexistente"
        )
    with open_server(console.settings()) as server:
        try:
            made = backup.backup(server, arguments.file, _teller("Respaldando"))
        except BackupFailed as error:
            raise _failed("no se pudo respaldar; no quedó ningún archivo", error) from error
    console.answer(
        arguments, {"file": str(made.file), "bytes": made.size_bytes, "tables": made.tables}
    )
    return 0


def run_restore(arguments: argparse.Namespace) -> int:
    """Restore a backup; print how many tables and events it brought."""
    if not arguments.file.is_file():
        raise console.CommandFailed(
            f"no existe el respaldo {arguments.file}", code="respaldo-inexistente"
        )
    with open_server(console.settings()) as server:
        try:
            restored = backup.restore(server, arguments.file, _teller("Restaurando"))
        except DatabaseInUse as error:
            raise console.CommandFailed(
                "la base de datos está en uso por " + ", ".join(error.applications) + "; "
                "detenga la plataforma e intente de nuevo",
                code="base-en-uso",
            ) from error
        except BackupFailed as error:
            raise _failed("no se pudo restaurar; la base de datos no cambió", error) from error
    console.answer(
        arguments,
        {
            "file": str(arguments.file),
            "tables": restored.tables,
            "events": restored.events,
            "contexts": list(restored.contexts),
        },
    )
    return 0


def _failed(what: str, error: BackupFailed) -> console.CommandFailed:
    return console.CommandFailed(f"{what}. {error}", code="respaldo-fallido")


def _teller(verb: str) -> backup.Report:
    """Return what shows the progress on stderr: one line rewritten, or a line for each tenth."""

    def tell(progress: Progress) -> None:
        line = f"{verb} {progress.done}/{progress.total} {progress.table}"
        if sys.stderr.isatty():
            end = "\n" if progress.done == progress.total else ""
            print(f"\r\x1b[K{line}", end=end, file=sys.stderr, flush=True)
        elif progress.done * 10 // progress.total > (progress.done - 1) * 10 // progress.total:
            print(line, file=sys.stderr, flush=True)

    return tell

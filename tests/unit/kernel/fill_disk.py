"""A program for tests: a server on a disk of 320 MiB that somebody else fills to the brim.

`fill_disk.py FOLDER` wants a mount namespace of its own and the right to mount. Prints one
JSON object that says what happened.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg

from cloud.kernel import postgres
from cloud.kernel.postgres_disk import Reserve
from cloud.kernel.postgres_errors import MEBIBYTE, DiskFull, DiskNearlyFull

RESERVE = Reserve(
    ballast_bytes=48 * MEBIBYTE, low_water_bytes=32 * MEBIBYTE, start_bytes=150 * MEBIBYTE
)
PATIENCE_S = 90


def main() -> int:
    folder = Path(sys.argv[1])
    mount = ["mount", "-t", "tmpfs", "-o", "size=320m,mode=0711", "tmpfs", str(folder)]
    subprocess.run(mount, check=True)
    server = postgres.ensure(folder, reserve=RESERVE, settings={"min_wal_size": "32MB"})
    assert isinstance(server, postgres.OurServer)
    said: dict[str, object] = {}
    with server:
        said["ballast_at_start"] = server.disk.ballast.exists()
        filler = folder / "filler"
        with psycopg.connect(server.dsn(), autocommit=True) as writer:
            writer.execute("CREATE TABLE kept AS SELECT 0 AS changes")
            fill(filler)
            said["refused_when_full"] = is_refused(server)
            committed = write_until_it_dies(writer)
        wait_until(lambda: changes_in(server) is not None)
        said["committed"], said["kept"] = committed, changes_in(server)
        said["ballast_when_full"] = server.disk.ballast.exists()
        said["refused_after"] = is_refused(server)
        filler.unlink()
        wait_until(server.disk.ballast.exists)
        said["ballast_with_room_again"] = server.disk.ballast.exists()
        said["refused_with_room_again"] = is_refused(server)
        said["panicked"] = "PANIC" in server.folders.log.read_text()
        fill(filler)  # and now it is stopped, and started, while the disk is full
    with postgres.ensure(folder, reserve=RESERVE) as again:
        assert isinstance(again, postgres.OurServer)
        said["kept_again"] = changes_in(again)
        said["ballast_again"] = again.disk.ballast.exists()
        fill(filler)
    try:
        postgres.ensure(folder, reserve=RESERVE)
    except DiskFull as error:
        said["refusal"] = f"{error.code}: {error.spanish}"
    print(json.dumps(said))
    return 0


def fill(filler: Path) -> None:
    """Write until the disk takes no more."""
    with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(os.urandom(64 * 1024)):
            pass


def write_until_it_dies(writer: psycopg.Connection) -> int:
    """Commit changes one by one until the server is gone; return how many it confirmed.

    They ask no room of the table, which would only be an error, but of the write-ahead log.
    """
    confirmed = 0
    while True:
        try:
            with writer.transaction():
                writer.execute("UPDATE kept SET changes = changes + 1")
                writer.execute("SELECT pg_logical_emit_message(true, '', repeat('x', 100000))")
        except psycopg.OperationalError:
            assert writer.broken
            return confirmed
        confirmed += 1


def changes_in(server: postgres.OurServer) -> int | None:
    try:
        with psycopg.connect(server.dsn(), connect_timeout=2) as connection:
            row = connection.execute("SELECT changes FROM kept").fetchone()
    except psycopg.OperationalError:
        return None
    assert row is not None
    return int(row[0])


def is_refused(server: postgres.OurServer) -> bool:
    try:
        server.require_intake()
    except DiskNearlyFull:
        return True
    return False


def wait_until(holds: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < give_up_s, "it did not happen"
        time.sleep(0.1)


if __name__ == "__main__":
    raise SystemExit(main())

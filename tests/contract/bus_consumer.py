"""A consumer process for the tests that kill one: `bus_consumer.py ADMIN_DSN PASSWORDS BLOBS`.

It says "handling" on stdout inside each handler's transaction, after half of the effect.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from cloud.kernel.blobs import FolderBlobs
from cloud.kernel.db import Database
from cloud.kernel.events import Event
from tests.contract.bus_stage import ADAPTERS, Connection, record, subscription

HALF_WAY_S = 0.02  # long enough that a kill usually lands inside a transaction


def slowly(connection: Connection, events: Sequence[Event]) -> None:
    middle = (len(events) + 1) // 2
    record(connection, events[:middle])
    print("handling", flush=True)
    time.sleep(HALF_WAY_S)
    record(connection, events[middle:])


if __name__ == "__main__":
    adapter, admin_dsn, passwords, folder = sys.argv[1:]
    bus = ADAPTERS[adapter](Database(admin_dsn, Path(passwords)), FolderBlobs(Path(folder)))
    bus.run([subscription(slowly)], threading.Event())

"""The bus against the bare SQL pattern: the same events, the same batches, the same run.

"Bare" is the loop one would write by hand for two consumer groups: events inserted by COPY, a page
read at the commit horizon, the group's offset locked and moved in the transaction of the effect.
Its event is the bytes of one of ours. Ours is what production runs: `outbox.publish`,
`PostgresBus.run`, event objects, types, logins of their own. The effect is the same for both: one
row that adds up the number of events and their bytes. One process for each consumer
group and one for the publisher; rounds alternate, medians are compared.
"""

from __future__ import annotations

import gc
import multiprocessing
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg.types.numeric import Int8BinaryLoader

from cloud.kernel import db, outbox, postgres
from cloud.kernel.blobs import FolderBlobs
from cloud.kernel.bus import Subscription
from cloud.kernel.db import Database
from cloud.kernel.events import Event, EventType, arrow_events, json_events
from cloud.kernel.postgres_bus import PAGE_EVENTS_MAX, XID8_OID, PostgresBus
from cloud.metering.events import READING_RECORDED
from decoders.value import value

PUBLISHER: Final = "metering"
GROUPS: Final = ("operations", "kernel")
BODY: Final = b'{"meter":"' + b"x" * 188 + b'"}'  # 200 bytes
HAPPENED: Final = EventType(name="thing.happened", version=1)
NOW_US: Final = 1_790_000_000_000_000
TRACE: Final = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ROUNDS: Final = 7
WARM_UP: Final = 3_000  # events that each group handles before the clock starts
BACKLOG: Final = 50_000
LIVE: Final = {1: 500, 100: 20_000, 1_000: 40_000}  # events in a transaction → events in a round
ASKED: Final = 0.80  # of the bare pattern
ASKED_SPLIT_MS: Final = 15.0
SPLIT_ROWS: Final = 50_000
_POLL_S: Final = 0.005  # the bare loop has no wake-up

Progress = Callable[[str], None]
Figure = dict[str, Any]


@value
class Place:
    """Where the workers find the parts."""

    admin_dsn: str
    passwords: Path
    blobs: Path

    @property
    def database(self) -> Database:
        return Database(self.admin_dsn, self.passwords)


def run(progress: Progress) -> list[Figure]:
    """Measure; return the figures. Takes about two minutes on two cores."""
    with tempfile.TemporaryDirectory(prefix="aquacis-bench-") as folder:
        Path(folder).chmod(0o711)
        with postgres.ensure(Path(folder) / "server") as server:
            place = Place(
                admin_dsn=server.dsn(),
                passwords=server.passwords_path,
                blobs=Path(folder) / "blobs",
            )
            place.database.migrate([db.KERNEL, db.context("metering"), db.context("operations")])
            _prepare(place)
            with _crew(place) as crew:
                figures = [_backlog(place, crew, progress)]
                figures += [_live(place, crew, batch, progress) for batch in LIVE]
    return [*figures, _split(progress)]


def _backlog(place: Place, crew: Sequence[Pipe], progress: Progress) -> Figure:
    """Two groups work off a backlog: what the consuming side costs."""
    rates: dict[str, list[float]] = {"bare": [], "ours": []}
    publisher, *groups = crew
    for turn in range(ROUNDS):
        for side, found in _sides(rates, turn):
            _empty(place)
            publisher.send(("publish", side, WARM_UP + BACKLOG, 1_000))
            _answers([publisher])
            for group in groups:
                group.send(("consume", side, WARM_UP + BACKLOG, True))
            warm = _answers(groups)
            began = time.monotonic()
            for group in groups:
                group.send("go")
            _answers(groups)
            took_s = time.monotonic() - began
            found.append((WARM_UP + BACKLOG - statistics.mean(warm)) / took_s)
        progress(f"bus: backlog {turn + 1}/{ROUNDS}")
    return _figure("backlog through two groups", rates, ASKED)


def _live(place: Place, crew: Sequence[Pipe], batch: int, progress: Progress) -> Figure:
    """One publisher, two groups, all at once: from the first event to the last effect."""
    rates: dict[str, list[float]] = {"bare": [], "ours": []}
    publisher, *groups = crew
    count = LIVE[batch]
    for turn in range(ROUNDS):
        for side, found in _sides(rates, turn):
            _empty(place)
            publisher.send(("publish", side, WARM_UP, 1_000))
            _answers([publisher])
            for group in groups:
                group.send(("consume", side, WARM_UP + count, False))
            _answers(groups)
            began = time.monotonic()
            publisher.send(("publish", side, count, batch))
            _answers(groups)
            found.append(count / (time.monotonic() - began))
            _answers([publisher])
        progress(f"bus: live, {batch} a transaction {turn + 1}/{ROUNDS}")
    name = f"live through two groups, {batch} a transaction"
    return _figure(name, rates, ASKED if batch == 100 else None)


def _sides(rates: dict[str, list[float]], turn: int) -> list[tuple[str, list[float]]]:
    """Return who plays first and second: each as often, so that neither has the warmer machine."""
    return sorted(rates.items(), reverse=turn % 2 == 1)


def _split(progress: Progress) -> Figure:
    """Columns of one intake batch into an Arrow event for each shard."""
    import numpy as np  # noqa: PLC0415  the workers do not need it

    rows = np.arange(SPLIT_ROWS, dtype=np.int64)
    columns = {
        "meter_key": rows // 25 * 7,
        "register_at": NOW_US + rows % 25 * 3_600_000_000,
        "register_l": rows * 13 % 1_000_003,
        "heard_at": np.full(SPLIT_ROWS, NOW_US),
        "batch_key": np.full(SPLIT_ROWS, 9),
        "batch_row": (rows // 25).astype(np.int32),
        "clock": np.ones(SPLIT_ROWS, np.int16),
        "quality": np.zeros(SPLIT_ROWS, np.int16),
    }
    times_ms = []
    for _ in range(25):
        began = time.process_time()  # its own work, whatever else the machine does
        arrow_events(
            READING_RECORDED,
            columns,
            new_id=outbox.new_ids(NOW_US),
            source=PUBLISHER,
            time=NOW_US,
        )
        times_ms.append((time.process_time() - began) * 1000)
    progress("bus: split")
    found = statistics.median(times_ms)
    return {
        "bench": "bus",
        "figure": f"{SPLIT_ROWS} rows into 64 Arrow events",
        "value": round(found, 1),
        "unit": "ms of processor time",
        "limit": ASKED_SPLIT_MS,
        "ratio": round(found / ASKED_SPLIT_MS, 3),
        "asked": 1.0,
        "holds": found <= ASKED_SPLIT_MS,
    }


def _figure(name: str, rates: dict[str, list[float]], asked: float | None) -> Figure:
    found, limit = (statistics.median(rates[side]) for side in ("ours", "bare"))
    return {
        "bench": "bus",
        "figure": name,
        "value": round(found),
        "unit": "events/s",
        "limit": round(limit),
        "ratio": round(found / limit, 3),
        "asked": asked,
        "holds": None if asked is None else found >= asked * limit,
    }


def _prepare(place: Place) -> None:
    with place.database.connect_admin() as admin:
        admin.execute(
            "CREATE SCHEMA bare;"
            " CREATE TABLE bare.log (id bigint GENERATED ALWAYS AS IDENTITY,"
            " payload bytea NOT NULL, xid xid8 NOT NULL DEFAULT pg_current_xact_id());"
            " ALTER TABLE bare.log ALTER payload SET STORAGE EXTERNAL;"
            " CREATE INDEX ON bare.log (xid, id);"
            " CREATE TABLE bare.position (name text PRIMARY KEY, xid xid8, id bigint);"
            " CREATE TABLE bare.effect (name text PRIMARY KEY, events bigint, bytes bigint)"
        )
        for group in GROUPS:
            admin.execute("INSERT INTO bare.position VALUES (%s, '0', 0)", (group,))
            admin.execute("INSERT INTO bare.effect VALUES (%s, 0, 0)", (group,))
    for group in GROUPS:
        with place.database.connect(group) as connection:
            connection.execute("CREATE TABLE effect (events bigint, bytes bigint)")
            connection.execute("INSERT INTO effect VALUES (0, 0)")


def _empty(place: Place) -> None:
    with place.database.connect_admin() as admin:
        admin.execute("TRUNCATE bare.log, metering.outbox")
    with place.database.connect_admin() as admin:
        admin.autocommit = True
        admin.execute("CHECKPOINT")  # so that none falls into the round


@contextmanager
def _crew(place: Place) -> Iterator[list[Pipe]]:
    """The publisher's process and the groups', waiting for orders."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for name in (PUBLISHER, *GROUPS):
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, place, name), daemon=True)
        process.start()
        pipes.append(ours)
        processes.append(process)
    try:
        yield pipes
    finally:
        for pipe, process in zip(pipes, processes, strict=True):
            pipe.send(None)
            process.join(10)


def _answers(crew: Sequence[Pipe]) -> list[int]:
    return [pipe.recv() for pipe in crew]


def _work(pipe: Pipe, place: Place, name: str) -> None:
    jobs = {
        ("publish", "ours"): _publish_ours,
        ("publish", "bare"): _publish_bare,
        ("consume", "ours"): _consume_ours,
        ("consume", "bare"): _consume_bare,
    }
    gc.freeze()  # as production's processes do once they stand
    while (order := pipe.recv()) is not None:
        what, side, count, how = order
        jobs[what, side](pipe, place, name, count, how)


def _publish_ours(pipe: Pipe, place: Place, name: str, count: int, batch: int) -> None:
    blobs = FolderBlobs(place.blobs)
    with place.database.connect(name) as connection:
        for begin in range(0, count, batch):
            events = _events(begin, batch)
            outbox.publish(connection, events, blobs=blobs)
            connection.commit()
    pipe.send(count)


def _publish_bare(pipe: Pipe, place: Place, name: str, count: int, batch: int) -> None:
    del name
    payload = bytes(_events(1_000_000, 1)[0])
    with psycopg.connect(place.admin_dsn) as connection, connection.cursor() as cursor:
        for _ in range(0, count, batch):
            with cursor.copy("COPY bare.log (payload) FROM STDIN (FORMAT binary)") as copy:
                copy.set_types(["bytea"])
                for _ in range(batch):
                    copy.write_row((payload,))
            cursor.execute("NOTIFY bare")
            connection.commit()
    pipe.send(count)


def _events(begin: int, count: int) -> list[Event]:
    return json_events(
        HAPPENED,
        ((key, BODY) for key in range(begin, begin + count)),
        first_id=outbox.new_ids(NOW_US)(),
        source=PUBLISHER,
        time=NOW_US,
        traceparent=TRACE,
    )


class _Count:
    """How far a group is; tells the parent when it is warm and when it is done."""

    def __init__(self, pipe: Pipe, total: int, *, wait: bool) -> None:
        self.pipe, self.total, self.wait = pipe, total, wait
        self.handled = 0
        self.warm = False

    def add(self, events: int) -> None:
        """Count events whose effect is committed, or about to be."""
        self.handled += events
        if not self.warm and self.handled >= WARM_UP:
            self.warm = True
            self.pipe.send(self.handled)
            if self.wait:
                self.pipe.recv()

    @property
    def done(self) -> bool:
        return self.handled >= self.total


def _consume_ours(pipe: Pipe, place: Place, name: str, count: int, wait: bool) -> None:
    progress = _Count(pipe, count, wait=wait)
    stop = threading.Event()

    def handler(connection: psycopg.Connection[Any], events: Sequence[Event]) -> None:
        size = 0
        for event in events:
            size += len(event)
        connection.execute(
            "UPDATE effect SET events = events + %b, bytes = bytes + %b",
            (len(events), size),
            prepare=True,
        )
        progress.add(len(events))
        if progress.done:
            stop.set()
            pipe.send(count)  # one commit early, of a hundred

    bus = PostgresBus(place.database, FolderBlobs(place.blobs), sources=[PUBLISHER])
    types = frozenset({HAPPENED.name})
    subscription = Subscription(consumer=name, name="bench", types=types, handler=handler)
    bus.run([subscription], stop)


def _consume_bare(pipe: Pipe, place: Place, name: str, count: int, wait: bool) -> None:
    progress = _Count(pipe, count, wait=wait)
    with psycopg.connect(place.admin_dsn) as connection:
        connection.adapters.register_loader(XID8_OID, Int8BinaryLoader)
        while not progress.done:
            handled = _bare_page(connection, name)
            connection.commit()
            if handled:
                progress.add(handled)
            else:
                time.sleep(_POLL_S)
    pipe.send(count)


def _bare_page(connection: psycopg.Connection[Any], name: str) -> int:
    cursor = connection.cursor(binary=True)
    cursor.execute(
        "SELECT xid, id FROM bare.position WHERE name = %b FOR UPDATE SKIP LOCKED",
        (name,),
        prepare=True,
    )
    xid, number = cursor.fetchall()[0]
    cursor.execute(
        "SELECT xid, id, payload FROM bare.log WHERE (xid, id) > (%b::text::xid8, %b)"
        " AND xid < pg_snapshot_xmin(pg_current_snapshot()) ORDER BY xid, id LIMIT %b",
        (str(xid), number, PAGE_EVENTS_MAX),
        prepare=True,
    )
    rows = cursor.fetchall()
    if not rows:
        return 0
    size = 0
    for _, _, payload in rows:
        size += len(payload)
    cursor.execute(
        "UPDATE bare.effect SET events = events + %b, bytes = bytes + %b WHERE name = %b",
        (len(rows), size, name),
        prepare=True,
    )
    cursor.execute(
        "UPDATE bare.position SET xid = %b::text::xid8, id = %b WHERE name = %b",
        (str(rows[-1][0]), rows[-1][1], name),
        prepare=True,
    )
    return len(rows)

"""The outbox: events in the caller's transaction, days that come and go, a log put back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest

from cloud.kernel import log_upkeep, outbox
from cloud.kernel.blobs import FolderBlobs
from cloud.kernel.bus import Subscription
from cloud.kernel.db import RELAY, Database
from cloud.kernel.events import INLINE_BYTES_MAX, Event, EventType, json_event
from cloud.kernel.postgres_bus import PAGE_BYTES, PostgresBus
from cloud.kernel.wire import unbundled

THING = EventType(name="thing.happened", version=1)
OTHER = EventType(name="thing.else", version=1)
CONTEXTS = ("metering", "operations", "kernel")


@pytest.fixture
def blobs(tmp_path: Path) -> FolderBlobs:
    return FolderBlobs(tmp_path / "blobs")


def fact(n: int, pad: int = 0, kind: EventType = THING) -> Event:
    new_id = outbox.new_ids(1_790_000_000_000_000)
    body = {"n": n, "pad": "x" * pad}
    return json_event(kind, body, id=new_id(), source="metering", time=17, key=n)


def publish(database: Database, blobs: FolderBlobs, *events: Event) -> None:
    with database.connect("metering") as connection:
        outbox.publish(connection, events, blobs=blobs)


def admin(database: Database, statement: str) -> list[tuple[object, ...]]:
    with database.connect_admin() as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


class Row(NamedTuple):
    """A row of the log."""

    type: str
    first: int
    last: int
    events: list[Event]


def stored(database: Database) -> list[Row]:
    query = b"SELECT type, id - events + 1, id, events, wire FROM metering.outbox ORDER BY xid, id"
    with database.connect_admin() as connection:
        found = [
            (Row(type, first, last, list(map(Event.received, unbundled(wire)))), count)
            for type, first, last, count, wire in connection.execute(query)
        ]
    assert all(len(row.events) == count for row, count in found)
    return [row for row, _ in found]


@pytest.mark.parametrize("count", [0, 1, 2, 127, 128, 129, 500])
def test_few_and_many_events_are_stored_alike(
    database: Database, blobs: FolderBlobs, count: int
) -> None:
    events = [fact(n) for n in range(count)]

    publish(database, blobs, *events)

    rows = stored(database)
    assert [event for row in rows for event in row.events] == events
    assert len(rows) <= 1 + count // 20, "events of one transaction share rows"


def test_no_two_events_of_the_log_have_the_same_number(
    database: Database, blobs: FolderBlobs
) -> None:
    publish(database, blobs, *map(fact, range(300)))
    publish(database, blobs, fact(300))
    publish(database, blobs, *(fact(n, pad=n) for n in range(301, 400)))

    numbers = [n for row in stored(database) for n in range(row.first, row.last + 1)]

    assert len(numbers) == 400
    assert numbers == sorted(set(numbers))
    assert numbers[0] > 0


def test_a_row_holds_events_of_one_type_and_order_is_kept(
    database: Database, blobs: FolderBlobs
) -> None:
    kinds = [THING, THING, OTHER, THING, THING, THING, OTHER, OTHER]
    events = [fact(n, kind=kind) for n, kind in enumerate(kinds)]

    publish(database, blobs, *events)

    rows = stored(database)
    assert [row.type for row in rows] == [THING.name, OTHER.name, THING.name, OTHER.name]
    assert all(event.type == row.type for row in rows for event in row.events)
    assert [event for row in rows for event in row.events] == events


def test_a_large_event_leaves_its_body_in_the_blob_store(
    database: Database, blobs: FolderBlobs
) -> None:
    large = fact(1, pad=INLINE_BYTES_MAX)

    publish(database, blobs, *[large] * 200)

    events = [event for row in stored(database) for event in row.events]
    assert len(events) == 200
    assert max(map(len, events)) < 300
    assert {event.whole(blobs.get) for event in events} == {large}


def test_the_relay_may_read_the_outbox_and_nothing_else(
    database: Database, blobs: FolderBlobs
) -> None:
    publish(database, blobs, fact(1))
    with database.connect(RELAY) as relay:
        relay.autocommit = True
        assert relay.execute("SELECT count(*) FROM metering.outbox").fetchone() == (1,)
        for forbidden in (
            "DELETE FROM metering.outbox",
            "SELECT * FROM metering.inbox",
            "SELECT * FROM metering.dead_letter",
            "SELECT metering.outbox_make_partitions(current_date, 9)",
            "SELECT metering.outbox_add_partitions(current_date, 9)",
            "SELECT metering.outbox_keep_inline()",
            "SELECT metering.outbox_drop_partitions(current_date, '9', 9)",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                relay.execute(forbidden.encode())


def days(database: Database) -> list[str]:
    """Return the days that have a partition, as offsets from today."""
    rows = admin(
        database,
        "SELECT (to_date(right(relname, 8), 'YYYYMMDD') - current_date)::text FROM pg_class"
        " WHERE relnamespace = 'metering'::regnamespace AND relname ~ '^outbox_[0-9]{8}$'"
        " ORDER BY relname",
    )
    return [str(row[0]) for row in rows]


def ignore(connection: psycopg.Connection[tuple[object, ...]], events: Sequence[Event]) -> None:
    del connection, events


CONSUMERS = [
    Subscription(
        consumer=consumer, name="kept", types=frozenset({"thing.happened"}), handler=ignore
    )
    for consumer in ("operations", "kernel")
]


def test_the_coming_days_are_made_once(database: Database) -> None:
    assert days(database) == ["0", "1", "2"]

    log_upkeep.keep(database, ["metering"], CONSUMERS)

    assert days(database) == ["0", "1", "2"]


def test_every_day_keeps_rows_of_a_block_inline(database: Database) -> None:
    with database.connect("metering") as connection:
        connection.execute("SELECT outbox_make_partitions(current_date + 3, 2)")

    found = admin(
        database,
        "SELECT c.reloptions::text FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid"
        " WHERE inhparent = 'metering.outbox'::regclass",
    )

    assert found == [("{toast_tuple_target=8160}",)] * 6  # five days and the safety net


def test_a_day_goes_when_every_consumer_is_past_it(database: Database, blobs: FolderBlobs) -> None:
    with database.connect("metering") as connection:
        connection.execute("SELECT outbox_make_partitions(current_date - 6, 6)")
        connection.commit()
        for age in (6, 5, 4, 1):
            wire = bytes(fact(age))
            connection.execute(
                "INSERT INTO outbox (day, type, wire) VALUES (current_date - %s, %s, %s)",
                (age, "thing.happened", wire),
            )
            connection.commit()
    bus = PostgresBus(database, blobs, sources=["metering"])

    bus.run_once(CONSUMERS[:1])
    assert log_upkeep.keep(database, ["metering"], CONSUMERS) == 0, "one never began"
    bus.run_once(CONSUMERS)
    assert log_upkeep.keep(database, ["metering"], CONSUMERS) == 3

    assert days(database) == ["-3", "-2", "-1", "0", "1", "2"]


def test_a_day_stays_while_somebody_needs_it(database: Database, blobs: FolderBlobs) -> None:
    with database.connect("metering") as connection:
        connection.execute("SELECT outbox_make_partitions(current_date - 9, 9)")
    bus = PostgresBus(database, blobs, sources=["metering"])
    bus.run_once(CONSUMERS)
    with database.connect("metering") as connection:
        connection.execute(
            "INSERT INTO outbox (day, type, wire) VALUES (current_date - 7, %s, %s)",
            ("thing.happened", bytes(fact(1))),
        )

    log_upkeep.keep(database, ["metering"], CONSUMERS)
    assert days(database)[0] == "-7"
    bus.run_once(CONSUMERS)
    log_upkeep.keep(database, ["metering"], CONSUMERS)

    assert days(database)[0] == "-3"


def test_publishing_works_without_a_partition_for_today(
    database: Database, blobs: FolderBlobs
) -> None:
    admin(
        database,
        "DO $$ BEGIN EXECUTE 'DROP TABLE metering.outbox_' || to_char(current_date, 'YYYYMMDD');"
        " END $$",
    )

    publish(database, blobs, fact(1), fact(2))
    log_upkeep.keep(database, ["metering"], CONSUMERS)

    bus = PostgresBus(database, blobs, sources=["metering"])
    assert bus.run_once(CONSUMERS) == 4


def test_a_restored_log_goes_on_where_its_readers_were(
    database: Database, blobs: FolderBlobs
) -> None:
    handled: list[int] = []
    consumer = Subscription(
        consumer="operations",
        name="kept",
        types=frozenset({"thing.happened"}),
        handler=lambda _, events: handled.extend(event.body()["n"] for event in events),
    )
    bus = PostgresBus(database, blobs, sources=["metering"])
    with database.connect("metering") as early:
        outbox.publish(early, [fact(1)], blobs=blobs)  # a lower xid, a higher id than the next
        publish(database, blobs, fact(2))
        early.commit()
    bus.run_once([consumer])
    publish(database, blobs, fact(3), fact(4))
    # The dump is loaded into a cluster whose transaction ids are far behind those in it.
    ahead = "xid = (xid::text::bigint + 4000000000)::text::xid8"
    admin(database, f"UPDATE metering.outbox SET {ahead}")
    admin(database, f"UPDATE operations.inbox SET {ahead} WHERE xid <> '0'")
    assert bus.run_once([consumer]) == 0, "the restored events are above the horizon"

    for _ in range(2):
        with database.connect_admin() as administrator:
            log_upkeep.rebase(administrator, CONTEXTS)
    publish(database, blobs, fact(5))
    bus.run_once([consumer])

    assert sorted(handled[:2]) == [1, 2]
    assert handled[2:] == [3, 4, 5]


@pytest.mark.parametrize("handled", [0, 1, 6, 7, 8, 149, 150])
def test_a_reader_in_the_middle_of_a_row_goes_on_there_after_a_restore(
    database: Database, blobs: FolderBlobs, handled: int
) -> None:
    publish(database, blobs, *map(fact, range(7)))
    publish(database, blobs, *map(fact, range(7, 150)))
    tokens = [
        (xid, number)
        for xid, last, count in admin(
            database, "SELECT xid::text, id, events FROM metering.outbox ORDER BY xid, id"
        )
        for number in range(int(str(last)) - int(str(count)) + 1, int(str(last)) + 1)
    ]
    xid, number = tokens[handled - 1] if handled else ("0", 0)
    admin(
        database,
        "INSERT INTO operations.inbox (subscription, partition, xid, id)"
        f" VALUES ('kept', 'metering', '{xid}', {number})",
    )
    seen: list[int] = []
    consumer = Subscription(
        consumer="operations",
        name="kept",
        types=frozenset({THING.name}),
        handler=lambda _, events: seen.extend(event.body()["n"] for event in events),
    )

    for _ in range(2):  # a restored database may be restored again
        with database.connect_admin() as administrator:
            assert log_upkeep.rebase(administrator, CONTEXTS) == 150

    PostgresBus(database, blobs, sources=["metering"]).run_once([consumer])
    assert seen == list(range(handled, 150))


def test_a_page_keeps_to_its_bytes_after_events_that_nobody_wanted(
    database: Database, blobs: FolderBlobs
) -> None:
    for n in range(300):
        publish(database, blobs, fact(n, kind=OTHER))
    for n in range(60):
        publish(database, blobs, fact(n, pad=250_000))
    sizes: list[int] = []
    consumer = Subscription(
        consumer="operations",
        name="kept",
        types=frozenset({THING.name}),
        handler=lambda _, events: sizes.append(sum(map(len, events))),
    )

    assert PostgresBus(database, blobs, sources=["metering"]).run_once([consumer]) == 60

    assert max(sizes) < PAGE_BYTES + INLINE_BYTES_MAX

"""Compact layouts that nobody taught: found across messages, meters and restarts."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cloud.kernel.db import Database
from cloud.metering import layouts
from cloud.metering.layout_store import PostgresLayouts
from cloud.metering.ports import LayoutStore
from cloud.metering.service import Metering
from decoders.uplink import Row
from decoders.wmbus.compact import compacted
from decoders.wmbus.records import Record, shapes_of
from decoders.wmbus.search import Doubt, Suspect, named_by
from tests.heard import (
    HOUR,
    NOON,
    Gateway,
    import_keys,
    metering_on,
    readings,
    rows_of,
    wmbus,
    wmbus_meter,
)

# In Kamstrup's order, but in no driver
UNTAUGHT = bytes.fromhex("02FF200413426C523B623B91015B")
UNKNOWN = "unknown_signature"


@dataclass
class InMemory:
    """A `LayoutStore` without a disk."""

    kept: dict[bytes, tuple[int, int] | None] = field(default_factory=dict)
    doubts: dict[int, Doubt] = field(default_factory=dict)

    def believed(self) -> Iterator[bytes]:
        return iter(self.kept)

    def believe(self, layout: bytes, *, now_us: int, source: tuple[int, int] | None = None) -> bool:
        return self.kept.setdefault(layout, source) is source

    def doubt(self, signature: int) -> Doubt:
        return self.doubts.get(signature, Doubt())

    def keep_doubt(self, signature: int, doubt: Doubt, *, now_us: int) -> None:
        self.doubts[signature] = doubt


@pytest.fixture
def service(database: Database, tmp_path: Path) -> Iterator[Metering]:
    with metering_on(database, tmp_path) as made:
        for meter in range(3):
            import_keys(made, str(wmbus_meter(meter)))
        yield made


def records(register_l: int) -> tuple[Record, ...]:
    values = random.Random(register_l)
    return tuple(
        Record(
            shape,
            register_l.to_bytes(4, "little")
            if shape.head == b"\x04\x13"
            else values.randrange(1, 90).to_bytes(shape.size or 0, "little"),
            0,
        )
        for shape in shapes_of(UNTAUGHT)
    )


def compact(meter: int, register_l: int, *, hour: int = 0) -> Row:
    at = NOON - 10 * HOUR + hour * HOUR
    return wmbus(meter, 0, heard_at=at, records=records(register_l), compact=True)


def test_the_second_telegram_of_an_unknown_layout_is_read_and_the_first_can_be_replayed(
    service: Metering, database: Database
) -> None:
    gateway = Gateway()

    first = gateway.send(service, compact(0, 100))
    second = gateway.send(service, compact(1, 200))

    assert first.rejected == ((1, UNKNOWN),)
    assert second.rejected == ()
    assert service.replay(1).code is None
    assert [litres for _, _, litres in readings(database)] == [100, 200]
    assert rows_of(database, "SELECT layout, searched FROM compact_formats") == [(UNTAUGHT, True)]


def test_two_telegrams_of_one_message_are_enough_for_all_of_it(
    service: Metering, database: Database
) -> None:
    ack = Gateway().send(service, compact(0, 100), compact(1, 200), compact(2, 300))

    assert ack.rejected == ()
    assert [litres for _, _, litres in readings(database)] == [100, 200, 300]


def test_what_one_process_suspected_another_proves(
    service: Metering, database: Database, tmp_path: Path
) -> None:
    Gateway("centro").send(service, compact(0, 100))
    with metering_on(database, tmp_path) as restarted:
        ack = Gateway("cerro").send(restarted, compact(1, 200))
        assert ack.rejected == ()
        assert restarted.replay(1).code is None

    assert service.replay(1).detail == "replayed"
    assert [litres for _, _, litres in readings(database)] == [100, 200]


def test_the_same_telegram_by_two_gateways_proves_nothing(
    service: Metering, database: Database
) -> None:
    for gateway in ("centro", "cerro"):
        assert Gateway(gateway).send(service, compact(0, 100)).rejected == ((1, UNKNOWN),)

    assert rows_of(database, "SELECT searches FROM layout_doubts") == [(1,)]
    assert service.replay(1).code == UNKNOWN


def test_what_another_decoder_version_searched_in_vain_is_searched_again(
    service: Metering, database: Database
) -> None:
    gateway = Gateway()
    gateway.send(service, compact(0, 100))
    with database.connect("metering") as connection:
        connection.execute(
            """UPDATE layout_doubts SET decoder_version = 0, searches = 3, layouts = '{}',
                   frames = '{}'"""
        )

    assert service.replay(1).code == UNKNOWN
    assert gateway.send(service, compact(1, 200)).rejected == ()


@pytest.fixture(params=["memory", "postgresql"])
def store(request: pytest.FixtureRequest) -> Iterator[LayoutStore]:
    """Both stores: what holds for the one holds for the other."""
    if request.param == "memory":
        yield InMemory()
        return
    database: Database = request.getfixturevalue("database")
    with database.connect("metering") as connection:
        yield PostgresLayouts(connection)


def test_a_store_gives_back_what_it_was_given(store: LayoutStore) -> None:
    doubt = Doubt(
        newest=b"\1\2\3\4\5", suspects=(Suspect(layout=UNTAUGHT, encoded=b"\5\6"),), searches=2
    )

    assert store.believe(UNTAUGHT, now_us=NOON, source=(7, 1))
    assert not store.believe(UNTAUGHT, now_us=NOON)
    store.keep_doubt(0xBC6B, Doubt(), now_us=NOON)
    store.keep_doubt(0xBC6B, doubt, now_us=NOON)

    assert list(store.believed()) == [UNTAUGHT]
    assert store.doubt(0xBC6B) == doubt
    assert store.doubt(1) == Doubt()


def test_a_batch_of_noise_costs_so_many_searches_and_no_more(store: LayoutStore) -> None:
    chance = random.Random(1)
    noise = [chance.randbytes(20) for _ in range(50)]

    assert layouts.search([*noise, b"", b"\1"], store, now_us=NOON) == ()

    searched = sum(store.doubt(named_by(frame)).searches for frame in noise)
    assert searched == layouts.SEARCHES_PER_BATCH


def test_a_layout_is_believed_in_the_store(store: LayoutStore) -> None:
    frames = [compacted(records(litres)) for litres in (100, 200)]

    assert layouts.search(frames, store, now_us=NOON) == (UNTAUGHT,)
    assert list(store.believed()) == [UNTAUGHT]

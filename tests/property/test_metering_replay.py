"""Whatever the order in which gateways deliver, and however often: the same readings table."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloud.kernel.db import Database
from cloud.metering.service import Metering
from decoders.uplink import Ack, Row, encode_ack
from tests.heard import (
    HOUR,
    MINUTE,
    NOON,
    SECOND,
    Gateway,
    import_keys,
    lorawan,
    metering_on,
    readings,
    rows_of,
    wmbus,
    wmbus_meter,
)

TABLES = """readings, receptions, reading_conflicts, batches, edge_streams, edge_losses,
            meter_state, gateway_hours, outbox, alert_episodes, alerts,
             row_dead_letters, compact_formats, layout_doubts"""
AHEAD = {"cerro": 0, "centro": 40 * MINUTE}


@dataclass
class Cloud:
    """A database that is emptied between examples: a fresh one each time would take seconds."""

    database: Database
    service: Metering

    def emptied(self) -> Metering:
        with self.database.connect("metering") as connection:
            connection.execute(f"TRUNCATE {TABLES}")
            connection.execute("INSERT INTO meter_state (meter_key) SELECT meter_key FROM meters")
            connection.execute(
                """UPDATE gateways SET clock_samples = '{}', clock_quality = 'untrusted',
                       clock_offset_us = NULL"""
            )
        return self.service


@pytest.fixture
def cloud(database: Database, tmp_path: Path) -> Iterator[Cloud]:
    with metering_on(database, tmp_path, gateways=AHEAD) as service:
        for meter in range(2):
            import_keys(service, str(wmbus_meter(meter)))
        yield Cloud(database, service)


profiles = st.builds(
    lambda meter, hour, length, odd: lorawan(
        meter,
        [1000 + 10 * n + odd for n in range(hour, max(hour - length, -1), -1)],
        at=NOON + hour * HOUR,
        counter=hour,
    ),
    meter=st.integers(0, 1),
    hour=st.integers(0, 6),
    length=st.integers(1, 5),
    odd=st.sampled_from([0, 0, 0, 1]),  # now and then a frame that contradicts the others
)
telegrams = st.builds(
    lambda meter, minute: wmbus(
        meter, 500 + minute, heard_at=NOON + minute * MINUTE, access=minute & 0xFF
    ),
    meter=st.integers(0, 1),
    minute=st.integers(0, 180),
)
heard_by = st.tuples(st.sampled_from(sorted(AHEAD)), profiles | telegrams)


def batches(frames: list[tuple[str, Row]], cuts: list[int]) -> dict[str, list[bytes]]:
    """Each gateway's frames, cut into messages at the same places; its clock is known by then."""
    made = {}
    for name, ahead in AHEAD.items():
        gateway = Gateway(name, ahead=ahead)
        gateway.hear(*(row for by, row in frames if by == name))
        at = NOON + 8 * HOUR
        gateway.hears(_answer(), at=at - SECOND)
        edges = sorted({0, len(gateway.sent), *(c for c in cuts if c < len(gateway.sent))})
        made[name] = [
            gateway.message(at=at, first=first + 1, last=last)
            for first, last in itertools.pairwise(edges)
        ]
    return made


def _answer() -> bytes:
    return encode_ack(Ack(stream=bytes(16), upto=0, credit=1, cloud_at=NOON + 8 * HOUR - SECOND))


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    frames=st.lists(heard_by, min_size=1, max_size=12),
    cuts=st.lists(st.integers(1, 8), max_size=3),
    turns=st.lists(st.booleans(), min_size=8, max_size=8),
    again=st.booleans(),
)
def test_any_order_and_any_number_of_deliveries_give_the_same_readings(
    cloud: Cloud,
    frames: list[tuple[str, Row]],
    cuts: list[int],
    turns: list[bool],
    again: bool,
) -> None:
    messages = batches(frames, cuts)
    live = cloud.emptied()
    for name in sorted(messages):  # one gateway after the other
        for message in messages[name]:
            assert live.ingest(message, name, NOON + 8 * HOUR) is not None
    expected = readings(cloud.database)
    receptions = rows_of(cloud.database, "SELECT count(*) FROM receptions")

    replayed = cloud.emptied()
    waiting = {name: list(reversed(messages[name])) for name in messages}
    for turn in itertools.cycle([*turns, True, False]):  # the two gateways interleaved
        name = sorted(waiting)[turn]
        if waiting[name]:
            message = waiting[name].pop()
            for _ in range(2 if again else 1):
                assert replayed.ingest(message, name, NOON + 8 * HOUR) is not None
        if not any(waiting.values()):
            break

    assert readings(cloud.database) == expected
    assert rows_of(cloud.database, "SELECT count(*) FROM receptions") == receptions
    assert rows_of(cloud.database, "SELECT sum(rejected) FROM batches") == [(0,)]


@settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(frames=st.lists(heard_by, min_size=1, max_size=10))
def test_a_replay_from_the_raw_batches_equals_the_live_table(
    cloud: Cloud, frames: list[tuple[str, Row]]
) -> None:
    live = cloud.emptied()
    for name, messages in batches(frames, [3, 6]).items():
        for message in messages:
            live.ingest(message, name, NOON + 8 * HOUR)
    expected = readings(cloud.database)
    raw = rows_of(
        cloud.database,
        """SELECT g.id, encode(b.sha256, 'hex'), (extract(epoch FROM received_at) * 1000000)::bigint
           FROM batches b JOIN gateways g USING (gateway_key) ORDER BY batch_key""",
    )

    offsets = [live.batch_offset(address) for _, address, _ in raw]
    replayed = cloud.emptied()
    for (name, address, received_at), believed in zip(raw, offsets, strict=True):
        replayed.ingest(replayed.raw(address), name, received_at, believed=believed)

    assert readings(cloud.database) == expected

"""What cannot be believed is counted by its code, kept with its bytes, and replayable; the rows
beside it go through."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cbor2
import pytest

from cloud.kernel.db import Database
from cloud.metering.dead_letters import REJECTED, DeadLetterUnknown
from cloud.metering.service import UNKNOWN_STREAM, Metering
from decoders import uplink
from decoders.uplink import Row, RowKind
from decoders.wmbus.link import Form
from tests.heard import (
    CST_S,
    DAY,
    HOUR,
    MINUTE,
    NOON,
    Gateway,
    anomaly,
    eui,
    import_keys,
    lorawan,
    metering_on,
    readings,
    rows_of,
    unheard_of,
    wmbus,
    wmbus_meter,
)

GOOD = lorawan(99, [1000], at=NOON)
WMBUS_5 = str(wmbus_meter(5))


@pytest.fixture
def service(database: Database, tmp_path: Path) -> Iterator[Metering]:
    with metering_on(database, tmp_path) as made:
        yield made


def letters(database: Database) -> list[tuple[str, int | None, bytes]]:
    """Code, seq and bytes of each dead letter."""
    rows = rows_of(
        database, "SELECT code, seq, bytes FROM row_dead_letters ORDER BY dead_letter_key"
    )
    return [(code, seq, bytes(data)) for code, seq, data in rows]


def damaged(row: Row) -> Row:
    """The same telegram with one bit of its encrypted payload flipped: its link CRC is gone."""
    return replace(row, payload=row.payload[:25] + bytes([row.payload[25] ^ 1]) + row.payload[26:])


FUTURE = lorawan(1, [7], at=NOON + 2 * HOUR, heard_at=NOON)
BAD_ROWS = [
    ("unknown_meter", wmbus(6, 100, heard_at=NOON)),
    ("crc", damaged(wmbus(5, 100, heard_at=NOON, form=Form.FORMAT_A))),
    ("wrong_key", wmbus(5, 100, heard_at=NOON, key=bytes(16))),
    ("unknown_signature", wmbus(7, 0, heard_at=NOON, compact=True, records=unheard_of(100))),
    ("truncated", replace(GOOD, payload=GOOD.payload[:11])),
    ("unknown_format", replace(GOOD, payload=b"\x13\x37" + GOOD.payload)),
    ("future", FUTURE),
    ("future", replace(GOOD, heard_at=NOON + 3 * DAY)),
    ("future", anomaly(eui(98), at=NOON + 3 * DAY)),
    ("implausible_date", replace(GOOD, heard_at=1)),
    ("implausible_date", lorawan(1, [7], at=NOON - 6400 * DAY)),
    ("malformed_row", Row(seq=0, heard_at=NOON, kind=RowKind.ANOMALY, payload=b"\xff")),
    ("malformed_row", anomaly("x'; DROP TABLE meters", at=NOON)),
    ("malformed_row", Row(seq=0, heard_at=NOON, kind=RowKind.REPORT, payload=cbor2.dumps([1]))),
]


@pytest.mark.parametrize(
    ("code", "bad"), BAD_ROWS, ids=[f"{n}-{c}" for n, (c, _) in enumerate(BAD_ROWS)]
)
def test_a_bad_row_is_kept_under_its_code_and_its_neighbours_go_through(
    service: Metering, database: Database, code: str, bad: Row
) -> None:
    for meter in (5, 7):
        import_keys(service, str(wmbus_meter(meter)))
    before = REJECTED.labels(code)._value.get()

    ack = Gateway().send(service, lorawan(98, [5], at=NOON), bad, lorawan(97, [6], at=NOON))

    assert ack.upto == 3
    assert ack.rejected == ((2, code),)
    assert letters(database) == [(code, 2, bad.payload)]
    assert [litres for _, _, litres in readings(database)] == [6, 5]
    assert REJECTED.labels(code)._value.get() == before + 1
    assert rows_of(database, "SELECT frames, rejected FROM batches") == [(2, 1)]


def test_a_registered_meter_without_key_is_not_an_unknown_one(
    service: Metering, database: Database
) -> None:
    import_keys(service, WMBUS_5, key=None)

    assert Gateway().send(service, wmbus(5, 100, heard_at=NOON)).rejected == ((1, "key_missing"),)


def test_an_unknown_meter_is_refused_where_the_utility_says_so(
    database: Database, tmp_path: Path
) -> None:
    with metering_on(database, tmp_path, unknown_meters="refuse") as service:
        import_keys(service, eui(99), key=None)
        ack = Gateway().send(service, GOOD, lorawan(1, [7], at=NOON))

    assert ack.rejected == ((2, "unknown_meter"),)
    assert readings(database) == [(eui(99), NOON, 1000)]


def refused(service: Metering, message: bytes, *, gateway: str = "cerro") -> uplink.Ack:
    answer = service.ingest(message, gateway, NOON)
    assert answer is not None
    return uplink.decode_ack(answer)


def test_a_message_that_is_no_cbor_is_kept_and_asked_for_again(
    service: Metering, database: Database
) -> None:
    gateway = Gateway()
    gateway.send(service, GOOD)
    ack = refused(service, b"\xff not CBOR")

    assert letters(database) == [("uplink_malformed", None, b"\xff not CBOR")]
    assert (ack.stream, ack.upto, ack.resend_from) == (gateway.stream, 1, 2)
    assert ack.rejected == ((0, "uplink_malformed"),)
    assert gateway.send(service, lorawan(1, [7], at=NOON)).upto == 2  # the stream goes on


def test_a_gateway_never_heard_of_gets_an_answer_without_stream(service: Metering) -> None:
    assert refused(service, b"").stream == UNKNOWN_STREAM


def test_an_oversized_message_is_a_blob_and_its_beginning_a_dead_letter(
    service: Metering, database: Database, tmp_path: Path
) -> None:
    message = bytes(uplink.MAX_MESSAGE_BYTES + 1)
    ack = refused(service, message)

    assert ack.rejected == ((0, "uplink_oversized"),)
    [(code, seq, start)] = letters(database)
    assert (code, seq, len(start)) == ("uplink_oversized", None, 64 * 1024)
    [(blob,)] = rows_of(database, "SELECT blob FROM row_dead_letters")
    assert (tmp_path / "blobs" / blob[:2] / blob[2:4] / blob).stat().st_size == len(message)


def test_a_version_of_tomorrow_is_kept_and_not_asked_for_again(service: Metering) -> None:
    gateway = Gateway()
    fields = cbor2.loads(gateway.message())
    ack = refused(service, cbor2.dumps({**fields, "v": 99}))

    assert ack.rejected == ((0, "uplink_version"),)
    assert ack.resend_from is None  # the gateway waits for the cloud to be upgraded
    assert ack.stream == gateway.stream


def test_a_gateway_on_the_topic_of_another_is_not_answered(
    service: Metering, database: Database
) -> None:
    gateway = Gateway("centro")
    gateway.hear(GOOD)

    assert service.ingest(gateway.message(), "cerro", NOON) is None
    assert [code for code, _, _ in letters(database)] == ["foreign_topic"]
    assert readings(database) == []


def test_a_stranger_is_not_answered(service: Metering, database: Database) -> None:
    gateway = Gateway("nobody")
    gateway.hear(GOOD)

    assert service.ingest(gateway.message(), "nobody", NOON) is None
    assert [code for code, _, _ in letters(database)] == ["unknown_gateway"]


def test_a_message_that_breaks_the_program_is_set_aside_and_its_stream_goes_on(
    service: Metering, database: Database
) -> None:
    gateway = Gateway()
    gateway.hear(GOOD)
    answer = service.set_aside(gateway.message(), "cerro", NOON, detail="ValueError: a bug")

    assert answer is not None
    ack = uplink.decode_ack(answer)
    assert (ack.upto, ack.resend_from, ack.rejected) == (0, 1, ((0, "intake_failed"),))
    assert [code for code, _, _ in letters(database)] == ["intake_failed"]


def only_letter(database: Database) -> int:
    [(number,)] = rows_of(
        database, "SELECT dead_letter_key FROM row_dead_letters WHERE state = 'open'"
    )
    return int(number)


def test_a_row_goes_through_on_replay_once_its_key_is_there(
    service: Metering, database: Database
) -> None:
    gateway = Gateway()
    gateway.hello(service)
    gateway.send(service, GOOD, wmbus(5, 12_345, heard_at=NOON + MINUTE), at=NOON + 2 * MINUTE)
    letter = only_letter(database)

    assert service.replay(letter).code == "unknown_meter"
    import_keys(service, WMBUS_5)
    replayed = service.replay(letter)

    assert (replayed.code, replayed.readings_new) == (None, 1)
    assert readings(database)[-1] == (WMBUS_5, NOON, 12_345)
    assert rows_of(database, "SELECT state, attempts FROM row_dead_letters") == [("replayed", 3)]
    # it points to the batch and the row it came in
    assert rows_of(
        database,
        "SELECT batch_row, seq FROM readings JOIN row_dead_letters USING (batch_key, batch_row)",
    ) == [(1, 2)]


def test_a_replay_changes_nothing_the_second_time(service: Metering, database: Database) -> None:
    Gateway().send(service, wmbus(5, 100, heard_at=NOON))
    letter = only_letter(database)
    import_keys(service, WMBUS_5)
    service.replay(letter)

    assert service.replay(letter).detail == "replayed"
    assert len(readings(database)) == 1


def test_a_row_with_a_wrong_offset_goes_through_once_the_registry_is_right(
    service: Metering, database: Database
) -> None:
    Gateway().send(service, FUTURE)
    letter = only_letter(database)
    import_keys(service, eui(1), key=None, clock_offset_s=CST_S + 2 * 3600)

    assert service.replay(letter).code is None
    assert readings(database) == [(eui(1), NOON, 7)]


def test_a_whole_message_goes_through_once_its_gateway_is_registered(
    service: Metering, database: Database, tmp_path: Path
) -> None:
    gateway = Gateway("nobody")
    gateway.hear(GOOD)
    service.ingest(gateway.message(), "nobody", NOON)
    letter = only_letter(database)
    assert service.replay(letter).code == "unknown_gateway"

    with metering_on(database, tmp_path, gateways=["nobody"]):
        assert service.replay(letter).code is None

    assert readings(database) == [(eui(99), NOON, 1000)]


def test_a_dismissed_letter_is_not_replayed(service: Metering, database: Database) -> None:
    Gateway().send(service, wmbus(5, 100, heard_at=NOON))
    letter = only_letter(database)
    service.dismiss(letter)
    import_keys(service, WMBUS_5)

    assert service.replay(letter).detail == "dismissed"
    assert readings(database) == []


def test_a_number_nobody_gave_is_said_to_be_unknown(service: Metering) -> None:
    with pytest.raises(DeadLetterUnknown):
        service.replay(123_456)


def test_text_that_the_database_cannot_hold_does_not_block_a_stream(
    service: Metering, database: Database
) -> None:
    gateway = Gateway()
    batch = replace(gateway.batch(()), agent="1\0", capabilities=("a\0",))

    assert service.ingest(uplink.encode_batch(batch), "cerro", NOON) is not None
    assert rows_of(database, "SELECT agent_version FROM gateways WHERE id = 'cerro'") == [("1",)]

"""Many telegrams as columns are the same telegrams one at a time."""

from __future__ import annotations

from dataclasses import fields
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decoders.batch import NO_INSTANT, NOBODY, Columns, decode_rows
from decoders.decode import decode_lorawan, decode_wmbus
from decoders.drivers.registry import known_formats
from decoders.encode import (
    encode_lorawan_daily,
    encode_lorawan_hourly,
    encode_lorawan_install,
    encode_wmbus,
    kamstrup_flowiq_records,
    kamstrup_multical_records,
    records_of,
    session_number,
)
from decoders.errors import DecodeError
from decoders.formats import Formats
from decoders.identity import hash_of
from decoders.ids import MeterId
from decoders.reading import Integrity, Telegram
from decoders.uplink import Row, RowFlag, RowKind, Rows, pack_rows
from decoders.wmbus.link import WIRELESS

unhurried = settings(deadline=None, max_examples=60)
NOON_US = 1_772_366_400_000_000
HOUR_US = 3_600_000_000
METERS = [
    MeterId(manufacturer="KAW", serial=f"{70_000_000 + n:08d}", version=0x3A, medium=0x16)
    for n in range(5)
]
KEYS = {str(meter): bytes([n]) * 16 for n, meter in enumerate(METERS[:4])}  # the last has none
UNTAUGHT = bytes.fromhex("04130413023B615B02FF20")


def hourly(chance: Random) -> bytes:
    most = chance.choice([1, 200, 250, 400, 30_000])
    registers = [chance.randrange(1_000_000, 2_000_000_000)]
    for _ in range(chance.choice([0, 1, 16, 32, 40])):
        registers.append(registers[-1] - chance.randrange(-1 if most == 200 else 0, most))
    return encode_lorawan_hourly(
        registers,
        local_us=NOON_US + chance.randrange(20_000) * HOUR_US,
        access_number=chance.choice([None, 3]),
    )


def telegram(chance: Random) -> bytes:
    number, total_l = chance.randrange(len(METERS)), chance.randrange(1_000_000)
    records = chance.choice(
        [
            kamstrup_flowiq_records(total_l=total_l, info_code=chance.choice([0, 4, 1 << 20])),
            kamstrup_multical_records(total_l=total_l, info_code=0x71),
            records_of(UNTAUGHT, {"0413": total_l}),
        ]
    )
    return encode_wmbus(
        records,
        meter=METERS[number],
        session_number=session_number(session=1, minutes=chance.randrange(1 << 25), encrypted=True),
        access_number=chance.randrange(256),
        key=bytes([number]) * 16,
        compact=chance.random() < 0.7,
        form=chance.choice(WIRELESS),
    )


def payload(chance: Random, kind: RowKind) -> bytes:
    if kind is RowKind.WMBUS:
        return telegram(chance)
    if kind is not RowKind.LORAWAN:
        return b"\xa0"
    other = chance.random()
    if other < 0.1:
        return encode_lorawan_daily(7, local_us=NOON_US, info_code=chance.choice([0, 4]))
    if other < 0.15:
        return encode_lorawan_install(meter=METERS[0], config_number=9)
    return hourly(chance)


def spoiled(chance: Random, message: bytes) -> bytes:
    """A message as it is three times in four, else damaged somehow."""
    damage = chance.randrange(16)
    changed = bytearray(message)
    if damage == 0:
        return message[: chance.randrange(len(message) + 1)]
    if damage == 1:
        return message + b"\x2f" * chance.randrange(4)
    if damage == 2:
        return message + bytes(chance.randrange(4))
    if damage == 3:
        for _ in range(chance.randrange(1, 3)):
            changed[chance.randrange(len(changed))] = chance.choice([0, 0x7F, 0x80, 0xFF, 0x2F])
    return bytes(changed)


def rows_from(seed: int, count: int) -> Rows:
    chance, rows = Random(seed), []
    kinds = [RowKind.LORAWAN] * 6 + [RowKind.WMBUS] * 3 + [RowKind.ANOMALY, RowKind.REPORT]
    for seq in range(1, count + 1):
        kind = chance.choice(kinds)
        rows.append(
            Row(
                seq=seq,
                heard_at=NOON_US,
                kind=kind,
                payload=spoiled(chance, payload(chance, kind)),
                flags=chance.choice(
                    [RowFlag(0), RowFlag.NETWORK_CHECKED] * 5 + [RowFlag.ALREADY_DECRYPTED]
                ),
                radio=chance.choice([0x0013EA0000000001, 0x0013EA0000000002, 5]),
                counter=chance.randrange(1 << 32),
                port=4,
            )
        )
    return pack_rows(rows)


def said_one_at_a_time(rows: Rows, formats: Formats) -> list[Telegram | DecodeError]:
    """The oracle, written without a look at how batches work."""
    said: list[Telegram | DecodeError] = []
    for row in rows:
        if row.kind not in (RowKind.WMBUS, RowKind.LORAWAN):
            continue
        try:
            if row.kind is RowKind.LORAWAN:
                one = decode_lorawan(
                    row.payload,
                    port=row.port,
                    f_cnt=row.counter,
                    dev_eui=row.radio,
                    integrity=(
                        Integrity.MAC if RowFlag.NETWORK_CHECKED in row.flags else Integrity.NONE
                    ),
                )
            else:
                name = str(MeterId.from_wire(row.payload[2:10])) if len(row.payload) > 9 else ""
                one = decode_wmbus(
                    row.payload,
                    key=KEYS.get(name),
                    formats=formats,
                    already_decrypted=bool(row.flags & RowFlag.ALREADY_DECRYPTED),
                )
                if one.integrity is not Integrity.NONE:
                    formats.learn(one.layout)
            said.append(one)
        except DecodeError as error:
            said.append(error)
    return said


def readings_of(columns: Columns, frame: int) -> list[tuple[int, int]]:
    mine = columns.of_frame == frame
    pairs = zip(columns.local_at[mine].tolist(), columns.litres[mine].tolist(), strict=True)
    return list(pairs)


def assert_says(columns: Columns, frame: int, one: Telegram | DecodeError) -> None:
    code = columns.refused[frame]
    if isinstance(one, DecodeError):
        assert columns.codes[code] == one.code
        assert columns.details[frame] == str(one)
        assert readings_of(columns, frame) == []
        return
    assert code == -1
    assert columns.names[columns.name[frame]] == one.natural_id
    assert columns.counter[frame] == one.counter
    assert columns.frame[frame].tobytes() == hash_of(one)
    assert columns.integrity[frame] == one.integrity
    register_l = int(columns.register_l[frame]) if columns.has_register[frame] else None
    assert register_l == one.register_l
    info_code = int(columns.info_code[frame]) if columns.has_info[frame] else None
    assert info_code == one.info_code
    now = [] if one.register_l is None else [(NO_INSTANT, one.register_l)]
    assert readings_of(columns, frame) == (list(one.series) or now)


@unhurried
@given(seed=st.integers(0, 1 << 32), count=st.integers(0, 60))
def test_a_batch_says_of_each_row_what_decoding_it_alone_says(seed: int, count: int) -> None:
    rows = rows_from(seed, count)

    columns = decode_rows(rows, keys=KEYS.get, formats=known_formats(), least=1)

    alone = said_one_at_a_time(rows, known_formats())
    assert len(columns.row) == len(alone)
    for frame, one in enumerate(alone):
        assert_says(columns, frame, one)


@unhurried
@given(seed=st.integers(0, 1 << 32))
def test_sweeping_changes_nothing(seed: int) -> None:
    rows = rows_from(seed, 40)

    swept = decode_rows(rows, keys=KEYS.get, formats=known_formats(), least=1)
    plain = decode_rows(rows, keys=KEYS.get, formats=known_formats(), sweeping=False)

    assert_same(swept, plain)


def test_a_thousand_profiles_are_swept_and_none_is_left_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chance = Random(7)
    registers = [
        sorted((chance.randrange(5000) for _ in range(33)), reverse=True) for _ in range(1000)
    ]
    rows = pack_rows(
        Row(
            seq=n + 1,
            heard_at=0,
            kind=RowKind.LORAWAN,
            radio=0x0013EA0000000000 + n,
            counter=n,
            payload=encode_lorawan_hourly(each, local_us=NOON_US),
        )
        for n, each in enumerate(registers)
    )

    def unexpected(*_: object, **__: object) -> None:
        raise AssertionError("a plain profile was decoded alone")

    monkeypatch.setattr("decoders.batch.decode_lorawan", unexpected)

    columns = decode_rows(rows, keys=KEYS.get, formats=known_formats())

    for n, each in enumerate(registers):
        told = columns.litres[columns.of_frame == n].tolist()
        assert told == each[: len(told)]
        assert len(told) in (17, 33)


def assert_same(one: Columns, other: Columns) -> None:
    for column in fields(Columns):
        left, right = getattr(one, column.name), getattr(other, column.name)
        if column.name == "errors":
            assert [(f, str(e)) for f, e in left] == [(f, str(e)) for f, e in right]
        elif isinstance(left, np.ndarray):
            assert left.dtype == right.dtype
            assert left.tolist() == right.tolist()
        else:
            assert left == right


def sealed_frames(count: int) -> list[bytes]:
    return [
        encode_wmbus(
            kamstrup_flowiq_records(total_l=n * 7, info_code=n & 0xFF, water_c=(10, 15)),
            meter=METERS[n % 4],
            session_number=session_number(session=1, minutes=n, encrypted=True),
            access_number=n & 0xFF,
            key=bytes([n % 4]) * 16,
            compact=n % 8 != 0,
        )
        for n in range(count)
    ]


def batch_of(frames: list[bytes]) -> Rows:
    return pack_rows(
        Row(seq=n + 1, heard_at=0, kind=RowKind.WMBUS, payload=frame)
        for n, frame in enumerate(frames)
    )


def test_plain_encrypted_frames_are_swept_and_none_is_left_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = batch_of(sealed_frames(400))

    def unexpected(*_: object, **__: object) -> None:
        raise AssertionError("a plain frame was decoded alone")

    monkeypatch.setattr("decoders.batch.decode_wmbus", unexpected)

    columns = decode_rows(rows, keys=KEYS.get, formats=known_formats())

    assert columns.register_l.tolist() == [n * 7 for n in range(400)]
    assert columns.info_code.tolist() == [n & 0xFF for n in range(400)]
    assert columns.litres.tolist() == columns.register_l.tolist()
    assert (columns.local_at == NO_INSTANT).all()
    assert [frame for frame, _ in columns.layouts] == list(range(0, 400, 8))


@pytest.mark.parametrize("compact", [0, 1])
def test_sweeping_refuses_every_damaged_bit_as_decoding_alone_does(compact: int) -> None:
    frame = sealed_frames(2)[compact]
    flipped = []
    for bit in range(8 * len(frame)):
        damaged = bytearray(frame)
        damaged[bit // 8] ^= 1 << bit % 8
        flipped.append(bytes(damaged))
    rows = batch_of([frame, *flipped])

    swept = decode_rows(rows, keys=KEYS.get, formats=known_formats(), least=1)
    plain = decode_rows(rows, keys=KEYS.get, formats=known_formats(), sweeping=False)

    assert_same(swept, plain)
    assert [f for f in range(len(flipped) + 1) if swept.refused[f] < 0] in ([0], [0, 2])


def test_a_meters_older_key_opens_what_the_newest_does_not() -> None:
    frames = sealed_frames(80)

    columns = decode_rows(
        batch_of(frames),
        keys=lambda name: [bytes(range(16)), KEYS[name]] if name[-1] == "1" else [KEYS[name]],
        formats=known_formats(),
    )

    assert (columns.refused == -1).all()
    assert columns.key.tolist() == [int(n % 4 == 1) for n in range(80)]


def test_a_full_frame_teaches_the_compact_ones_after_it_in_the_same_batch() -> None:
    frames = [
        encode_wmbus(
            records_of(UNTAUGHT, {"0413": 77}),
            meter=METERS[0],
            session_number=session_number(session=1, minutes=minutes, encrypted=True),
            access_number=1,
            key=KEYS[str(METERS[0])],
            compact=compact,
        )
        for minutes, compact in enumerate([True, False, True])
    ]
    rows = pack_rows(
        Row(seq=n + 1, heard_at=0, kind=RowKind.WMBUS, payload=frame)
        for n, frame in enumerate(frames)
    )
    formats = known_formats()

    columns = decode_rows(rows, keys=KEYS.get, formats=formats)

    assert [columns.codes[c] if c >= 0 else None for c in columns.refused] == [
        "unknown_signature",
        None,
        None,
    ]
    assert columns.layouts == ((1, UNTAUGHT),)
    assert columns.name.tolist() == [0, 0, 0]


def test_a_sender_is_nobody_when_the_link_layer_is_damaged() -> None:
    rows = pack_rows(
        [
            Row(seq=1, heard_at=0, kind=RowKind.WMBUS, payload=b"\x01"),
            Row(seq=2, heard_at=0, kind=RowKind.WMBUS, payload=b"\x30" * 49),
        ]
    )

    columns = decode_rows(rows, keys=KEYS.get, formats=known_formats())

    assert columns.name.tolist() == [NOBODY, NOBODY]
    assert len(columns.errors) == 2


def test_an_empty_batch_has_empty_columns() -> None:
    columns = decode_rows(pack_rows([]), keys=KEYS.get, formats=known_formats())

    assert len(columns.row) == len(columns.of_frame) == len(columns.litres) == 0
    assert columns.names == columns.codes == ()


def test_a_register_beyond_all_litres_stops_no_batch() -> None:
    nobody = MeterId(manufacturer="ABC", serial="00000001", version=1, medium=7)
    absurd = b"\x44" + nobody.to_wire() + bytes.fromhex("78" + "0717" + "00" * 7 + "40")
    rows = batch_of([bytes((len(absurd),)) + absurd])

    decoded = decode_rows(rows, keys=lambda _: None, formats=Formats())

    assert not decoded.errors
    assert not decoded.has_register.any()

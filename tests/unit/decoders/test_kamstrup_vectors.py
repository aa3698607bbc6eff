"""Every public telegram and payload of a Kamstrup water meter, by name and exact value."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from decoders.decode import decode_lorawan, decode_wmbus
from decoders.drivers.registry import known_formats
from decoders.encode import encode_lorawan_daily, encode_lorawan_install
from decoders.errors import KeyMissing
from decoders.ids import MeterId
from decoders.reading import Integrity, Telegram

VECTORS = Path(__file__).parents[2] / "vectors"
TELEGRAMS: list[dict[str, Any]] = json.loads(
    (VECTORS / "telegrams" / "kamstrup_water.json").read_text()
)["vectors"]
PAYLOADS: list[dict[str, Any]] = json.loads(
    (VECTORS / "lorawan" / "kamstrup_water.json").read_text()
)["vectors"]
DEV_EUI = 0x0013EA0001020304
METER = MeterId(manufacturer="KAW", serial="12345678", version=0x3C, medium=0x16)
NOON_US = 1_772_452_800_000_000
HOUR_US = 3_600_000_000


def named(vector: dict[str, Any]) -> str:
    return str(vector["name"])


def heard(vector: dict[str, Any]) -> Telegram:
    """Decode a telegram vector, after the full frames that have to be heard before it."""
    formats = known_formats()
    key = bytes.fromhex(vector["key"]) if vector["key"] else None
    kept_decrypted = vector["kept_decrypted"]
    for before in vector["heard_before"]:
        taught = decode_wmbus(
            bytes.fromhex(before), key=key, formats=formats, already_decrypted=kept_decrypted
        )
        formats.learn(taught.layout)
    frame = bytes.fromhex(vector["frame"])
    return decode_wmbus(frame, key=key, formats=formats, already_decrypted=kept_decrypted)


def test_there_are_seventeen_public_telegrams() -> None:
    assert len(TELEGRAMS) == 17


@pytest.mark.parametrize("vector", TELEGRAMS, ids=named)
def test_a_public_telegram_says_what_it_is_known_to_say(vector: dict[str, Any]) -> None:
    telegram = heard(vector)

    assert telegram.natural_id == vector["meter"]
    assert telegram.driver == "kamstrup_water"
    assert telegram.register_l == vector["litres"]
    assert list(telegram.status) == vector["status"]
    assert telegram.integrity is Integrity.INNER_CRC
    for name, expected in vector["fields"].items():
        found = telegram.fields[name]
        assert found == (Decimal(expected) if isinstance(found, (Decimal, int)) else expected), name


@pytest.mark.parametrize("vector", TELEGRAMS, ids=named)
def test_an_invalid_temperature_is_absent(vector: dict[str, Any]) -> None:
    fields = heard(vector).fields

    assert not {127, -128} & {fields[name] for name in fields if name.endswith("_c")}


@pytest.mark.parametrize("vector", [v for v in TELEGRAMS if v["key"]], ids=named)
def test_without_its_key_a_telegram_says_that_the_key_is_missing(vector: dict[str, Any]) -> None:
    with pytest.raises(KeyMissing):
        decode_wmbus(bytes.fromhex(vector["frame"]), key=None, formats=known_formats())


def test_a_compact_frame_whose_own_checksum_differs_is_taken_with_a_doubt() -> None:
    doubtful = {vector["name"]: heard(vector).doubts for vector in TELEGRAMS}

    assert {name for name, doubts in doubtful.items() if doubts == ("full_crc",)} == {
        "the same meter, compact, flow 35 l/h, full CRC not matching, kept decrypted",
        "as the second, encrypted",
    }


@pytest.mark.parametrize("vector", PAYLOADS, ids=named)
def test_a_lorawan_payload_says_what_its_maker_says_it_says(vector: dict[str, Any]) -> None:
    payload = bytes.fromhex(vector["payload"])

    telegram = decode_lorawan(payload, port=vector["port"], f_cnt=7, dev_eui=DEV_EUI)

    assert telegram.natural_id == "0013EA0001020304"
    assert telegram.counter == 7
    for name, expected in vector["fields"].items():
        if expected is None:
            assert name not in telegram.fields
        else:
            found = telegram.fields[name]
            assert found == (expected if isinstance(found, str) else Decimal(expected)), name
    assert telegram.info_code == vector.get("info_code")
    assert list(telegram.status) == vector.get("status", [])
    assert (None if telegram.meter is None else str(telegram.meter)) == vector.get("meter")
    assert telegram.version == vector.get("version")
    assert telegram.medium == vector.get("medium")


@pytest.mark.parametrize("vector", [v for v in PAYLOADS if "newest" in v], ids=named)
def test_an_hourly_profile_is_a_series_of_registers_on_the_meters_clock(
    vector: dict[str, Any],
) -> None:
    newest = datetime.fromisoformat(vector["newest"]).replace(tzinfo=timezone.utc)
    newest_us = int(newest.timestamp()) * 1_000_000
    litres = vector["hourly_litres"]

    telegram = decode_lorawan(
        bytes.fromhex(vector["payload"]), port=vector["port"], f_cnt=0, dev_eui=DEV_EUI
    )

    assert telegram.series == tuple(
        (newest_us - hours * HOUR_US, register) for hours, register in enumerate(litres)
    )
    assert telegram.register_l == litres[0]


def test_what_the_header_alarms_of_is_told_beside_the_info_code() -> None:
    daily = encode_lorawan_daily(1000, local_us=NOON_US, info_code=4, access_number=1)
    header, records = daily[:5], daily[5:]

    telegram = decode_lorawan(
        header[:2] + b"\x04" + header[3:] + records, port=1, f_cnt=1, dev_eui=DEV_EUI
    )
    installed = decode_lorawan(
        encode_lorawan_install(meter=METER, config_number=7, status=0x04),
        port=1,
        f_cnt=1,
        dev_eui=DEV_EUI,
    )

    assert telegram.status == ("LEAK", "POWER_LOW")
    assert telegram.fields["status"] == "LEAK POWER_LOW"
    assert installed.status == ("POWER_LOW",)

"""Meters of other makers: their standard records, and security mode 5."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from decoders.decode import decode_lorawan, decode_wmbus
from decoders.encode import record
from decoders.encode_oms import transport_layer, without_ell
from decoders.errors import KeyMissing, Truncated, WrongKey
from decoders.explain import explain_lorawan
from decoders.formats import Formats
from decoders.ids import MeterId
from decoders.reading import Integrity, Telegram

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "vectors" / "telegrams" / "standard_records.json").read_text()
)["vectors"]
MODE_5 = [vector for vector in VECTORS if vector["key"]]


def named(vector: dict[str, Any]) -> str:
    return str(vector["name"])


def decoded(vector: dict[str, Any], *, frame: bytes | None = None) -> Telegram:
    return decode_wmbus(
        bytes.fromhex(vector["frame"]) if frame is None else frame,
        key=bytes.fromhex(vector["key"]) if vector["key"] else None,
        formats=Formats(),
        already_decrypted=vector["kept_decrypted"] and "in clear" not in vector["name"],
    )


@pytest.mark.parametrize("vector", VECTORS, ids=named)
def test_standard_records_have_the_values_that_were_published(vector: dict[str, Any]) -> None:
    telegram = decoded(vector)

    assert telegram.driver is None
    assert telegram.natural_id == vector["meter"]
    assert telegram.register_l == int(Decimal(vector["fields"]["volume_m3"]) * 1000)
    for name, expected in vector["fields"].items():
        assert telegram.fields[name] == Decimal(expected), name


@pytest.mark.parametrize("vector", MODE_5, ids=named)
def test_mode_five_is_only_as_sure_as_its_two_known_bytes(vector: dict[str, Any]) -> None:
    assert decoded(vector).integrity is Integrity.FILL_2F2F


@pytest.mark.parametrize("vector", MODE_5, ids=named)
def test_mode_five_tells_a_wrong_key_from_none_and_from_missing_bytes(
    vector: dict[str, Any],
) -> None:
    frame = bytes.fromhex(vector["frame"])

    with pytest.raises(WrongKey):
        decoded({**vector, "key": "11" * 16})
    with pytest.raises(KeyMissing):
        decoded({**vector, "key": None})
    with pytest.raises(Truncated):
        decoded(vector, frame=frame[:1] + frame[1:-7])


def test_a_telegram_inside_a_lorawan_payload_says_who_sent_it() -> None:
    meter = MeterId(manufacturer="ITR", serial="12345678", version=1, medium=0x07)
    sent = transport_layer(
        (record("0413", 7_123), record("01FD17", 8)), meter=meter, access_number=3
    )
    payload = without_ell(sent, sender=meter)

    telegram = decode_lorawan(payload, port=9, f_cnt=1, dev_eui=None)

    assert telegram.meter == meter
    assert telegram.register_l == 7_123
    assert telegram.fields["error_flags"] == 8
    assert explain_lorawan(payload, port=9, f_cnt=1, dev_eui=None)[-1].layer == "records"

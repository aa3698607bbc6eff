"""Water meters of other makers: every published number, exact, by our names and units."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from decoders.decode import decode_wmbus
from decoders.drivers.registry import known_formats
from decoders.errors import DecodeError, KeyMissing, WrongKey
from decoders.explain import explain_wmbus
from decoders.reading import Telegram

FOLDER = Path(__file__).parents[2] / "vectors" / "telegrams"
OTHER_FORMS = {"kamstrup_water", "link_formats", "standard_records"}  # have tests of their own
VECTORS: list[dict[str, Any]] = [
    vector
    for file in sorted(FOLDER.glob("*.json"))
    if file.stem not in OTHER_FORMS
    for vector in json.loads(file.read_text())["vectors"]
]
CHECKED = [vector for vector in VECTORS if vector["integrity"] in ("mac", "crc")]
KEYED = [vector for vector in VECTORS if vector["key"]]


def named(vector: dict[str, Any]) -> str:
    return str(vector["name"])


def decoded(vector: dict[str, Any], *, frame: bytes | None = None) -> Telegram:
    return decode_wmbus(
        bytes.fromhex(vector["frame"]) if frame is None else frame,
        key=bytes.fromhex(vector["key"]) if vector["key"] else None,
        formats=known_formats(),
        already_decrypted=vector["kept_decrypted"],
    )


def test_forty_eight_open_water_telegrams_are_here() -> None:
    assert len([v for v in VECTORS if "numbers" in v]) == 48
    assert sum(v.get("numbers", 0) for v in VECTORS) >= 200


@pytest.mark.parametrize("vector", VECTORS, ids=named)
def test_every_published_number_is_found_exactly(vector: dict[str, Any]) -> None:
    telegram = decoded(vector)

    assert telegram.natural_id == vector["meter"]
    assert telegram.register_l == vector["litres"]
    assert telegram.integrity.text == vector["integrity"]
    assert list(telegram.status) == vector["status"]
    for name, expected in vector["fields"].items():
        found = telegram.fields[name]
        assert found == (expected if isinstance(found, str) else Decimal(expected)), name


@pytest.mark.parametrize("vector", VECTORS, ids=named)
def test_every_telegram_is_explained_to_its_end(vector: dict[str, Any]) -> None:
    lines = explain_wmbus(
        bytes.fromhex(vector["frame"]),
        key=bytes.fromhex(vector["key"]) if vector["key"] else None,
        formats=known_formats(),
        already_decrypted=vector["kept_decrypted"],
    )

    assert "refused" not in {line.layer for line in lines}
    assert "records" in {line.layer for line in lines}


@pytest.mark.parametrize("vector", KEYED, ids=named)
def test_a_wrong_key_is_told_from_none(vector: dict[str, Any]) -> None:
    with pytest.raises(WrongKey):
        decoded({**vector, "key": "11" * 16})
    with pytest.raises(KeyMissing):
        decoded({**vector, "key": None})


def covered(vector: dict[str, Any]) -> range:
    """The bits that a check covers: of mode 7 those from the authentication layer on, else all."""
    frame = bytes.fromhex(vector["frame"])
    return range(13 * 8 if vector["integrity"] == "mac" else 0, 8 * len(frame))


@pytest.mark.parametrize("vector", CHECKED, ids=named)
def test_every_flipped_bit_that_a_check_covers_is_refused(vector: dict[str, Any]) -> None:
    frame = bytes.fromhex(vector["frame"])
    for bit in covered(vector):
        flipped = bytearray(frame)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DecodeError):
            decoded(vector, frame=bytes(flipped))

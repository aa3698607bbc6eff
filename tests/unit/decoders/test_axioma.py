"""Axioma's packed day of hours: the public payload, and those we make ourselves."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders.decode import decode_lorawan
from decoders.drivers.axioma_w1 import AXIOMA_W1
from decoders.errors import DecodeError, Unsupported
from decoders.explain import explain_lorawan
from decoders.lorawan import axioma
from decoders.reading import Integrity, Telegram

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "vectors" / "lorawan" / "axioma_w1.json").read_text()
)["vectors"]
SECOND_US = 1_000_000
HOUR_US = 3600 * SECOND_US
EVENING_US = 1_788_390_574 * SECOND_US  # 23:09:34 on the meter's clock


def heard(payload: bytes, *, port: int = 100) -> Telegram:
    return decode_lorawan(payload, port=port, f_cnt=7, dev_eui=None, integrity=Integrity.MAC)


def made(status: int = 0, *, log_l: int = 1000, hour_l: int = 5) -> bytes:
    return axioma.encode_packed_day(
        time_us=EVENING_US, log_l=log_l, hours_l=[hour_l] * axioma.HOURS, status=status
    )


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["name"]))
def test_a_public_payload_says_what_was_published(vector: dict[str, Any]) -> None:
    payload = bytes.fromhex(vector["payload"])
    telegram = heard(payload, port=vector["port"])
    day = axioma.read_packed_day(payload)

    assert telegram.driver == AXIOMA_W1.name
    assert {name: str(given) for name, given in telegram.fields.items()} == vector["fields"]
    assert list(telegram.status) == vector["status"]
    assert (day.time_us, day.log_l) == (vector["time"] * SECOND_US, vector["log_l"])
    assert list(day.hours_l) == vector["hours_l"]


def test_the_series_ends_with_the_last_full_hour_and_begins_with_the_log() -> None:
    telegram = heard(made())

    assert telegram.register_l == 1000 + 23 * 5
    assert telegram.series[0] == (EVENING_US - EVENING_US % HOUR_US, 1115)
    assert telegram.series[-1] == (EVENING_US - EVENING_US % HOUR_US - 23 * HOUR_US, 1000)
    assert len(telegram.series) == 24


@pytest.mark.parametrize(
    ("status", "alarms"),
    [
        (0x00, ()),
        (0x04, ("POWER_LOW",)),
        (0x08, ("PERMANENT_ERROR",)),
        (0x10, ("DRY",)),
        (0x34, ("POWER_LOW", "LEAK")),
        (0x70, ("REVERSED",)),
        (0x90, ("LOW_TEMPERATURE",)),
        (0xB0, ("BURST",)),
        (0xD0, ("TAMPER",)),
        (0x50, ("OTHER_50",)),
    ],
)
def test_alarms_are_named(status: int, alarms: tuple[str, ...]) -> None:
    telegram = heard(made(status))

    assert telegram.status == alarms
    assert telegram.info_code == status
    assert telegram.fields["status"] == (" ".join(alarms) or "OK")


def test_an_unknown_multiplier_is_refused() -> None:
    payload = made()[:-1] + b"\x04"

    with pytest.raises(Unsupported, match="multiplier 1"):
        heard(payload)
    assert explain_lorawan(payload, port=100, f_cnt=1, dev_eui=None)[-1].layer == "refused"


@pytest.mark.parametrize("size", [*range(51), 52])
def test_no_other_length_is_of_this_layout(size: int) -> None:
    with pytest.raises(DecodeError):
        heard((made() + b"\0")[:size])


def test_explaining_tells_the_clock_and_the_register() -> None:
    said = " ".join(line.says for line in explain_lorawan(made(), port=1, f_cnt=1, dev_eui=None))

    assert "2026-09-02 23:09:34" in said
    assert "now 1115 l" in said


@given(
    log_l=st.integers(0, (1 << 32) - 1),
    hours_l=st.lists(st.integers(0, axioma.MOST_L), min_size=23, max_size=23),
    time_s=st.integers(0, (1 << 32) - 1),
    status=st.integers(0, 255),
)
def test_what_is_encoded_is_decoded(
    log_l: int, hours_l: list[int], time_s: int, status: int
) -> None:
    payload = axioma.encode_packed_day(
        time_us=time_s * SECOND_US, log_l=log_l, hours_l=hours_l, status=status
    )
    telegram = heard(payload)

    assert telegram.fields["total_m3"] == Decimal(log_l + sum(hours_l)).scaleb(-3)
    assert [litres for _, litres in telegram.series][-1] == log_l
    assert telegram.info_code == status

"""Encoders: what they choose, and what they refuse."""

from __future__ import annotations

from datetime import date

import pytest

from decoders.decode import decode_lorawan, decode_wmbus
from decoders.drivers.registry import known_formats
from decoders.encode import (
    encode_lorawan_hourly,
    encode_wmbus,
    kamstrup_flowiq_records,
    local_us,
    record,
    session_number,
    type_f,
)
from decoders.ids import MeterId
from decoders.reading import Integrity
from decoders.wmbus.link import WIRELESS, Form

METER = MeterId(manufacturer="KAW", serial="12345678", version=0x3A, medium=0x16)
KEY = bytes(range(16))
NOON_US = 1_772_366_400_000_000
HOUR_US = 3_600_000_000


def falling(step: int, *, hours: int = 40) -> list[int]:
    return [100_000 - step * n for n in range(hours)]


def test_thirty_two_small_steps_give_thirty_three_registers() -> None:
    payload = encode_lorawan_hourly(falling(254), local_us=NOON_US)

    telegram = decode_lorawan(payload, port=1, f_cnt=1, dev_eui=1)

    assert len(payload) == 51
    assert len(telegram.series) == 33
    assert telegram.series[32] == (NOON_US - 32 * HOUR_US, 100_000 - 32 * 254)


def test_a_step_that_would_read_as_invalid_doubles_the_width() -> None:
    payload = encode_lorawan_hourly(falling(255), local_us=NOON_US)

    telegram = decode_lorawan(payload, port=1, f_cnt=1, dev_eui=1)

    assert len(payload) == 51
    assert len(telegram.series) == 17
    assert telegram.series[16] == (NOON_US - 16 * HOUR_US, 100_000 - 16 * 255)


def test_reverse_flow_is_sent_as_signed_differences() -> None:
    registers = [1000, 1010, 990, 1200]

    payload = encode_lorawan_hourly(registers, local_us=NOON_US)

    telegram = decode_lorawan(payload, port=1, f_cnt=1, dev_eui=1)
    assert [litres for _, litres in telegram.series] == registers


def test_a_step_no_profile_can_carry_is_refused() -> None:
    with pytest.raises(OverflowError):
        encode_lorawan_hourly([200_000, 0], local_us=NOON_US)


def test_a_value_that_does_not_fit_its_record_is_refused() -> None:
    with pytest.raises(OverflowError):
        record("023B", 70_000)
    with pytest.raises(OverflowError):
        record("0A13", 12_345)


def test_binary_coded_digits_may_be_negative_or_invalid() -> None:
    assert record("0C13", -123).data.hex() == "230100f0"
    assert record("0C13", None).data.hex() == "ffffffff"


@pytest.mark.parametrize("compact", [False, True])
@pytest.mark.parametrize("form", WIRELESS)
def test_a_flowiq_frame_says_what_it_was_given(form: Form, compact: bool) -> None:
    records = kamstrup_flowiq_records(
        total_l=123_456,
        target_l=1000,
        target_on=date(2026, 1, 1),
        info_code=0x204,
        flow_lph=20,
        max_flow_lph=600,
        min_flow_lph=1,
        water_c=(15, 20),
        ambient_min_c=-3,
    )
    frame = encode_wmbus(
        records,
        meter=METER,
        session_number=session_number(session=1, minutes=5, encrypted=True),
        access_number=1,
        key=KEY,
        compact=compact,
        form=form,
    )

    telegram = decode_wmbus(frame, key=KEY, formats=known_formats())

    assert telegram.integrity is Integrity.INNER_CRC
    assert telegram.status == ("LEAK", "NO_CONSUMPTION")
    said = {name: str(found) for name, found in telegram.fields.items() if "noise" not in name}
    assert said == {
        "status": "LEAK NO_CONSUMPTION",
        "total_m3": "123.456",
        "target_m3": "1.000",
        "target_date": "2026-01-01",
        "flow_m3h": "0.020",
        "max_flow_m3h": "0.600",
        "min_flow_m3h": "0.001",
        "flow_temperature_c": "15",
        "min_flow_temperature_c": "15",
        "max_flow_temperature_c": "20",
        "min_external_temperature_last_day_c": "-3",
    }


def test_a_frame_in_clear_needs_no_key() -> None:
    frame = encode_wmbus(
        kamstrup_flowiq_records(total_l=5),
        meter=METER,
        session_number=session_number(session=1, minutes=5, encrypted=False),
        access_number=1,
    )

    assert decode_wmbus(frame, key=None, formats=known_formats()).register_l == 5


def test_a_local_clock_runs_ahead_of_utc_by_its_offset() -> None:
    assert local_us(utc_us=NOON_US, offset_s=-21_600) == NOON_US - 6 * HOUR_US


def test_a_date_and_time_is_four_bytes() -> None:
    assert type_f(1_721_847_600_000_000).hex() == "00331837"

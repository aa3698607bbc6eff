"""The record layer, case by case of EN 13757-3."""

from __future__ import annotations

from decimal import Decimal

import pytest

from decoders.errors import DecodeError, Malformed, Truncated
from decoders.meaning import measured_by, named_by
from decoders.wmbus.data import date_of, decimal_of, instant_of, litres_of, text_of
from decoders.wmbus.records import Record, join, layout_of, shape_of, split

US_PER_HOUR = 3_600_000_000


def only(encoded: str) -> Record:
    (record,) = split(bytes.fromhex(encoded), at=0)
    return record


@pytest.mark.parametrize(
    ("encoded", "name", "number"),
    [
        ("04131F0F0000", "volume_m3", "3.871"),
        ("0413FFFFFFFF", "volume_m3", "-0.001"),
        ("041300000080", "volume_m3", None),
        ("0C1378563412", "volume_m3", "12345.678"),
        ("0C13785634F2", "volume_m3", "-2345.678"),
        ("0C1378A63412", "volume_m3", None),
        ("441300000000", "volume_storage1_m3", "0.000"),
        ("92013B5C02", "max_volume_flow_storage2_m3h", "0.604"),
        ("A2013B0000", "min_volume_flow_storage2_m3h", "0.000"),
        ("615B0F", "min_flow_temperature_storage1_c", "15"),
        ("615B80", "min_flow_temperature_storage1_c", None),
        ("0259191E", "flow_temperature_c", "77.05"),
        ("025D0A0B", "return_temperature_c", "28.26"),
        ("0406D2040000", "energy_kwh", "1234"),
        ("040FD2040000", "energy_mj", "12340"),
        ("022BD204", "power_kw", "1.234"),
        ("0268D204", "pressure_bar", "1.234"),
        ("053E0000C03F", "volume_flow_m3h", "1.5"),
        ("053E0000C07F", "volume_flow_m3h", None),
        ("07130100000000000000", "volume_m3", "0.001"),
        ("84101302000000", "volume_tariff1_m3", "0.002"),
        ("84401302000000", "volume_subunit1_m3", "0.002"),
        ("84501302000000", "volume_tariff1_subunit1_m3", "0.002"),
        ("04933C02000000", "backward_volume_m3", "0.002"),
        ("04933B02000000", "forward_volume_m3", "0.002"),
        ("02FD74D204", "battery_d", "1234"),
        ("02FD46D204", "voltage_v", "1.234"),
        ("01FD170F", "error_flags", "15"),
        ("02FB011234", "energy_kwh", "13330000"),
        ("01FD0880", "access_counter", "128"),
        ("01FD17FF", "error_flags", "255"),
        ("02FB1AF401", "humidity_pct", "50.0"),
        ("02BB56D204", "last_lower_limit_exceed_duration_volume_flow_h", "1234"),
        ("01BB4905", "upper_limit_exceeds_volume_flow", "5"),
        ("04936905000000", "leakage_volume_m3", "0.005"),
        ("0223D204", "on_time_d", "1234"),
        ("04937D02000000", "volume_m3", "2.000"),
        ("04937302000000", "volume_m3", "0.000002"),
        ("0D13C478563412", "volume_m3", "12345.678"),
        ("0D13D23412", "volume_m3", "-1.234"),
        ("0D13E2D204", "volume_m3", "1.234"),
        ("0D13F5D204" + 46 * "00", "volume_m3", "1.234"),
        ("0D13F6D204" + 62 * "00", "volume_m3", "1.234"),
        ("02FD3CD204", "transmission_period_s", "1234"),
        ("01FD3E18", "transmission_period_h", "24"),
        ("01FD1D0B", "response_delay", "11"),
        ("0193660A", "last_duration_volume_h", "10"),
        ("01BB600A", "first_duration_volume_flow_s", "10"),
    ],
)
def test_a_number_has_its_name_and_its_exact_value(
    encoded: str, name: str, number: str | None
) -> None:
    record = only(encoded)

    assert record.shape.name == name
    assert decimal_of(record) == (None if number is None else Decimal(number))


def test_a_text_reads_from_its_last_byte_to_its_first() -> None:
    record = only("0DFD1105" + b"54321".hex())

    assert record.shape.name == "customer"
    assert text_of(record) == "12345"


def test_a_unit_in_plain_text_belongs_to_the_head() -> None:
    record = only("02FC0348252074" + "3412")

    assert record.shape.head.hex().upper() == "02FC0348252074"
    assert record.data == bytes.fromhex("3412")
    assert record.shape.meaning is None


@pytest.mark.parametrize(
    ("encoded", "hours"),
    [
        ("046D00331837", 19928 * 24 + 19),  # 2024-07-24 19:00
        ("046D80331837", None),  # the meter says: invalid
        ("046D0033183F", None),  # month 15
        ("046D00000000", None),
        ("066D000013183700", 19928 * 24 + 19),
        ("066D008013183700", None),
        ("036D001837", None),
    ],
)
def test_an_instant_is_the_meters_own_clock(encoded: str, hours: int | None) -> None:
    instant = instant_of(only(encoded))

    assert instant == (None if hours is None else hours * US_PER_HOUR)


@pytest.mark.parametrize(
    ("encoded", "on"), [("426CC12B", "2022-11-01"), ("426CFFFF", None), ("426C0000", None)]
)
def test_a_date_without_a_day_is_absent(encoded: str, on: str | None) -> None:
    found = date_of(only(encoded))

    assert (None if found is None else found.isoformat()) == on


def test_an_old_meter_without_century_bits_lives_in_this_one() -> None:
    assert instant_of(only("046D00131837")) == instant_of(only("046D00331837"))


@pytest.mark.parametrize(
    ("encoded", "litres"),
    [
        ("0413D2040000", 1234),
        ("0414D2040000", 12340),
        ("0411D2040000", 12),
        ("0411FFFFFFFF", -1),
        ("041300000080", None),
        ("051600000040", 2000),
        ("025B0000", None),
    ],
)
def test_litres_are_rounded_down(encoded: str, litres: int | None) -> None:
    assert litres_of(only(encoded)) == litres


def test_fill_is_skipped_and_the_makers_own_part_is_left_alone() -> None:
    records = split(bytes.fromhex("2F2F0413010000002F2F025B14000F010203"), at=5)

    assert [record.shape.head.hex() for record in records] == ["0413", "025b"]
    assert [record.at for record in records] == [7, 15]


def test_heads_joined_are_the_layout_and_records_joined_are_the_payload() -> None:
    encoded = bytes.fromhex("02FF200000041301000000615B7F8101E7FF0F13")
    records = split(encoded, at=0)

    assert layout_of(records).hex().upper() == "02FF200413615B8101E7FF0F"
    assert join(records) == encoded


@pytest.mark.parametrize(
    "encoded", ["04", "0413", "04130000", "84", "04FF", "0D13", "0D1302AA", "02FC", "027C0348"]
)
def test_a_record_that_ends_early_is_truncated(encoded: str) -> None:
    with pytest.raises(Truncated):
        split(bytes.fromhex(encoded), at=0)


@pytest.mark.parametrize("encoded", ["3F13", "7F", "0D13CF", "80" + "80" * 12 + "0013"])
def test_a_reserved_code_is_malformed(encoded: str) -> None:
    with pytest.raises(Malformed):
        split(bytes.fromhex(encoded), at=0)


def test_a_meter_that_no_driver_claims_still_says_its_standard_records() -> None:
    records = split(
        bytes.fromhex("0413D2040000426C41374413E8030000046D0033183702FF2001000DFD11024142"), at=0
    )

    named, measured = named_by(records, None), measured_by(records, None)

    assert measured.register_l == 1234
    assert named.fields == {
        "volume_m3": Decimal("1.234"),
        "date_storage1": "2026-07-01",
        "volume_storage1_m3": Decimal("1.000"),
        "datetime": "2024-07-24T19:00:00",
        "customer": "BA",
    }
    assert measured.series == ((19928 * 24 * US_PER_HOUR + 19 * US_PER_HOUR, 1234),)


def test_a_shape_reads_every_extension_byte() -> None:
    shape = shape_of(bytes.fromhex("D4F1FB4113"))

    assert (shape.function, shape.storage, shape.tariff, shape.subunit) == (
        1,
        1 | 1 << 1 | 0xB << 5 | 1 << 9,
        3 | 3 << 2,
        1 | 1 << 1 | 1 << 2,
    )


def test_only_decode_errors_come_out_of_every_short_input() -> None:
    for first in range(256):
        for second in range(256):
            try:
                split(bytes((first, second)), at=0)
            except DecodeError:
                continue


@pytest.mark.parametrize("encoded", ["05137F969865", "071700000000000000" + "40"])
def test_more_litres_than_any_meter_counts_are_no_register(encoded: str) -> None:
    record = only(encoded)

    assert litres_of(record) is None
    assert measured_by((record,), None).register_l is None
    instant = only("046D00331837")
    assert measured_by((instant, record), None).series == ()


@pytest.mark.parametrize("other", ["04FD7000331837", "04FD3000331837"])
def test_only_the_meters_clock_dates_its_register(other: str) -> None:
    dated = split(bytes.fromhex(other + "041301000000"), at=0)

    assert measured_by(dated, None).series == ()

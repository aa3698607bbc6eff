"""Rare records come back as they were encoded."""

from __future__ import annotations

import struct
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders import encode_records
from decoders.wmbus.data import decimal_of, digits_of, instant_of, text_of, time_of
from decoders.wmbus.profile import (
    ABSOLUTE,
    DECREMENTS,
    INCREMENTS,
    SIGNED,
    UNIT_SECONDS,
    read_profile,
    series_of,
)
from decoders.wmbus.records import Record, join, shape_of, split

SECOND_US = 1_000_000
NOON_US = 1_772_452_800 * SECOND_US


def heard(record: Record) -> Record:
    """The same record, as a decoder finds it in what was sent."""
    (found,) = split(join((record,)), at=0)
    return found


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_reals(number: float) -> None:
    found = decimal_of(heard(encode_records.real("0516", number)))

    assert found is not None
    assert struct.pack("<f", float(found)) == struct.pack("<f", number)


def test_a_real_that_is_no_number_is_absent() -> None:
    assert decimal_of(heard(encode_records.real("0516", None))) is None


@given(st.text(st.characters(codec="latin-1"), min_size=1, max_size=191))
def test_texts(words: str) -> None:
    assert text_of(heard(encode_records.text("0DFD11", words))) == words


@given(st.integers(-(10**17), 10**17), st.booleans())
def test_variable_numbers(digits: int, bcd: bool) -> None:
    record = heard(encode_records.variable("0D13", digits, bcd=bcd))

    assert digits_of(record) == digits
    assert decimal_of(record) == Decimal(digits).scaleb(-3)


@pytest.mark.parametrize(("digits", "bcd"), [(1 << 127, False), (10**18, True)])
def test_what_no_length_byte_can_say_is_refused(digits: int, bcd: bool) -> None:
    with pytest.raises(OverflowError):
        encode_records.variable("0D13", digits, bcd=bcd)


@given(st.integers(946_684_800, 4_102_444_799))
def test_clocks_with_seconds(second: int) -> None:
    at = second * SECOND_US

    assert instant_of(Record(shape_of(b"\x06\x6d"), encode_records.type_i(at), 0)) == at


def test_times_of_day() -> None:
    sent = encode_records.type_j(hour=23, minute=5, second=9)

    assert time_of(Record(shape_of(b"\x03\x6d"), sent, 0)) == "23:05:09"


@given(
    base=st.integers(0, 10**6),
    steps=st.lists(st.integers(0, 250), max_size=24),
    mode=st.sampled_from((ABSOLUTE, INCREMENTS, DECREMENTS, SIGNED)),
    apart=st.tuples(st.integers(0, 3), st.integers(1, 250)),
    element_bytes=st.integers(3, 4),
)
def test_profiles_of_every_mode_unit_and_width(
    base: int, steps: list[int], mode: int, apart: tuple[int, int], element_bytes: int
) -> None:
    (unit, spacing), sign = apart, 1 if mode == DECREMENTS else -1
    registers = [base]
    for step in steps:
        registers.append(registers[-1] + sign * step)
    if mode == SIGNED:
        registers[1:] = registers[:0:-1]

    record = heard(
        encode_records.profile(
            "4D9313",
            registers,
            mode=mode,
            unit=unit,
            spacing=spacing,
            element_bytes=element_bytes,
        )
    )

    apart_us = UNIT_SECONDS[unit] * spacing * SECOND_US
    assert series_of(read_profile(record), base=base, local_us=NOON_US) == tuple(
        (NOON_US - place * apart_us, register) for place, register in enumerate(registers)
    )


@pytest.mark.parametrize(
    ("registers", "mode"), [([255, 0], INCREMENTS), ([0, 1], INCREMENTS), ([1000, 0], SIGNED)]
)
def test_a_step_that_does_not_fit_is_refused(registers: list[int], mode: int) -> None:
    with pytest.raises(OverflowError):
        encode_records.profile("4D9313", registers, mode=mode, unit=2, spacing=1, element_bytes=1)

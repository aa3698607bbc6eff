"""Inverse compact profiles in every mode, unit and width."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from decoders.wmbus.profile import read_profile, series_of
from decoders.wmbus.records import split

SECOND_US = 1_000_000
BASE_US = 1_774_915_200_000_000  # 2026-03-31 00:00 on the meter's clock


def series(profile: str, *, base: int = 1000) -> tuple[tuple[int, int], ...]:
    data = bytes.fromhex(profile)
    (record,) = split(b"\x4d\x93\x13" + bytes((len(data),)) + data, at=0)
    return series_of(read_profile(record), base=base, local_us=BASE_US)


@pytest.mark.parametrize(
    ("profile", "registers"),
    [
        ("6101" + "010203", [1000, 999, 997, 994]),
        ("A101" + "010203", [1000, 1001, 1003, 1006]),
        ("E101" + "01FE03", [1000, 999, 1001, 998]),
        ("6201" + "2C010001", [1000, 700, 444]),
        ("6301" + "010000020000", [1000, 999, 997]),
        ("6401" + "0100000002000000", [1000, 999, 997]),
        ("2201" + "E703DE03", [1000, 999, 990]),
        ("2201" + "E7030080DE03", [1000, 999, 990]),
    ],
)
def test_registers_follow_from_the_base_and_the_steps(profile: str, registers: list[int]) -> None:
    assert [register for _, register in series(profile)] == registers


@pytest.mark.parametrize(
    ("profile", "spacing_s"),
    [
        ("410A" + "0101", 10),
        ("510F" + "0101", 900),
        ("6101" + "0101", 3600),
        ("6118" + "0101", 86_400),
        ("7101" + "0101", 86_400),
    ],
)
def test_values_are_as_far_apart_as_the_profile_says(profile: str, spacing_s: int) -> None:
    instants = [at for at, _ in series(profile)]

    assert instants == [BASE_US - steps * spacing_s * SECOND_US for steps in range(3)]


@pytest.mark.parametrize(
    ("profile", "days"),
    [
        ("71FE" + "0101", ["2026-03-31", "2026-02-28", "2026-01-31"]),
        ("61FE" + "0101", ["2026-03-31", "2025-12-31", "2025-09-30"]),
        ("51FE" + "0101", ["2026-03-31", "2025-09-30", "2025-03-31"]),
    ],
)
def test_months_go_back_by_the_calendar(profile: str, days: list[str]) -> None:
    found = [
        datetime.fromtimestamp(at / SECOND_US, timezone.utc).date().isoformat()
        for at, _ in series(profile)
    ]

    assert found == days


@pytest.mark.parametrize("profile", ["6101" + "01FF01", "E101" + "018001", "6201" + "0100FFFF0100"])
def test_what_lies_before_an_invalid_step_is_not_known(profile: str) -> None:
    assert [register for _, register in series(profile)] == [1000, 999]

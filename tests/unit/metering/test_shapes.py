"""How metering's rows look in JSON."""

from __future__ import annotations

import pytest

from cloud.metering.shapes import driver_of


@pytest.mark.parametrize(
    ("name", "version", "medium", "driver"),
    [
        ("0013EA0001020304", None, None, "kamstrup_water"),
        ("FFFFFF0001020304", None, None, None),
        ("KAW-53885758", 0x3A, 0x16, "kamstrup_water"),
        ("KAW-53885758", None, None, "kamstrup_water"),
        ("KAW-53885758", 0x3A, 0x04, None),  # a heat meter of the same maker
        ("ABC-00000001", 0x01, 0x16, None),
    ],
)
def test_a_meter_s_driver_follows_from_its_identity(
    name: str, version: int | None, medium: int | None, driver: str | None
) -> None:
    assert driver_of([name], version=version, medium=medium) == driver


def test_a_meter_without_names_has_no_driver() -> None:
    assert driver_of([], version=None, medium=None) is None

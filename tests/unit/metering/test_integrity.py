"""What is stored of a reception's integrity is what somebody checked, not what the radio could."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cloud.kernel.db import Database
from cloud.metering.service import Metering
from decoders.reading import Integrity
from decoders.uplink import RowFlag
from tests.heard import NOON, Gateway, lorawan, metering_on, rows_of


@pytest.fixture
def service(database: Database, tmp_path: Path) -> Iterator[Metering]:
    with metering_on(database, tmp_path) as made:
        yield made


@pytest.mark.parametrize("meters", [1, 50], ids=["one", "a sweep of many"])
def test_only_frames_that_a_network_server_vouches_for_have_a_checked_mac(
    service: Metering, database: Database, meters: int
) -> None:
    unchecked = [replace(lorawan(n, [100], at=NOON), flags=RowFlag(0)) for n in range(meters)]
    checked = [
        replace(lorawan(n, [200], at=NOON), flags=RowFlag.NETWORK_CHECKED)
        for n in range(100, 100 + meters)
    ]
    Gateway().send(service, *unchecked, *checked)

    assert rows_of(
        database,
        """SELECT integrity, flags, count(*), min(register_l) FROM receptions
           GROUP BY 1, 2 ORDER BY 1""",
    ) == [(Integrity.NONE, 0, meters, 100), (Integrity.MAC, 64, meters, 200)]

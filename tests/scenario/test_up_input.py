"""`up --input`: telegrams of real Kamstrup meters, from a file to the explained reading."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.scenario.sandboxes import eventually, home, sandbox

pytestmark = [
    pytest.mark.xdist_group("up"),
    pytest.mark.timeout(600),
    pytest.mark.real_part("mosquitto"),
]
VECTORS = Path(__file__).parents[1] / "vectors"
WMBUS = json.loads((VECTORS / "telegrams" / "kamstrup_water.json").read_text())["vectors"]
FIRST_HOUR = datetime(2026, 11, 1, 6, 7, tzinfo=UTC)


@pytest.fixture
def state() -> Iterator[Path]:
    with home() as folder:
        yield folder


def line(index: int, vector: dict[str, Any]) -> str:
    heard_at = FIRST_HOUR + timedelta(hours=index)
    return json.dumps(
        {
            "telegram_hex": vector["frame"],
            "key_hex": vector["key"],
            "prior_telegrams_hex": vector["heard_before"],
            "already_decrypted": vector["kept_decrypted"],
            "heard_at": heard_at.isoformat().replace("+00:00", "Z"),
            "gateway": "norte" if index % 2 else "sur",
        }
    )


def test_a_file_of_real_telegrams_becomes_readings_that_can_be_explained(state: Path) -> None:
    source = state / "telegrams.jsonl"
    source.write_text("\n".join([*(line(i, v) for i, v in enumerate(WMBUS)), "no telegram"]))
    expected = {
        (vector["meter"], (FIRST_HOUR + timedelta(hours=i)).replace(minute=0)): vector["litres"]
        for i, vector in enumerate(WMBUS)
        if vector["litres"] is not None
    }

    with sandbox(state, "--input", str(source)) as up:
        up.ready()
        names = {meter for meter, _ in expected}
        eventually(lambda: names <= {m["name"] for m in up.aquacis("meters")}, 90, pause_s=2.0)
        last = max(expected, key=lambda reading: reading[1])
        eventually(lambda: last in readings(up, {last[0]}), 90, pause_s=2.0)

        assert readings(up, names) == expected
        meter, at = next(iter(expected))
        explained = up.aquacis("explain", "reading", meter, at.isoformat())
        assert explained["same"]
        assert {gateway["id"] for gateway in up.aquacis("gateways")} >= {"norte", "sur", "entrada"}


def readings(up: Any, names: set[str]) -> dict[tuple[str, datetime], int]:
    return {
        (name, datetime.fromisoformat(reading["at"])): reading["register_l"]
        for name in names
        for reading in up.aquacis("readings", name, "--from", "2026-10-30T00:00:00Z")
    }

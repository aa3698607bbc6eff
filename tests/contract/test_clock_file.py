"""One clock file, three readers: the cloud, the gateway and the city tell the same time by it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloud.kernel.clock import FileClock
from edge_agent.clock import FileClock as GatewayClock
from field_sim.clock_file import ClockFile

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "clock" / "v1.json").read_text())


def city(path: Path) -> int:
    course = ClockFile(path).course
    assert course is not None
    return course.at(time.time_ns() // 1000)


READERS: dict[str, Callable[[Path], int]] = {
    "cloud": lambda path: FileClock(path).now_us(),
    "gateway": lambda path: GatewayClock(path).now_us(),
    "city": city,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda vector: vector["name"])
def test_everybody_reads_the_same_instant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vector: dict[str, Any], reader: str
) -> None:
    path = tmp_path / "clock.json"
    path.write_text(vector["file"])
    monkeypatch.setattr(time, "time_ns", lambda: vector["wall_us"] * 1000)

    assert READERS[reader](path) == vector["now_us"]


@pytest.mark.parametrize("reader", READERS)
def test_everybody_reads_what_the_city_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    path = tmp_path / "clock.json"
    begun_us = VECTORS["vectors"][1]["wall_us"]
    clock = ClockFile(path)
    clock.resume(wall_us=begun_us, speed=1)
    clock.tick(begun_us + 1_000_000, speed=60)
    monkeypatch.setattr(time, "time_ns", lambda: (begun_us + 2_000_000) * 1000)

    assert READERS[reader](path) == begun_us + 61_000_000

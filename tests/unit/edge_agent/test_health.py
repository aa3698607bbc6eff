"""What the agent says of its board and its sources; nothing where a board does not say it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from edge_agent import core
from edge_agent.board import Board, resident_kib
from edge_agent.forward import HEALTH_ENTRIES
from edge_agent.health import EACH_S, WINDOW_S, Health
from edge_agent.outbox import Outbox
from edge_agent.protocol import Link, Pace
from edge_agent.reduction import Policy, State


def placed(root: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


def said(tmp_path: Path, files: Mapping[str, str]) -> dict[str, int]:
    placed(tmp_path, files)
    return Board(tmp_path, root=tmp_path).figures()


def test_a_board_without_sensors_says_its_disk_alone(tmp_path: Path) -> None:
    assert set(said(tmp_path, {})) == {"disk_free_kib", "disk_total_kib"}
    assert Board(tmp_path / "absent", root=tmp_path).figures() == {}


def test_this_machine_says_its_memory_and_since_when_it_runs(tmp_path: Path) -> None:
    figures = Board(tmp_path).figures()

    assert 0 < figures["memory_available_kib"] <= figures["memory_total_kib"]
    assert 0 < figures["disk_free_kib"] <= figures["disk_total_kib"]
    assert figures["uptime_s"] > 0
    assert 5_000 < resident_kib() < 2_000_000


def test_the_hottest_sensor_counts_and_a_broken_one_does_not(tmp_path: Path) -> None:
    figures = said(
        tmp_path,
        {
            "sys/class/thermal/thermal_zone0/temp": "41250",
            "sys/class/thermal/thermal_zone1/temp": "-273000",
            "sys/class/hwmon/hwmon0/temp1_input": "58600",
            "sys/class/hwmon/hwmon0/temp2_input": "nonsense",
            "sys/class/hwmon/hwmon1/temp1_input": "255000",
        },
    )

    assert figures["temperature_c"] == 59


def test_a_frosty_night_is_below_zero(tmp_path: Path) -> None:
    assert said(tmp_path, {"sys/class/thermal/thermal_zone0/temp": "-4700"})["temperature_c"] == -5


@pytest.mark.parametrize(
    ("files", "supply_mv"),
    [
        ({"sys/class/hwmon/hwmon0/in0_input": "11980"}, 11_980),
        (
            {
                "sys/class/hwmon/hwmon0/in0_input": "1100",
                "sys/class/hwmon/hwmon0/in0_label": "vcore",
                "sys/class/hwmon/hwmon0/in1_input": "12110",
                "sys/class/hwmon/hwmon0/in1_label": "VIN",
            },
            12_110,
        ),
        (
            {
                "sys/class/hwmon/hwmon0/in0_input": "1100",
                "sys/class/hwmon/hwmon0/in1_input": "3300",
                "sys/class/power_supply/battery/voltage_now": "12650000",
            },
            12_650,
        ),
        ({"sys/class/hwmon/hwmon0/in0_input": "0"}, None),
        ({"sys/class/hwmon/hwmon0/in0_input": "9999999"}, None),
        (
            {
                "sys/class/hwmon/hwmon0/in0_input": "1100",
                "sys/class/hwmon/hwmon0/in1_input": "3300",
            },
            None,
        ),
    ],
)
def test_the_voltage_that_feeds_the_board_is_found_by_its_name(
    tmp_path: Path, files: Mapping[str, str], supply_mv: int | None
) -> None:
    assert said(tmp_path, files).get("supply_mv") == supply_mv


def test_memory_and_uptime_are_read_as_the_kernel_writes_them(tmp_path: Path) -> None:
    figures = said(
        tmp_path,
        {
            "proc/meminfo": "MemTotal:  249000 kB\nMemFree: 9 kB\nMemAvailable:   120500 kB",
            "proc/uptime": "86461.27 170000.00",
        },
    )

    assert (figures["memory_total_kib"], figures["memory_available_kib"]) == (249_000, 120_500)
    assert figures["uptime_s"] == 86_461


class Counted:
    """A source whose counts a test sets."""

    def __init__(self, name: str) -> None:
        self.name, self.heard, self.up = name, 0, 1

    def figures(self) -> dict[str, int]:
        said = {"heard": self.heard, "bad": 2, "deaths": 1, "up": self.up}
        return {f"source_{self.name}_{what}": count for what, count in said.items()}

    def start(self) -> None: ...

    def settle(self, tokens: list[object]) -> None: ...

    def stop(self) -> None: ...


def test_a_rate_is_that_of_the_last_five_minutes() -> None:
    source = Counted("radio")
    health = Health([source])

    first = health.figures(0.0)
    assert "source_radio_per_hour" not in first
    for _ in range(60):
        source.heard += 10
        health.figures(_ * EACH_S + EACH_S)
    steady = health.figures(60 * EACH_S)
    quiet = [health.figures(60 * EACH_S + n * EACH_S) for n in range(1, 32)][-1]

    assert steady["source_radio_per_hour"] == 3600
    assert quiet["source_radio_per_hour"] == 0
    assert health.sources[0].heard == 600
    assert WINDOW_S == 300


def test_the_board_is_not_looked_at_with_every_message() -> None:
    looks: list[int] = []

    class Watched:
        def figures(self) -> dict[str, int]:
            looks.append(1)
            return {"temperature_c": 40}

    health = Health(board=Watched())
    for n in range(100):
        assert health.figures(n * 0.1)["temperature_c"] == 40

    assert len(looks) == 1


def test_the_age_of_the_newest_ack_is_known_once_there_was_one() -> None:
    health = Health()

    assert "last_ack_age_s" not in health.figures(5.0)
    health.acked(7.0)
    assert health.figures(100.5)["last_ack_age_s"] == 93


def test_a_source_that_counts_nothing_is_shown_nevertheless() -> None:
    class Bare:
        name = "bare"

        def start(self) -> None: ...

        def settle(self, tokens: list[object]) -> None: ...

        def stop(self) -> None: ...

    health = Health([Bare()])
    health.figures(0.0)

    assert [(s.name, s.is_up, s.heard) for s in health.sources] == [("bare", False, 0)]


def test_what_a_message_has_no_room_for_is_why_inputs_were_bad(tmp_path: Path) -> None:
    """A message takes so many figures, and a gateway may have five sources."""

    class Detailed(Counted):
        def figures(self) -> dict[str, int]:
            codes = ("malformed", "checksum", "oversized", "internal")
            said = {f"source_{self.name}_bad_{code}": 1 for code in codes}
            return {**said, **super().figures(), f"own_{self.name}": 1}

    sources = [Detailed(name) for name in ("radio", "imst", "amber", "gwmp", "chirpstack")]
    health = Health(sources, Board(tmp_path))
    reduction = State(policy=Policy())
    reduction.figures |= {"heard": 9, "undecodable_wrong_key": 2, "undecodable_crc": 1}
    state = core.State(reduction=reduction, link=Link(stream=bytes(16)), pace=Pace())
    box = Outbox(tmp_path / "outbox.db", new_stream=lambda: bytes(16), now_us=1)
    with closing(box) as outbox:
        health.acked(0.0)
        health.figures(time.monotonic() - EACH_S)
        figures = health.of(state, outbox, committed=1, inbox=0)
    sent = list(figures)[:HEALTH_ENTRIES]

    assert len(figures) > HEALTH_ENTRIES
    assert {"last_ack_age_s", "uptime_s", "undecodable_wrong_key", "undecodable_crc"} <= set(sent)
    for source in sources:
        assert {f"source_{source.name}_{what}" for what in ("per_hour", "up", "bad")} <= set(sent)
    assert all("_bad_" in name or "own_" in name for name in list(figures)[len(sent) :])

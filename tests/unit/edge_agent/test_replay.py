"""Recorded lines, played again at their pace."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from decoders.uplink import RowKind
from edge_agent import __main__ as cli
from edge_agent.clock import SystemClock
from edge_agent.config import read_config
from edge_agent.inputs import BadInput, Heard, SourceChanged
from edge_agent.instants import micros
from edge_agent.replaying import EXIT_NO_INPUT, speed
from edge_agent.sources.port import Delivered, Inbox
from edge_agent.sources.replay import ReplayFeed, recorded_at
from edge_agent.sources.supervisor import Supervised
from edge_agent.wiring import clock_of, open_outbox

TELEGRAM = "2A442D2C998734761B168D2091D37CAC21E1D68CDAFFCD3DC452BD802913FF7B1706CA9E355D6C2701CC24"


def rtl(second: float) -> str:
    return f"C1;1;1;2026-03-01 10:00:{second:06.3f};-97;102;76348799;0x{TELEGRAM}"


def lorawan(minute: int, **more: Any) -> str:
    said = {
        "payload_hex": f"{minute:04x}",
        "fport": 1,
        "f_cnt": minute,
        "dev_eui": "0013EA0001020304",
        "heard_at": f"2026-03-01T10:{minute:02d}:00Z",
    }
    return json.dumps(said | more)


def played(
    lines: list[str], tmp_path: Path, **how: Any
) -> tuple[list[tuple[float, Delivered]], Supervised]:
    """What a recording delivers, each with the seconds since its beginning."""
    path = tmp_path / "recording"
    path.write_text("\n".join(lines))
    inbox = Inbox()
    feed = ReplayFeed(path=str(path), clock=SystemClock(), **how)
    source = Supervised(feed, name="replay", inbox=inbox, again=False)
    began_s = time.monotonic()
    source.start()
    got: list[tuple[float, Delivered]] = []
    while not (source.finished.is_set() and not len(inbox)):
        given = inbox.get(0.02)
        if given is not None:
            got.append((time.monotonic() - began_s, given))
    return got, source


def heard(got: list[tuple[float, Delivered]]) -> list[tuple[float, Heard]]:
    return [(at_s, given) for at_s, given in got if isinstance(given, Heard)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (rtl(1.5), (micros("2026-03-01T10:00:01.500Z"), True)),
        (lorawan(3), (micros("2026-03-01T10:03:00Z"), False)),
        (TELEGRAM, (None, False)),
        ("C1;1;1;yesterday;-97;102;1;0x2A", (None, True)),
        ("C1;1", (None, True)),
        ('{"heard_at": null}', (None, False)),
        ('{"heard_at": "soon"}', (None, False)),
        ("{broken", (None, False)),
        ("{" * 9000, (None, False)),
        ("[]", (None, False)),
        ("", (None, False)),
    ],
)
def test_a_line_says_when_it_was_recorded_or_nothing(
    line: str, said: tuple[int | None, bool]
) -> None:
    assert recorded_at(line.encode()) == said


def test_lines_come_at_their_own_pace(tmp_path: Path) -> None:
    got, source = played([rtl(0.0), rtl(0.2), TELEGRAM, rtl(0.1), rtl(0.5)], tmp_path)

    times = [at_s for at_s, _ in heard(got)]
    assert len(times) == 5
    for at_s, expected_s in zip(times, (0.0, 0.2, 0.2, 0.2, 0.5), strict=True):
        assert expected_s - 0.01 <= at_s < expected_s + 0.15
    assert [given.kind for _, given in got if isinstance(given, SourceChanged)] == [
        "source_up",
        "source_finished",
    ]
    assert source.figures()["source_replay_deaths"] == 0


def test_a_clock_that_was_wrong_costs_no_pace(tmp_path: Path) -> None:
    """Set at its first NTP, or never: nobody waits 7,000 years for the next line."""
    wrong = [f'{{"heard_at": "{year}-12-31T00:00:00Z"}}' for year in (1970, 9999)]
    got, source = played([wrong[0], rtl(0.0), wrong[1], rtl(0.0), rtl(0.2)], tmp_path)

    times = [at_s for at_s, _ in got]
    assert len(heard(got)) == 3
    assert 0.19 <= times[-1] < 0.5
    assert source.figures()["source_replay_deaths"] == 0


def test_speed_makes_an_hour_pass_in_a_moment_and_heard_at_stays(tmp_path: Path) -> None:
    got, _ = played([lorawan(minute) for minute in range(0, 60, 10)], tmp_path, speed=6000)

    times = [at_s for at_s, _ in heard(got)]
    assert 0.45 <= times[-1] < 0.8
    assert [given.heard_at for _, given in heard(got)] == [
        micros(f"2026-03-01T10:{minute:02d}:00Z") for minute in range(0, 60, 10)
    ]


def test_as_fast_as_possible_waits_for_nothing(tmp_path: Path) -> None:
    got, _ = played([rtl(0), lorawan(0), lorawan(59), rtl(59)], tmp_path, speed=None)

    assert len(heard(got)) == 4
    assert heard(got)[-1][0] < 0.5


def test_rtl_wmbus_lines_are_heard_now_or_at_their_own_time(tmp_path: Path) -> None:
    before_us = SystemClock().now_us()

    ((_, now),) = heard(played([rtl(5)], tmp_path, speed=None)[0])
    ((_, then),) = heard(
        played([rtl(5)], tmp_path, speed=None, rtl_zone_us=-6 * 3600 * 1_000_000)[0]
    )

    assert now.heard_at >= before_us
    assert then.heard_at == micros("2026-03-01T16:00:05Z")


def test_bad_lines_are_reported_and_other_gateways_lines_skipped(tmp_path: Path) -> None:
    lines = ["nonsense", lorawan(1, gateway="sur"), lorawan(2, gateway="norte"), "x" * 20_000]

    got, _ = played(lines, tmp_path, speed=None, only="norte")

    assert [given.counter for _, given in heard(got)] == [2]
    assert [given.code for _, given in got if isinstance(given, BadInput)] == [
        "malformed",
        "oversized",
    ]


def test_stopping_ends_a_long_wait_at_once(tmp_path: Path) -> None:
    path = tmp_path / "recording"
    path.write_text(rtl(0) + "\n" + rtl(59))
    inbox = Inbox()
    feed = ReplayFeed(path=str(path), clock=SystemClock())
    source = Supervised(feed, name="replay", inbox=inbox, again=False)
    source.start()
    assert isinstance(inbox.get(5), SourceChanged)
    assert isinstance(inbox.get(5), Heard)

    began_s = time.monotonic()
    source.stop()

    assert time.monotonic() - began_s < 1
    assert inbox.get(0) is None


@pytest.mark.parametrize("wrong", ["0", "-1", "nan", "inf", "fast"])
def test_a_speed_is_a_number_above_zero_or_max(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"speed|float"):
        speed(wrong)
    assert speed("max") is None
    assert speed("60") == 60


@pytest.fixture
def replayed(tmp_path: Path) -> Callable[..., tuple[int, list[bytes]]]:
    """Run the command; return its exit code and the uplinks in the outbox afterwards."""
    settings = tmp_path / "gateway.json"
    told = {
        "gateway": "norte",
        "broker": "mqtt://127.0.0.1:9",
        "state": str(tmp_path / "agent"),
        "sources": [{"kind": "lines", "path": str(tmp_path / "shut")}],
    }
    settings.write_text(json.dumps(told))

    def run(*arguments: str) -> tuple[int, list[bytes]]:
        code = cli.main(["replay", *arguments, "--config", str(settings)])
        config = read_config(settings)
        outbox = open_outbox(config, clock_of(config))
        rows = outbox.read(outbox.first, rows=1000, max_bytes=1 << 20)
        outbox.close()
        return code, [row.payload for row in rows if row.kind == RowKind.LORAWAN]

    return run


def test_replay_ends_when_every_line_is_on_disk_although_the_cloud_is_away(
    replayed: Callable[..., tuple[int, list[bytes]]], tmp_path: Path
) -> None:
    path = tmp_path / "recording"
    minutes = range(60)
    path.write_text("\n".join(lorawan(minute) for minute in minutes))

    code, rows = replayed(str(path), "--speed", "max")

    assert code == 0
    assert rows == [minute.to_bytes(2, "big") for minute in minutes]


def test_replay_that_should_drain_says_that_rows_are_left(
    replayed: Callable[..., tuple[int, list[bytes]]], tmp_path: Path
) -> None:
    path = tmp_path / "recording"
    path.write_text(lorawan(1))

    code, rows = replayed(str(path), "--speed", "max", "--drain", "0.2")

    assert (code, len(rows)) == (75, 1)


def test_a_recording_that_cannot_be_read_is_said(
    replayed: Callable[..., tuple[int, list[bytes]]], tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()

    assert replayed(str(tmp_path / "missing"))[0] == EXIT_NO_INPUT
    assert replayed(str(folder))[0] == EXIT_NO_INPUT


def test_standard_input_is_replayed_too(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, (lorawan(1) + "\n" + lorawan(2)).encode())
    os.close(writing)
    inbox = Inbox()
    feed = ReplayFeed(path="-", clock=SystemClock(), speed=None, stdin_fd=lambda: reading)
    source = Supervised(feed, name="replay", inbox=inbox, again=False)
    source.start()

    assert source.finished.wait(5)
    os.close(reading)
    given = list(itertools.takewhile(bool, iter(lambda: inbox.get(0), None)))
    assert [one.counter for one in given if isinstance(one, Heard)] == [1, 2]

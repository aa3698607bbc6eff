"""The loop: what it does when the disk, the clock, a frame or the cloud does not behave."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Any

import cbor2
import pytest

from decoders.encode import encode_lorawan_hourly
from decoders.uplink import RowKind
from edge_agent import checkpoints, protocol, reduction, shell
from edge_agent.checkpoints import recovered
from edge_agent.inputs import BadInput, Heard
from edge_agent.leaks import HOUR_US
from edge_agent.outbox import Draft, Limit
from tests.agent_bench import STREAM, Bench, reports, wait_for


def test_what_is_heard_is_settled_and_sent_and_the_health_counts_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.thread.start()
    for token in range(1, 1201):
        bench.hear(token)

    wait_for(lambda: len(bench.cloud.rows) == 1200 and bench.agent.health()["outbox_pending"] == 0)

    assert bench.radio.settled == list(range(1, 1201))
    assert bench.cloud.last is not None
    assert bench.cloud.last.echo_cloud_at == 5
    assert bench.agent.health()["source_committed"] == 1200
    assert bench.stop() == 0
    assert bench.logged("stopped")[0]["heard"] == 1200


def test_while_the_disk_is_full_nothing_is_settled_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shell, "RETRY_S", 0.05)
    bench = Bench(tmp_path)
    full = threading.Event()
    full.set()
    append = bench.outbox.append

    def refusing(*given: Any) -> Any:
        if full.is_set():
            raise sqlite3.OperationalError("database or disk is full")
        return append(*given)

    monkeypatch.setattr(bench.outbox, "append", refusing)
    bench.thread.start()
    bench.hear(1)
    wait_for(lambda: len(bench.logged("commit_failed")) >= 2)
    assert bench.radio.settled == []

    full.clear()
    bench.hear(2)
    wait_for(lambda: bench.radio.settled == [1, 2])

    assert bench.stop() == 0
    assert len(bench.cloud.rows) == 2


def test_an_agent_whose_disk_stays_full_still_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shell, "RETRY_S", 0.05)
    monkeypatch.setattr(shell, "CATCH_UP_S", 0.2)
    bench = Bench(tmp_path)

    def refusing(*_given: Any) -> Any:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(bench.outbox, "append", refusing)
    bench.thread.start()
    bench.hear(1)
    wait_for(lambda: len(bench.logged("commit_failed")) >= 2)
    bench.hear(2)

    assert bench.stop() == 0
    assert bench.radio.settled == []


def test_a_frame_that_breaks_us_is_reported_and_its_neighbours_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = reduction._lorawan

    def breaking(state: Any, frame: Heard, now: Any) -> Any:
        if frame.counter == 2:
            raise ZeroDivisionError
        return take(state, frame, now)

    monkeypatch.setattr(reduction, "_lorawan", breaking)
    bench = Bench(tmp_path)
    bench.thread.start()
    for token in (1, 2, 3):
        bench.hear(token)

    wait_for(lambda: len(bench.cloud.rows) == 3)

    assert bench.stop() == 0
    assert bench.radio.settled == [1, 2, 3]
    (report,) = reports(bench.cloud.rows)
    assert (report["code"], report["given"]) == ("internal", b"\x01")


def noise(bench: Bench, count: int) -> None:
    for _ in range(count):
        bench.inbox.put(BadInput(source="f", code="malformed", detail="", given=b"zz"))
    wait_for(lambda: bench.agent.health()["source_committed"] >= count)


def suppressed(bench: Bench) -> list[int]:
    said = reports(bench.cloud.rows)
    return [report["count"] for report in said if report["kind"] == "suppressed"]


def test_what_the_caps_held_back_is_reported_before_the_agent_stops(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.thread.start()
    noise(bench, 100)
    assert bench.stop() == 0
    assert suppressed(bench) == [40]

    again = Bench(tmp_path)
    again.thread.start()
    noise(again, 7)
    assert again.stop() == 0

    assert suppressed(again) == [7]


def test_what_the_caps_held_back_survives_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "CAPS_EACH_S", 0.0)
    bench = Bench(tmp_path)
    bench.thread.start()
    noise(bench, 100)
    wait_for(lambda: recovered(bench.outbox, reduction.Policy()).clock.best is not None)
    kept = recovered(bench.outbox, reduction.Policy())
    bench.stop()

    assert kept.caps.of["input_malformed"].suppressed == 40


def test_a_clock_that_was_set_is_reported(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.thread.start()
    wait_for(lambda: bench.cloud.last is not None)

    bench.clock.ahead_us = 3_600_000_000
    wait_for(lambda: bool(reports(bench.cloud.rows)))

    assert bench.stop() == 0
    (report,) = reports(bench.cloud.rows)
    assert report["kind"] == "clock_step"
    assert report["to_at"] - report["from_at"] == pytest.approx(3_600_000_000, abs=5_000_000)


def test_an_outbox_that_must_shed_says_so_in_the_stream(tmp_path: Path) -> None:
    bench = Bench(tmp_path, limit=Limit(rows=100))
    bench.cloud.answers = False
    bench.thread.start()
    for token in range(1, 301):
        bench.hear(token)
    wait_for(lambda: bench.agent.health()["source_committed"] == 300)

    bench.cloud.answers = True
    wait_for(lambda: bench.agent.health()["outbox_pending"] == 0)

    assert bench.stop() == 0
    shed = [said for said in reports(bench.cloud.rows) if said["kind"] == "shed"]
    assert shed[0]["count"] > 0


def test_a_restart_does_not_forget_a_run_of_23_hours(tmp_path: Path) -> None:
    """The agent dies after the 23rd hour; its successor opens the leak at the 24th."""
    start = 1_772_409_600_000_000

    def uplink(hour: int) -> Heard:
        local_us = start + hour * HOUR_US - 6 * HOUR_US
        registers = [1000 + 10 * h for h in range(hour, -1, -1)]
        payload = encode_lorawan_hourly(registers[:33], local_us=local_us)
        return Heard(
            kind=RowKind.LORAWAN,
            frame=payload,
            heard_at=local_us,
            radio=1,
            counter=hour,
            port=1,
        )

    def lived(hours: range) -> list[dict[str, Any]]:
        bench = Bench(tmp_path)
        bench.thread.start()
        for hour in hours:
            bench.inbox.put(uplink(hour))
        wait_for(lambda: bench.agent.health()["source_committed"] == len(hours))
        assert bench.stop() == 0
        found = [row for row in bench.cloud.rows.values() if row.kind == RowKind.ANOMALY]
        return [cbor2.loads(row.payload) for row in found]

    assert lived(range(24)) == []
    (leak,) = lived(range(24, 25))

    assert (leak["level"], leak["started_at"]) == (24, start)


def test_an_outbox_put_back_from_an_old_copy_goes_on_in_a_new_stream(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.cloud.upto = 500
    bench.thread.start()

    wait_for(lambda: bool(bench.logged("stream_restarted")))
    bench.cloud.upto = 0
    bench.hear(1)
    wait_for(lambda: len(bench.cloud.rows) == 1)

    assert bench.stop() == 0
    assert bench.cloud.last is not None
    assert bench.cloud.last.stream != STREAM


def test_an_ack_of_the_old_numbers_is_not_written_into_the_new_stream(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.outbox.append([Draft(heard_at=1, kind=RowKind.WMBUS, payload=b"row")] * 10, {})
    group = shell.Group()

    for effect in (protocol.Acknowledge(upto=8, rejected=((7, "crc"),)), protocol.RestartStream()):
        bench.agent._plan(effect, group)
    bench.agent._commit(group)

    assert bench.outbox.stream != STREAM
    assert (bench.outbox.acked, bench.outbox.pending) == (0, 10)

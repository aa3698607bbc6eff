"""The agent's way to the cloud when the line is dead, slow or cut, or the cloud itself is slow."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from decoders.encode import encode_lorawan_hourly
from field_sim import broker as brokers
from field_sim.broker import Broker
from field_sim.rough_line import RoughLine
from field_sim.sink import Sink, Trouble
from tests.forwarding import AgentProcess, reachable, running, wait_for
from tests.real_parts import BROKERS

APPLICATIONS = {"gw-a": "11111111-0000-4000-8000-000000000001"}
KEEPALIVE_S = 4


@pytest.fixture(params=BROKERS)
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    prepared = brokers.prepare(reachable(tmp_path) / "broker", APPLICATIONS, kind=request.param)
    with running(prepared, tmp_path / "broker.log"):
        yield prepared


@pytest.fixture
def agent(broker: Broker, tmp_path: Path) -> Iterator[Callable[..., AgentProcess]]:
    started: list[AgentProcess] = []

    def make(port: int, *, rows: int = 0, alert_each: int = 0, **more: Any) -> AgentProcess:
        told = {"broker": f"mqtt://127.0.0.1:{port}", "password": broker.passwords["gw-a"]}
        made = AgentProcess(tmp_path / f"agent-{len(started)}", **told | more)
        made.fill(rows, alert_each=alert_each)
        started.append(made)
        return made

    yield make
    for each in started:
        each.end()


def sink(broker: Broker, **how: Any) -> Sink:
    return Sink(port=broker.port, password=broker.passwords["cloud"], **how)


def has_reached(cloud: Sink, row: int) -> bool:
    return cloud.upto >= row


@pytest.mark.parametrize("idle", [True, False], ids=["idle", "in the middle of a backlog"])
def test_a_line_gone_dead_is_given_up_within_one_and_a_half_keep_alives(
    broker: Broker, agent: Callable[..., AgentProcess], idle: bool
) -> None:
    rows = 100 if idle else 30_000
    keepalive_s = 2 * KEEPALIVE_S  # long beside what a busy machine adds
    with RoughLine(broker.port) as line, sink(broker, credit=2000) as cloud:
        gateway = agent(line.port, rows=rows, keepalive_s=keepalive_s)
        gateway.start()
        wait_for(lambda: cloud.upto >= 100)

        line.die(new_ones_pass=True)
        died_s = time.monotonic()
        before = line.accepted
        wait_for(lambda: line.accepted > before)

        assert line.connected_at[-1] - died_s <= 1.5 * keepalive_s
        wait_for(lambda: cloud.upto == rows)
        assert cloud.last_taken.rows == rows
        assert gateway.stop() == 0


@pytest.mark.parametrize("broker", ["nats"], indirect=True)
def test_a_slow_line_is_not_taken_for_a_dead_one(
    broker: Broker, agent: Callable[..., AgentProcess]
) -> None:
    rows = 600  # about 64 kB: four keep-alives on this line
    with RoughLine(broker.port, bytes_per_s=8_000) as line, sink(broker) as cloud:
        gateway = agent(line.port, rows=rows, keepalive_s=KEEPALIVE_S)
        gateway.start()
        wait_for(lambda: cloud.upto == rows, 40)

        assert line.accepted <= 2, "3.1.1 after 5, and no more connections"
        assert cloud.counts.rows <= 1.1 * rows, "hardly a row went twice over it"


@pytest.mark.parametrize("broker", ["nats"], indirect=True)
def test_a_cut_line_costs_few_repeats(broker: Broker, agent: Callable[..., AgentProcess]) -> None:
    rows = 20_000
    with RoughLine(broker.port, bytes_per_s=1_500_000) as line, sink(broker) as cloud:
        gateway = agent(line.port, rows=rows, keepalive_s=KEEPALIVE_S)
        gateway.start()
        for share in (0.2, 0.5, 0.8):
            wait_for(partial(has_reached, cloud, int(share * rows)))
            line.cut()
            time.sleep(0.5)
            line.heal()
        wait_for(lambda: cloud.upto == rows, 40)

        assert cloud.last_taken.rows == rows
        assert cloud.counts.rows <= 1.5 * rows


@pytest.mark.parametrize("broker", ["nats"], indirect=True)
def test_answers_lost_messages_twice_and_out_of_turn_store_every_row_once(
    broker: Broker, agent: Callable[..., AgentProcess]
) -> None:
    rows = 4_000
    trouble = Trouble(answer_lost=0.2, twice=0.2, out_of_turn=0.2)
    pace = {"batch_rows": 200, "linger_s": 0.05, "ack_timeout_s": 0.5, "ack_timeout_max_s": 1.0}
    with sink(broker, trouble=trouble) as cloud:
        gateway = agent(broker.port, rows=rows, pace=pace)
        gateway.start()
        wait_for(lambda: cloud.upto == rows, 40)

        taken = cloud.last_taken
        assert (taken.rows, taken.seq_sum, taken.lost) == (rows, rows * (rows + 1) // 2, 0)
        assert cloud.counts.answers_lost > 0


@pytest.mark.parametrize("broker", ["nats"], indirect=True)
def test_alerts_of_a_backlog_and_what_is_heard_now_do_not_wait_for_it(
    broker: Broker, agent: Callable[..., AgentProcess], tmp_path: Path
) -> None:
    rows, alerts = 40_000, 80
    pipe = tmp_path / "lines.fifo"
    os.mkfifo(pipe)
    with sink(broker, credit=1000, trouble=Trouble(pause_s=0.1)) as cloud:
        gateway = agent(
            broker.port,
            rows=rows,
            alert_each=rows // alerts,
            sources=[{"kind": "lines", "path": str(pipe)}],
        )
        cloud.live_since_us = time.time_ns() // 1000
        gateway.start()
        wait_for(lambda: cloud.upto > 0 and len(cloud.counts.alerts_s) == alerts)
        assert cloud.upto < rows / 2, "the backlog was through before"

        _hear(pipe)
        wait_for(lambda: len(cloud.counts.live) >= 1, 8)
        assert cloud.upto < rows, "what was heard came in its turn"
        assert gateway.stop() == 0


def _hear(pipe: Path) -> None:
    """Let a gateway hear one LoRaWAN uplink on its FIFO of lines."""
    payload = encode_lorawan_hourly([1001, 1000], local_us=1_772_452_800_000_000)
    with pipe.open("w") as line:
        line.write(
            '{"dev_eui": "0013EA0000000001", "f_cnt": 7, "f_port": 1, '
            f'"payload_hex": "{payload.hex()}"}}\n'
        )


@pytest.mark.parametrize("broker", ["nats"], indirect=True)
def test_a_slow_cloud_and_a_burst_leave_memory_as_it_was(
    broker: Broker, agent: Callable[..., AgentProcess], tmp_path: Path
) -> None:
    burst = 8_000
    lines = tmp_path / "burst.jsonl"
    payload = encode_lorawan_hourly([1001, 1000], local_us=1_772_452_800_000_000).hex()
    with lines.open("w") as file:
        for number in range(burst):
            file.write(
                f'{{"dev_eui": "0013EA{number % 4000:010X}", "f_cnt": {number}, "f_port": 1, '
                f'"payload_hex": "{payload}"}}\n'
            )
    with sink(broker, credit=1000, trouble=Trouble(pause_s=0.05)) as cloud:
        gateway = agent(broker.port, rows=10)
        gateway.start()
        wait_for(lambda: cloud.upto >= 10)
        calm_mib = gateway.resident_mib()
        assert gateway.stop() == 0
        busy = agent(broker.port, sources=[{"kind": "lines", "path": str(lines)}])
        busy.start()
        most_mib = 0.0
        end = time.monotonic() + 40
        while cloud.upto < burst and time.monotonic() < end:
            most_mib = max(most_mib, busy.resident_mib())
            time.sleep(0.1)

        assert cloud.last_taken.rows >= burst
        assert most_mib - calm_mib <= 16, (calm_mib, most_mib)
        assert busy.stop() == 0

"""A meter's frame over a packet forwarder, the tap, the agent and the broker becomes a reading."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import socket

import pytest

from cloud.kernel.db import Database
from decoders.encode import encode_lorawan_hourly, local_us
from decoders.ids import dev_eui_text
from decoders.uplink import Row, RowFlag, RowKind
from edge_agent.keys import lorawan_said
from field_sim import broker as brokers
from field_sim.broker import Broker
from field_sim.supervisor import start
from tests.gwmp_ends import LOOPBACK, port_of, udp
from tests.heard import CST_S, HOUR, NOON, Gateway, metering_on, readings, rows_of
from tests.intake_process import APPLICATIONS, intake_process
from tests.radio import Device, pull_resp, push_data, rxpk

EUI = 0x0013_EA00_0000_0077
PATIENCE_S = 90.0


@pytest.fixture
def broker(state: Path) -> Iterator[Broker]:
    prepared = brokers.prepare(state / "broker", APPLICATIONS, kind="nats")
    process = start(prepared.command, run_as=prepared.run_as, log=state / "broker.log")
    try:
        brokers.wait_ready(prepared, lambda: process.poll() is None)
        yield prepared
    finally:
        process.terminate()
        process.wait(10)


def profile(register_l: int, *, hours_ago: int = 0) -> bytes:
    """An hourly profile of two registers, the newest at noon or before."""
    at = local_us(utc_us=NOON - hours_ago * HOUR, offset_s=CST_S)
    return encode_lorawan_hourly([register_l, register_l - 10], local_us=at)


class TappedGateway:
    """The gateway "cerro": a packet forwarder, the agent's tap, and a network server."""

    def __init__(self, broker: Broker, state: Path, device: Device) -> None:
        self.server, self.forwarder = udp(), udp()
        with udp() as free:
            self.port = port_of(free)
        state.mkdir()
        keys = state / "keys.jsonl"
        line = {"meter": dev_eui_text(device.dev_eui), "lorawan": lorawan_said(device.roots())}
        keys.write_text(json.dumps(line))
        keys.chmod(0o600)
        self._config, self._log = state / "gateway.json", state / "agent.log"
        self._config.write_text(
            json.dumps(
                {
                    "gateway": "cerro",
                    "broker": broker.url,
                    "password": broker.passwords["cerro"],
                    "state": str(state),
                    "keys": str(keys),
                    "sources": [
                        {
                            "kind": "gwmp",
                            "listen": f"{LOOPBACK}:{self.port}",
                            "server": f"{LOOPBACK}:{port_of(self.server)}",
                        }
                    ],
                }
            )
        )
        self.peer = (LOOPBACK, 0)

    @contextmanager
    def agent(self) -> Iterator[subprocess.Popen[bytes]]:
        """The agent as a process; returns once its tap passes datagrams on."""
        command = [sys.executable, "-m", "edge_agent", "run", "--config", str(self._config)]
        with self._log.open("ab") as log:
            process = subprocess.Popen(command, stderr=log)
        try:
            self._wait_for_the_tap()
            yield process
        finally:
            process.kill()
            process.wait(10)

    def _wait_for_the_tap(self) -> None:
        self.server.settimeout(0.1)
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            self.forwarder.sendto(b"\x02\x00\x00\x02" + bytes(8), (LOOPBACK, self.port))
            try:
                _, self.peer = self.server.recvfrom(100)
            except TimeoutError:
                continue
            self.server.settimeout(PATIENCE_S)
            return
        raise AssertionError(self._log.read_text())

    def up(self, datagram: bytes) -> None:
        """The forwarder pushes; the server must get the same bytes."""
        self.forwarder.sendto(datagram, (LOOPBACK, self.port))
        assert received(self.server, datagram)

    def down(self, datagram: bytes) -> None:
        """The server answers; the forwarder must get the same bytes."""
        self.server.sendto(datagram, self.peer)
        assert received(self.forwarder, datagram)


def received(by: socket, datagram: bytes) -> bool:
    """Wait for a datagram; pulls that were sent twice may come before it."""
    return any(by.recv(65_535) == datagram for _ in range(1000))


def eventually(what: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def test_a_joined_meter_heard_by_the_tap_is_read_once_though_the_agent_dies_and_another_hears_it(
    broker: Broker, database: Database, state: Path
) -> None:
    device = Device(dev_eui=EUI)
    gateway = TappedGateway(broker, state / "cerro", device)
    with intake_process(broker, database, state):
        # an agent whose first message nobody hears waits ten seconds for an answer
        eventually(lambda: '"connected"' in (state / "intake.log").read_text())
        with gateway.agent():
            gateway.up(push_data(rxpk(device.join_request())))
            gateway.down(pull_resp(device.accepted(join_nonce=1, dev_addr=0x01AA0001)))
            first = device.uplink(profile(1000, hours_ago=1), counter=70_000, port=1)
            gateway.up(push_data(rxpk(first)))
            eventually(lambda: len(readings(database)) == 2)
        with gateway.agent():  # killed, and started again: it knows session and counter
            gateway.up(push_data(rxpk(first)))
            second = profile(1010)
            gateway.up(push_data(rxpk(device.uplink(second, port=1), rssi=-101, lsnr=-2)))
            eventually(lambda: len(readings(database)) == 3)

    other = Row(  # the network server's view of the same frame, from another gateway
        seq=0,
        heard_at=NOON,
        kind=RowKind.LORAWAN,
        payload=second,
        flags=RowFlag.NETWORK_CHECKED,
        radio=EUI,
        session=device.dev_addr,
        counter=70_001,
        port=1,
    )
    with metering_on(database, state) as service:
        Gateway("centro").send(service, other)

    assert [litres for _, _, litres in readings(database)] == [990, 1000, 1010]
    heard = rows_of(
        database,
        """SELECT counter, integrity, count(*), count(DISTINCT frame), min(rssi_dbm)
           FROM receptions GROUP BY 1, 2 ORDER BY 1""",
    )
    assert heard == [(70_000, 1, 1, 1, -97), (70_001, 1, 2, 1, -101)]

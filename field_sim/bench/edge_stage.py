"""One real agent, its broker and a cloud that takes everything: what `bench edge` measures.

The agent is the shipped command on a FIFO, as behind a wM-Bus receiver; its clock is a simulation's
file, so a month of rows passes in minutes. The cloud's acks are real messages over a real broker.
"""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from cloud.kernel.clock import Course, write_course
from decoders.encode import encode_lorawan_hourly, encode_wmbus, session_number
from decoders.encode import kamstrup_multical_records as records
from decoders.uplink import Ack, decode_batch, encode_ack
from field_sim import broker as brokers
from field_sim.bench.decode import FULL_EVERY, key_of, meter_id
from field_sim.broker import CLOUD, Broker
from field_sim.supervisor import start
from release import pyz, wheels

GATEWAY: Final = "mast-7"
APPLICATION: Final = "5a0d61d2-3e4b-4c58-9b61-4a6b3ad3f1c7"
CREDIT: Final = 5_000
WRITE_TIMEOUT_S: Final = 60.0  # a FIFO that stays full that long has no reader any more
START_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 30.0
TICKS: Final = os.sysconf("SC_CLK_TCK")
MINUTE_US: Final = 60_000_000
# as in the unit and the init scripts of `release/files/`
ENVIRONMENT: Final = {"PATH": os.defpath, "MALLOC_ARENA_MAX": "1"}
LITRES_AN_HOUR: Final = 9
FIRST_EUI: Final = 0x0013EA0000000000


class AgentEnded(Exception):
    """The agent stopped, or takes nothing more; the message has its last words."""


class Cloud:
    """Takes every batch and says so; keeps nothing but how far each stream got."""

    def __init__(self, broker: Broker) -> None:
        self.rows = 0
        self._upto: dict[bytes, int] = {}
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="bench-cloud")
        self._client.username_pw_set(CLOUD, broker.passwords[CLOUD])
        self._client.on_message = lambda _c, _d, message: self._take(bytes(message.payload))
        ready = threading.Event()
        self._client.on_subscribe = lambda *_: ready.set()
        self._client.connect(brokers.LOOPBACK, broker.port)
        self._client.loop_start()
        self._client.subscribe(f"aquacis/1/gateway/{GATEWAY}/up", qos=1)
        assert ready.wait(START_TIMEOUT_S), "the broker did not answer the subscription"

    def _take(self, message: bytes) -> None:
        batch = decode_batch(message)
        upto = self._upto.get(batch.stream, 0)
        if batch.rows.count and batch.rows.column("seq")[0] <= upto + 1:
            newest = int(batch.rows.column("seq")[-1])
            self.rows += max(0, newest - upto)
            upto = max(upto, newest)
        self._upto[batch.stream] = upto
        ack = Ack(stream=batch.stream, upto=upto, credit=CREDIT, cloud_at=batch.sent_at)
        self._client.publish(f"aquacis/1/gateway/{GATEWAY}/down", encode_ack(ack), qos=1)

    def stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Stage:
    """The running agent and what one may do to it."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes], cloud: Cloud) -> None:
        self.cloud = cloud
        self._folder = folder
        self._process = process
        # for reading too, so that opening does not wait for the agent's own opening
        self._fifo = os.open(folder / "receiver", os.O_RDWR | os.O_NONBLOCK)

    def set_clock(self, at_us: int) -> None:
        """Let it be `at_us` from now on; time goes on at its usual speed."""
        set_clock(self._folder, at_us)

    def write(self, lines: Iterable[str]) -> None:
        """Feed lines as fast as they are taken. Raises AgentEnded."""
        held = bytearray()
        for line in lines:
            held += line.encode() + b"\n"
            if len(held) >= 16_384:
                self._push(held)
                held.clear()
        self._push(held)

    def _push(self, data: bytes | bytearray) -> None:
        view = memoryview(bytes(data))
        while view:
            _, writable, _ = select.select([], [self._fifo], [], WRITE_TIMEOUT_S)
            if not writable or self._process.poll() is not None:
                raise AgentEnded((self._folder / "agent.log").read_text()[-500:])
            view = view[os.write(self._fifo, view) :]

    def wait_until_taken(self) -> None:
        """Return when the FIFO is empty and the agent has come to rest. Raises AgentEnded."""
        until_s = time.monotonic() + WRITE_TIMEOUT_S
        before = -1.0
        while time.monotonic() < until_s and self._process.poll() is None:
            used = self.processor_s()
            if used - before < 0.05 and not select.select([self._fifo], [], [], 0)[0]:
                return
            before = used
            time.sleep(0.5)
        raise AgentEnded((self._folder / "agent.log").read_text()[-500:])

    def processor_s(self) -> float:
        """Return the processor time that the agent has used, its own and the system's for it."""
        told = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(told[11]) + int(told[12])) / TICKS

    def resident_mib(self, name: str = "VmRSS") -> float:
        """Return resident memory, or `VmHWM`: the most it ever was."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        found = re.search(rf"^{name}:\s+(\d+)", status, re.MULTILINE)
        assert found, status
        return int(found[1]) / 1024

    def close(self) -> None:
        os.close(self._fifo)


@contextmanager
def stage(folder: Path, *, meters: int, at_us: int) -> Iterator[Stage]:
    """Start broker, cloud and agent, which holds the keys of `meters` meters."""
    broker = brokers.prepare(folder / "broker", {GATEWAY: APPLICATION})
    serving = start(broker.command, log=folder / "broker.log", run_as=broker.run_as)
    try:
        brokers.wait_ready(broker, lambda: serving.poll() is None)
        cloud = Cloud(broker)
        set_clock(folder, at_us)
        os.mkfifo(folder / "receiver")
        config = _settings(folder, broker, meters)
        command = [*shipped(folder), "run", "--config", str(config)]
        agent = start(command, log=folder / "agent.log", environment=ENVIRONMENT)
        try:
            running = Stage(folder, agent, cloud)
            yield running
            running.close()
        finally:
            agent.terminate()
            agent.wait(STOP_TIMEOUT_S)
            cloud.stop()
    finally:
        serving.terminate()
        serving.wait(STOP_TIMEOUT_S)


def shipped(folder: Path) -> tuple[str, str]:
    """Build the agent as gateways get it; return the Python it is made for, and its file."""
    archive = folder / pyz.NAME
    python = pyz.compiling_python()
    pyz.build(archive, wheels.fetched(pyz.ROOT), python=python)
    return python, str(archive)


def set_clock(folder: Path, at_us: int) -> None:
    wall_us = time.time_ns() // 1000
    write_course(folder / "clock.json", Course(wall_us=wall_us, sim_us=at_us, speed=1))


def _settings(folder: Path, broker: Broker, meters: int) -> Path:
    keys = folder / "keys.jsonl"
    keys.touch(0o600)
    keys.write_text(
        "".join(
            json.dumps({"meter": str(meter_id(number)), "key_hex": key_of(number).hex()}) + "\n"
            for number in range(meters)
        )
    )
    config = folder / "gateway.json"
    settings = {
        "gateway": GATEWAY,
        "broker": broker.url,
        "password": broker.passwords[GATEWAY],
        "state": str(folder / "agent"),
        "clock": f"file:{folder / 'clock.json'}",
        "keys": str(keys),
        "sources": [{"kind": "lines", "name": "receiver", "path": str(folder / "receiver")}],
    }
    config.write_text(json.dumps(settings))
    return config


def telegram(number: int, round_number: int, at_us: int, *, since_us: int) -> str:
    """Return one encrypted telegram of meter `number` as an rtl-wmbus line with its instant.

    round_number   how many telegrams it sent before: one in eight is full, the others compact
    """
    hours = (at_us - since_us) // (60 * MINUTE_US)
    frame = encode_wmbus(
        records(
            total_l=100_000 + number + hours * LITRES_AN_HOUR,
            water_c=14 + round_number % 3,
            ambient_c=21,
        ),
        meter=meter_id(number),
        session_number=session_number(session=1, minutes=round_number & 0xFFFF, encrypted=True),
        access_number=round_number & 0xFF,
        key=key_of(number),
        compact=round_number % FULL_EVERY != 0,
    )
    return f'{{"telegram_hex":"{frame.hex()}","heard_at":{at_us}}}'


def profile(number: int, round_number: int, at_us: int, *, since_us: int) -> str:
    """Return one LoRaWAN uplink of meter `number`: its last hours, newest first."""
    hours = (at_us - since_us) // (60 * MINUTE_US)
    litres = [100_000 + (hours - back) * LITRES_AN_HOUR for back in range(24)]
    payload = encode_lorawan_hourly(litres, local_us=at_us - 6 * 60 * MINUTE_US)
    return (
        f'{{"payload_hex":"{payload.hex()}","fport":1,"dev_eui":"{FIRST_EUI + number:016X}",'
        f'"f_cnt":{round_number + 1},"heard_at":{at_us}}}'
    )

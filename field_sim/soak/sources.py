"""`soak sources`: brokers killed and receivers pulled out, again and again, beside one agent.

One agent hears a Conduit's network server, a ChirpStack in protobuf, two serial receivers and a
FIFO at once. Each round takes one of the first four away, lets all others speak meanwhile, puts it
back and lets it speak again. What was said to a source that stood must be in the outbox, once; and
no source dies but the one that was touched.
"""

from __future__ import annotations

import base64
import json
import os
import random
import sys
import threading
import time
import tty
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from decoders.encode import encode_lorawan_hourly, encode_wmbus, kamstrup_flowiq_records
from decoders.encode import session_number as session_of
from decoders.ids import MeterId
from decoders.uplink import RowKind
from decoders.wmbus.link import Form
from edge_agent.config import read_config
from edge_agent.shell import Agent
from edge_agent.sources import amber, imst
from edge_agent.wiring import agent_of, clock_of, open_outbox
from field_sim.open_broker import OpenBroker, Publisher
from field_sim.soak.stage import SoakFailed
from field_sim.soak.truth import Verdict

PATIENCE_S: Final = 75.0
UTTERANCES: Final = 5  # of each source that stands, twice a round
NEWEST_US: Final = 1_772_452_800_000_000
CONDUIT, CHIRPSTACK, IMST, AMBER, FIFO = "conduit", "chirpstack", "imst", "amber", "fifo"
PAGE_ROWS: Final = 1000
PAGE_BYTES: Final = 1 << 20


class Stick:
    """A receiver on a pty behind a name that stays, to be pulled out and put back."""

    def __init__(self, path: Path, framed: Callable[[bytes], bytes]) -> None:
        self.path = path
        self._framed = framed
        self.restore()

    def says(self, frame: bytes) -> None:
        os.write(self._receiver, self._framed(frame))

    def take_away(self) -> None:
        self.path.unlink()
        os.close(self._slave)
        os.close(self._receiver)

    def restore(self) -> None:
        self._receiver, self._slave = os.openpty()
        tty.setraw(self._receiver)
        self.path.symlink_to(os.ttyname(self._slave))


class NetworkServer:
    """A broker with what a network server publishes on it, to be killed and started again."""

    def __init__(self, broker: OpenBroker, topic: str, event: Callable[[int], bytes]) -> None:
        self.broker = broker
        self._topic = topic
        self._event = event

    def says(self, numbers: list[int]) -> None:
        with Publisher(self.broker) as server:
            for number in numbers:
                server.publish(self._topic, self._event(number))

    def take_away(self) -> None:
        self.broker.kill()

    def restore(self) -> None:
        self.broker.start()


class Surroundings:
    """All that the agent hears, and what was said to it: numbers, each used once."""

    def __init__(self, folder: Path) -> None:
        self.servers = {
            CONDUIT: NetworkServer(
                OpenBroker(folder / CONDUIT, None), "lora/00-80-00-ff-00-00-00-01/up", _multitech
            ),
            CHIRPSTACK: NetworkServer(
                OpenBroker(folder / CHIRPSTACK, None),
                "application/4f3c13e6-ecfa-496b-8b63-eedf77195658/device/0013ea0000000001/event/up",
                _chirpstack,
            ),
        }
        self.sticks = {
            IMST: Stick(
                folder / "ttyUSB0",
                lambda f: imst.message(
                    imst.RADIO,
                    imst.TELEGRAM_HEARD,
                    f[1:],
                    attached=b"\x2e",
                    flags=imst.HAS_RSSI,
                ),
            ),
            AMBER: Stick(
                folder / "ttyUSB1",
                lambda f: amber.message(amber.TELEGRAM_HEARD, f[1:] + b"\xd2"),
            ),
        }
        self.fifo = folder / "wmbus"
        os.mkfifo(self.fifo)
        self.victims: dict[str, Stick | NetworkServer] = {**self.servers, **self.sticks}
        self.said: Counter[str] = Counter()
        self._next = 1

    def settings(self, folder: Path) -> Path:
        """Write the agent's settings; its own broker is nowhere: all stays in the outbox."""
        sources: list[dict[str, Any]] = [
            {"kind": "multitech", "broker": self.servers[CONDUIT].broker.url},
            {"kind": "chirpstack", "broker": self.servers[CHIRPSTACK].broker.url},
            {"kind": "imst", "path": str(self.sticks[IMST].path)},
            {"kind": "amber", "path": str(self.sticks[AMBER].path)},
            {"kind": "lines", "path": str(self.fifo)},
        ]
        names = (CONDUIT, CHIRPSTACK, IMST, AMBER, FIFO)
        told = {
            "gateway": "norte",
            "broker": "mqtt://127.0.0.1:9",
            "state": str(folder / "agent"),
            "sources": [{"name": n, **s} for n, s in zip(names, sources, strict=True)],
        }
        path = folder / "gateway.json"
        path.write_text(json.dumps(told))
        return path

    def speak(self, *, without: str = "") -> None:
        """Let each source that stands say something new."""
        for name, server in self.servers.items():
            if name != without:
                server.says(self._numbers(name))
        for name, stick in self.sticks.items():
            if name != without:
                for number in self._numbers(name):
                    stick.says(_telegram(number))
        lines = [f"{_telegram(number).hex()}\n" for number in self._numbers(FIFO)]
        self.fifo.write_text("".join(lines))

    def close(self) -> None:
        for server in self.servers.values():
            server.take_away()

    def _numbers(self, name: str) -> list[int]:
        numbers = list(range(self._next, self._next + UTTERANCES))
        self._next += UTTERANCES
        self.said[name] += UTTERANCES
        return numbers

    @property
    def all_said(self) -> int:
        return self._next - 1


class Watched:
    """The agent in this process, and what it logged of its sources."""

    def __init__(self, settings: Path) -> None:
        self.config = read_config(settings)
        self.changes: Counter[tuple[str, str]] = Counter()
        self.agent: Agent = agent_of(self.config, log=self._log)
        self._thread = threading.Thread(target=self.agent.run, daemon=True)
        self._thread.start()

    def _log(self, event: str, **said: object) -> None:
        if event in {"source_up", "source_down"}:
            self.changes[event, str(said["source"])] += 1

    def wait(self, what: str, until: Callable[[], bool]) -> float:
        """Return after how many seconds it was so. Raises SoakFailed."""
        began_s = time.monotonic()
        while not until():
            if time.monotonic() - began_s > PATIENCE_S:
                raise SoakFailed(f"it did not happen in {PATIENCE_S:.0f} s: {what}")
            time.sleep(0.02)
        return time.monotonic() - began_s

    def stop(self) -> None:
        self.agent.stop()
        self._thread.join(PATIENCE_S)

    def stored(self) -> Counter[int]:
        """Return how often each number stands in the outbox."""
        outbox = open_outbox(self.config, clock_of(self.config))
        found: Counter[int] = Counter()
        first = outbox.first
        while rows := outbox.read(first, rows=PAGE_ROWS, max_bytes=PAGE_BYTES):
            found.update(
                row.counter if row.kind == RowKind.LORAWAN else _number_in(row.payload)
                for row in rows
                if row.kind in (RowKind.LORAWAN, RowKind.WMBUS)
            )
            first = rows[-1].seq + 1
        outbox.close()
        return found


def run(folder: Path, *, n: int, seed: int) -> Verdict:
    """Take a source away n times; then `said ⊆ stored`, each once, and no other source died."""
    draw = random.Random(seed)
    around = Surroundings(folder)
    watched = Watched(around.settings(folder))
    taken: Counter[str] = Counter()
    slowest_s = 0.0
    try:
        watched.wait("all sources up", lambda: sum(watched.changes.values()) == 5)
        for number in range(n):
            victim = draw.choice(sorted(around.victims))
            taken[victim] += 1
            slowest_s = max(slowest_s, _round(around, watched, victim, taken[victim]))
            print(f"round {number + 1} of {n}: {victim}", file=sys.stderr, flush=True)
    finally:
        watched.stop()
        around.close()
    return _judged(around, watched, taken, slowest_s)


def _round(around: Surroundings, watched: Watched, victim: str, times: int) -> float:
    """Return the seconds from a source's return to the agent's hearing of it."""
    around.victims[victim].take_away()
    watched.wait(f"{victim} down", lambda: watched.changes["source_down", victim] == times)
    around.speak(without=victim)
    around.victims[victim].restore()
    took_s = watched.wait(f"{victim} up", lambda: watched.changes["source_up", victim] == times + 1)
    around.speak()
    watched.wait(
        "all that was said on disk",
        lambda: watched.agent.health()["source_committed"] >= around.all_said,
    )
    return took_s


def _judged(
    around: Surroundings, watched: Watched, taken: Counter[str], slowest_s: float
) -> Verdict:
    stored = watched.stored()
    down = {name: times for (event, name), times in watched.changes.items() if "down" in event}
    return Verdict(
        counts={
            "sources taken away": sum(taken.values()),
            **{f"of them {name}": times for name, times in sorted(taken.items())},
            **{f"said by {name}": count for name, count in sorted(around.said.items())},
            "stored": sum(stored.values()),
        },
        must_be_zero={
            "said, but not stored": sum(k not in stored for k in range(1, around.all_said + 1)),
            "stored more than once": sum(times > 1 for times in stored.values()),
            "stored, but never said": sum(not 1 <= k <= around.all_said for k in stored),
            "outages not reported, or untouched": sum((Counter(down) - taken).values())
            + sum((taken - Counter(down)).values()),
        },
        notes=[f"back within {slowest_s:.1f} s of its return at most"],
    )


def _telegram(number: int) -> bytes:
    """A telegram of meter `number`, each its own: an agent keeps the first of an hour."""
    return encode_wmbus(
        kamstrup_flowiq_records(total_l=number),
        meter=MeterId(manufacturer="KAW", serial=f"{number:08d}", version=0x3A, medium=0x16),
        session_number=session_of(session=1, minutes=number, encrypted=False),
        access_number=number,
        form=Form.STRIPPED,
    )


def _number_in(frame: bytes) -> int:
    return int(frame[7:3:-1].hex())


def _payload(number: int) -> bytes:
    return encode_lorawan_hourly([1000 + number, 1000], local_us=NEWEST_US)


def _multitech(number: int) -> bytes:
    said: dict[str, Any] = {
        "deveui": "00-80-00-ff-00-00-00-01",
        "devaddr": "01ef971d",
        "time": "2026-03-02T12:00:00.123456Z",
        "fcnt": number,
        "port": 1,
        "data": base64.b64encode(_payload(number)).decode(),
        "rssi": -97,
        "lsnr": 7.5,
    }
    return json.dumps(said).encode()


def _chirpstack(number: int) -> bytes:
    """An uplink as ChirpStack writes it in protobuf, of the fields that a reader needs."""
    payload = _payload(number)
    device = b"\x42\x10" + b"0013ea0000000001"
    fields = (
        b"\x12\x06\x08" + _varint(NEWEST_US // 1_000_000),
        b"\x1a" + _varint(len(device)) + device,
        b"\x22\x0801da4231",
        b"\x38" + _varint(number),
        b"\x40\x01",
        b"\x52" + _varint(len(payload)) + payload,
    )
    return b"".join(fields)


def _varint(number: int) -> bytes:
    written = b""
    while number > 0x7F:
        written += bytes([number & 0x7F | 0x80])
        number >>= 7
    return written + bytes([number])

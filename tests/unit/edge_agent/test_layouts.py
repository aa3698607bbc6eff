"""Compact layouts that nobody taught: the agent finds them, and a restart does not forget them."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from decoders.drivers.kamstrup_water import KAMSTRUP_WATER
from decoders.encode import encode_wmbus, session_number
from decoders.ids import MeterId
from decoders.uplink import RowFlag, RowKind
from decoders.wmbus import search
from decoders.wmbus.records import Record, shapes_of
from edge_agent import core, layouts, protocol, reduction
from edge_agent.checkpoints import LAYOUT, Checkpoints, recovered
from edge_agent.inputs import Heard, Input, Now, Store, Tick
from edge_agent.keys import address_of
from edge_agent.leaks import HOUR_US
from edge_agent.outbox import Draft, Outbox

# Kamstrup's order, but in no driver: alarms, total, target date, flows of the month, day's warmest
UNTAUGHT = bytes.fromhex("02FF200413426C523B623B91015B")
METER = MeterId(manufacturer="KAW", serial="53885758", version=0x3C, medium=0x16)
KEY = bytes(range(16))
NOON = 1_772_452_800_000_000  # 2026-03-02T12:00:00Z
KEYS = {address_of(str(METER)): (KEY,)}


@dataclass
class Agent:
    """The agent's mind, on a machine whose seconds are told."""

    reduction: reduction.State = field(
        default_factory=lambda: reduction.State(policy=reduction.Policy(keys=KEYS))
    )
    effects: list[core.Effect] = field(default_factory=list)
    wall_s: float = 0.0

    def __post_init__(self) -> None:
        self.state = core.State(
            reduction=self.reduction,
            link=protocol.Link(stream=bytes(16)),
            pace=protocol.Pace(),
        )

    def tell(self, told: Input) -> list[Draft]:
        """Take one input; return the telegrams that became rows."""
        now = Now(at=NOON, wall_s=self.wall_s)
        self.state, effects = core.step(self.state, told, now)
        self.effects += effects
        stored = [effect for effect in effects if isinstance(effect, Store)]
        return [row for each in stored for row in each.rows if row.kind == RowKind.WMBUS]

    @property
    def learned(self) -> list[bytes]:
        stored = [effect for effect in self.effects if isinstance(effect, Store)]
        return [layout for effect in stored for layout in effect.layouts]


def compact(seed: int, *, layout: bytes = UNTAUGHT) -> Heard:
    """A compact telegram with other values for each seed."""
    chance = random.Random(seed)
    frame = encode_wmbus(
        tuple(
            Record(shape, chance.randrange(1, 90).to_bytes(shape.size or 0, "little"), 0)
            for shape in shapes_of(layout)
        ),
        meter=METER,
        session_number=session_number(session=1, minutes=seed, encrypted=True),
        access_number=seed & 0xFF,
        key=KEY,
        compact=True,
    )
    return Heard(kind=RowKind.WMBUS, frame=frame, heard_at=NOON + seed * HOUR_US)


def test_no_driver_knows_the_layout_of_these_tests() -> None:
    assert UNTAUGHT.hex().upper() not in KAMSTRUP_WATER.layouts


def test_an_unknown_layout_is_found_and_its_second_telegram_read() -> None:
    agent = Agent()

    first = agent.tell(compact(1))
    agent.tell(Tick())
    second = agent.tell(compact(2))

    assert [row.flags for row in first] == [RowFlag.UNDECODABLE]
    assert [row.flags for row in second] == [RowFlag.FIRST_OF_HOUR]
    assert agent.learned == [UNTAUGHT]


def test_a_found_layout_survives_a_restart(tmp_path: Path) -> None:
    agent = Agent()
    agent.tell(compact(1))
    agent.tell(Tick())
    agent.tell(compact(2))
    outbox = Outbox(tmp_path / "outbox.db", new_stream=lambda: bytes(16), now_us=NOON)
    kept = Checkpoints().of(agent.state.reduction, meters=(), layouts=agent.learned)
    outbox.append((), kept)

    again = Agent(reduction=recovered(outbox, reduction.Policy(keys=KEYS)))

    assert LAYOUT + UNTAUGHT.hex() in kept
    assert [row.flags for row in again.tell(compact(3))] == [RowFlag.FIRST_OF_HOUR]
    outbox.close()


def test_hearing_searches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_time(encoded: bytes) -> tuple[bytes, ...]:
        raise AssertionError(f"searched on the hot path: {encoded.hex()}")

    monkeypatch.setattr(search, "candidates", no_time)
    agent = Agent()

    for seed in range(1, 5):
        agent.tell(compact(seed))

    assert agent.learned == []


def test_searches_are_so_many_seconds_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[bytes] = []

    def nothing(encoded: bytes) -> tuple[bytes, ...]:
        searched.append(encoded)
        return ()

    monkeypatch.setattr(search, "candidates", nothing)
    agent = Agent()
    for kind in ("02FF2004134413426C426C", "02FF2004134413426C426C426C"):
        agent.tell(compact(1, layout=bytes.fromhex(kind)))

    for _ in range(5):
        agent.tell(Tick())
    soon = len(searched)
    agent.wall_s += layouts.SEARCH_EACH_S
    agent.tell(Tick())

    assert soon == 1
    assert len(searched) == 2

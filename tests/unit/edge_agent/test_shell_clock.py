"""The loop, when somebody sets the clock: rows keep their hour."""

from __future__ import annotations

from pathlib import Path

import pytest

from decoders import uplink_steps
from decoders.uplink import Batch, RowFlag, RowKind
from edge_agent import checkpoints, clock_steps
from edge_agent.inputs import Connected, Heard
from edge_agent.leaks import HOUR_US
from edge_agent.outbox import Outbox
from tests.agent_bench import STREAM, Bench, reports, wait_for


def sums(batch: Batch) -> dict[int, int]:
    """By how much each frame's instant is to be moved, by its counter."""
    told = uplink_steps.sums_after(batch.steps)
    places = [step.seq for step in batch.steps]
    rows = [row for row in batch.rows if row.kind == RowKind.LORAWAN]
    return {row.counter: told[sum(row.seq >= seq for seq in places)][0] for row in rows}


def test_a_message_tells_by_how_much_the_clock_was_set_since_its_rows(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.clock.ahead_us = -1_700_000_000_000_000  # the clock that NTP has not set yet
    bench.agent._ahead_us = bench.clock.ahead_us
    bench.cloud.answers = False
    bench.thread.start()
    bench.hear(1)
    wait_for(lambda: bench.outbox.head == 1)
    bench.clock.ahead_us = 0
    bench.hear(2)  # came after: behind the report of the step, however soon it is taken
    wait_for(lambda: bench.outbox.head == 3)

    bench.cloud.answers = True
    bench.inbox.put_now(Connected())
    wait_for(lambda: bench.cloud.last is not None and bench.cloud.last.rows.count == 3)

    assert bench.cloud.last is not None
    moved = sums(bench.cloud.last)
    assert moved[1] == pytest.approx(1_700_000_000_000_000, abs=1_000_000)
    assert moved[2] == 0
    assert bench.stop() == 0


def test_a_frame_that_waited_while_the_clock_was_set_is_stamped_by_the_new_one(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path)
    by_us = 1_700_000_000_000_000
    waited = bench.clock.now_us() - 1_000_000
    bench.clock.ahead_us = by_us
    elsewhere = RowFlag.FOREIGN_CLOCK
    for counter, flags in ((1, RowFlag(0)), (2, elsewhere)):
        bench.inbox.put(
            Heard(
                kind=RowKind.LORAWAN,
                frame=b"\x01",
                heard_at=waited,
                flags=flags,
                radio=1,
                counter=counter,
                port=1,
            )
        )
    bench.thread.start()
    wait_for(lambda: {row.counter for row in bench.cloud.rows.values()} >= {1, 2})

    stamped = {row.counter: row.heard_at for row in bench.cloud.rows.values() if row.counter}
    assert stamped[2] == waited
    assert stamped[1] == pytest.approx(waited + by_us, abs=1_000_000)
    assert bench.stop() == 0


def test_a_clock_that_was_set_while_the_agent_was_not_there_is_noticed(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.thread.start()
    bench.hear(1)
    wait_for(lambda: bench.outbox.head == 1)
    steps = clock_steps.begun(
        clock_steps.NONE, life=STREAM, ahead_us=-HOUR_US, head=1, head_at=1, now_at=1
    )
    assert bench.stop() == 0
    Outbox(tmp_path / "outbox.db", new_stream=lambda: STREAM, now_us=1).append(
        [], {checkpoints.STEPS: clock_steps.pack(steps)}
    )

    again = Bench(tmp_path)
    again.thread.start()
    wait_for(lambda: bool(reports(again.cloud.rows)))

    assert again.stop() == 0
    (report,) = reports(again.cloud.rows)
    assert report["to_at"] - report["from_at"] == pytest.approx(HOUR_US, abs=5_000_000)

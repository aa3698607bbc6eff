"""`soak reflash`: an agent's disk is replaced while it still held what the cloud had not got."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

from cloud.kernel.platform import Platform
from field_sim.radio import gateways, without_clock_errors
from field_sim.soak.stage import Stage
from field_sim.soak.truth import Sent, Verdict, judge, sent_rows, stored_receptions

METERS = 40
HOURS = 36


def run(folder: Path, *, n: int, seed: int) -> Verdict:
    """Reflash with a backlog and without; every row is stored or inside a reported loss."""
    stations = without_clock_errors(gateways(seed))
    verdict = Verdict()
    with Stage(
        folder, seed=seed, meters=METERS, hours=max(6, min(HOURS, n)), stations=stations
    ) as stage:
        third = len(stage.emissions) // 3
        stage.feed(stage.emissions[:third])
        stage.settle()
        kept = [*reflash(stage, stage.gateways[0], folder / "kept-clean.db")]
        stage.kill("intake")  # from here on the agents keep everything to themselves
        stage.feed(stage.emissions[third : 2 * third])
        wait_stored(stage)
        kept += reflash(stage, stage.gateways[1], folder / "kept-backlog.db")
        stage.start("intake")
        stage.feed(stage.emissions[2 * third :])
        stage.settle()
        platform = stage.sandbox.platform
        assert platform is not None
        present = [
            row
            for gateway in stage.gateways
            for row in sent_rows(
                stage.town, gateway, stage.folder / "agents" / gateway / "outbox.db"
            )
        ]
        judge(stage.town, platform, present, verdict)
        judge_losses(platform, kept, verdict)
    return verdict


def wait_stored(stage: Stage) -> None:
    """Wait until the agents have on disk what they were handed."""
    before: list[int] = []
    for _ in range(20):
        now = [outbox.head for outbox in stage.outboxes()]
        if now == before:
            return
        before = now
        stage.pause(1.0)


def reflash(stage: Stage, gateway: str, copy: Path) -> list[Sent]:
    """Kill an agent, keep a copy of its outbox for the oracle, and start it without."""
    stage.kill(f"agent-{gateway}")
    folder = stage.folder / "agents" / gateway
    with sqlite3.connect(folder / "outbox.db") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    shutil.copy(folder / "outbox.db", copy)
    for path in folder.glob("outbox.db*"):
        path.unlink()
    stage.start(f"agent-{gateway}")
    return sent_rows(stage.town, gateway, copy)


def judge_losses(platform: Platform, kept: list[Sent], verdict: Verdict) -> None:
    """Every row of the lost disks is stored, or inside the bounds of a loss that was reported."""
    stored = stored_receptions(platform)
    missing = [row for row in kept if row.reception not in stored]
    with platform.pool("metering").connection() as connection:
        losses = connection.execute(
            "SELECT stream, first_seq, last_seq, certain,"
            " (extract(epoch FROM from_at) * 1000000)::bigint,"
            " (extract(epoch FROM to_at) * 1000000)::bigint FROM edge_losses"
        ).fetchall()
    silent = [
        row
        for row in missing
        if not any(
            bytes(stream) == row.stream and first <= row.seq and (last is None or row.seq <= last)
            for stream, first, last, *_ in losses
        )
    ]
    outside = [
        row
        for row in missing
        if not any(
            bytes(stream) == row.stream and from_at <= row.heard_at <= to_at
            for stream, _, _, _, from_at, to_at in losses
            if from_at is not None and to_at is not None
        )
    ]
    verdict.counts |= {"rows on the lost disks": len(kept), "losses reported": len(losses)}
    verdict.counts["rows really lost"] = len(missing)
    verdict.must_be_zero["rows lost in silence"] = len(silent)
    verdict.must_be_zero["rows lost outside the reported time"] = len(outside)
    verdict.notes += [
        f"loss: stream {bytes(stream).hex()[:8]}, {reach(first, last, of='rows')}, "
        f"{'certain' if certain else 'possible'}, {reach(from_at, to_at, of='heard')} µs"
        for stream, first, last, certain, from_at, to_at in losses
    ]


def reach(first: int | None, last: int | None, *, of: str) -> str:
    """Say a range in words; an end that nobody knows stays open."""
    begin = f"{of} from {'?' if first is None else first}"
    return f"{begin} on, the end is unknown" if last is None else f"{begin} to {last}"

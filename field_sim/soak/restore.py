"""`soak restore`: the cloud's database is put back by ten minutes; the gateways fill the gap."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from field_sim.radio import gateways, without_clock_errors
from field_sim.sandbox import ROOT
from field_sim.soak.stage import Stage
from field_sim.soak.truth import Verdict, count, judge, sent_rows

METERS = 40
HOURS = 36
CLOUD = ("intake", "serve")


class CommandFailed(Exception):
    """`aquacis` said no."""


def run(folder: Path, *, n: int, seed: int) -> Verdict:
    """Back up, go on, restore: every row that any agent committed is there again."""
    stations = without_clock_errors(gateways(seed))
    verdict = Verdict()
    with Stage(
        folder, seed=seed, meters=METERS, hours=max(6, min(HOURS, n)), stations=stations
    ) as stage:
        half = len(stage.emissions) // 2
        stage.feed(stage.emissions[:half])
        stage.settle()
        aquacis(stage, "backup", str(folder / "before.dump"))
        # ten minutes of telegrams and many hours more, all acknowledged, that the restore forgets
        stage.feed(stage.emissions[half:])
        stage.settle()
        platform = stage.sandbox.platform
        assert platform is not None
        had = count(platform, "SELECT count(*) FROM readings")
        for name in CLOUD:
            stage.kill(name)
        platform.pools.close()
        began = time.monotonic()
        aquacis(stage, "restore", str(folder / "before.dump"))
        took_s = time.monotonic() - began
        forgotten = had - count(platform, "SELECT count(*) FROM readings")
        for name in CLOUD:
            stage.start(name)
        stage.wait_resent()
        stage.settle()
        sent = [
            row
            for gateway in stage.gateways
            for row in sent_rows(
                stage.town, gateway, stage.folder / "agents" / gateway / "outbox.db"
            )
        ]
        judge(stage.town, platform, sent, verdict)
        verdict.must_be_some["readings the restore forgot"] = forgotten
        verdict.must_be_zero["readings not back"] = max(
            0, had - count(platform, "SELECT count(*) FROM readings")
        )
        verdict.notes.append(f"restored in {took_s:.1f} s")
    return verdict


def aquacis(stage: Stage, *arguments: str) -> None:
    """Run the platform's own command beside it. Raises CommandFailed."""
    done = subprocess.run(
        [sys.executable, "-m", "cloud", *arguments],
        cwd=ROOT,
        env=stage.sandbox.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise CommandFailed(f"aquacis {' '.join(arguments)}: {done.stderr.strip()}")

"""`soak clocks`: two gateways 40 minutes apart hear the same meters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from field_sim.radio import MINUTE_US, Gateway, gateways
from field_sim.soak.stage import Stage
from field_sim.soak.truth import Verdict, count, judge, sent_rows

METERS = 40
HOURS = 48
# twenty minutes slow and twenty fast: each would, uncorrected, put some telegrams into another hour
ERRORS_US = (-20 * MINUTE_US, 20 * MINUTE_US)


def two_apart(seed: int) -> tuple[Gateway, ...]:
    """Return two gateways at one place, so that both hear nearly everything."""
    first, second = gateways(seed)[:2]
    middle = (0.5, 0.5)
    return (
        replace(first, position=middle, clock_error_us=ERRORS_US[0]),
        replace(second, position=middle, clock_error_us=ERRORS_US[1]),
    )


def run(folder: Path, *, n: int, seed: int) -> Verdict:
    """Hand out 48 hours; then one true reading for each (meter, instant) and no conflict."""
    verdict = Verdict()
    with Stage(
        folder, seed=seed, meters=METERS, hours=max(2, min(HOURS, n)), stations=two_apart(seed)
    ) as stage:
        stage.wait_clocks()
        stage.feed(stage.emissions)
        stage.settle()
        platform = stage.sandbox.platform
        assert platform is not None
        sent = [
            row
            for gateway in stage.gateways
            for row in sent_rows(
                stage.town, gateway, stage.folder / "agents" / gateway / "outbox.db"
            )
        ]
        judge(stage.town, platform, sent, verdict)
        heard: dict[tuple[str, int], set[str]] = {}
        for row in sent:
            heard.setdefault((row.meter, row.counter), set()).add(row.gateway)
        verdict.must_be_some["frames heard by both"] = sum(len(by) == 2 for by in heard.values())
        verdict.must_be_some["gateways corrected"] = count(
            platform,
            "SELECT count(*) FROM gateways WHERE abs(abs(clock_offset_us) - 1200000000) < 60000000",
        )
        verdict.must_be_zero["readings of an untrusted clock"] = count(
            platform, "SELECT count(*) FROM readings WHERE clock = 2"
        )
    return verdict

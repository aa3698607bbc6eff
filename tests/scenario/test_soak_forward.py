"""The soaks of the way to the cloud, in short: `python3 tasks.py soak NAME` runs them long."""

from __future__ import annotations

import pytest

from field_sim.soak import flapping, halfopen, outage
from tests.scenario.sandboxes import home

pytestmark = [pytest.mark.xdist_group("soak"), pytest.mark.timeout(300)]


@pytest.mark.parametrize("profile", outage.PROFILES)
def test_a_day_without_a_broker_is_drained_whole_and_live_rows_do_not_wait(profile: str) -> None:
    with home() as folder:
        verdict = outage.run(folder, n=1, seed=15, profile=profile, meters=150)

    assert verdict.holds, verdict


def test_a_flapping_line_costs_few_repeats_and_no_row() -> None:
    with home() as folder:
        verdict = flapping.run(folder, n=2, seed=16, half_s=1.5)

    assert verdict.holds, verdict


def test_a_line_that_dies_without_a_word_is_replaced_in_time() -> None:
    with home() as folder:
        verdict = halfopen.run(folder, n=1, seed=17, keepalive_s=4)

    assert verdict.holds, verdict

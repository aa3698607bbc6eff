"""The soaks, in short: `python3 tasks.py soak NAME` runs them long."""

from __future__ import annotations

import pytest

from field_sim.soak import clocks, kills, reflash, restore
from tests.scenario.sandboxes import home

pytestmark = [
    pytest.mark.xdist_group("soak"),
    pytest.mark.timeout(900),
]


def test_two_gateways_forty_minutes_apart_give_one_reading_and_no_conflict() -> None:
    with home() as folder:
        verdict = clocks.run(folder, n=6, seed=11)

    assert verdict.holds, verdict


def test_killed_agents_and_cloud_lose_and_double_nothing() -> None:
    with home() as folder:
        verdict = kills.run(folder, n=4, seed=12)

    assert verdict.holds, verdict


def test_a_reflashed_gateway_loses_nothing_in_silence() -> None:
    with home() as folder:
        verdict = reflash.run(folder, n=6, seed=13)

    assert verdict.holds, verdict


def test_gateways_fill_what_a_restore_forgot() -> None:
    with home() as folder:
        verdict = restore.run(folder, n=6, seed=14)

    assert verdict.holds, verdict

"""The fuzzer's targets without the fuzzer: their seeds, and bytes that Hypothesis draws."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.__main__ import figures_in
from tests.fuzz.targets import TARGETS

SEEDS = {name: tuple(target.seeds()) for name, target in TARGETS.items()}


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_takes_its_seeds_and_reads_some(name: str) -> None:
    target = TARGETS[name]
    read = 0
    for seed in SEEDS[name]:
        with suppress(*target.refuses):
            target.reads(seed)
            read += 1

    assert SEEDS[name]
    assert read


@pytest.mark.parametrize("name", TARGETS)
@given(draw=st.data())
def test_a_target_refuses_in_its_own_way_only(name: str, draw: st.DataObject) -> None:
    target = TARGETS[name]
    begin = draw.draw(st.sampled_from(SEEDS[name]))
    at = draw.draw(st.integers(0, len(begin)))
    given_bytes = begin[:at] + draw.draw(st.binary(max_size=8)) + begin[at:]

    with suppress(*target.refuses):
        target.reads(given_bytes[: target.most_bytes])


def test_the_fuzzers_log_is_read() -> None:
    log = (
        "#2\tINITED cov: 5 ft: 5 corp: 1/1b\n#9876\tREDUCE cov: 717 ft: 900 corp: 265/9Kb lim: 4\n"
    )

    assert figures_in(log) == {"inputs": 9876, "covered": 717, "corpus": 265}
    assert figures_in(log + "stat::number_of_executed_units: 10000\n")["inputs"] == 10_000

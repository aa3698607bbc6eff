"""Rates of growing totals, from the times somebody looked."""

from __future__ import annotations

from cloud.operations.rates import LONGEST_S, Rates


def test_a_rate_needs_two_looks_some_seconds_apart() -> None:
    rates = Rates()

    assert rates.of("a", 100, now_s=0.0) is None
    assert rates.of("a", 110, now_s=2.0) is None
    assert rates.of("a", 150, now_s=5.0) == 10.0


def test_old_looks_are_forgotten() -> None:
    rates = Rates()
    for second in range(60):
        rates.of("a", 1000 if second < 10 else 1000 + second, now_s=float(second))

    assert rates.of("a", 1060, now_s=60.0) == 1.0
    assert LONGEST_S < 50


def test_a_total_that_began_anew_has_no_rate() -> None:
    rates = Rates()
    rates.of("a", 100, now_s=0.0)

    assert rates.of("a", 5, now_s=10.0) is None


def test_names_do_not_mix() -> None:
    rates = Rates()
    rates.of("a", 0, now_s=0.0)
    rates.of("b", 0, now_s=0.0)

    assert rates.of("a", 50, now_s=10.0) == 5.0
    assert rates.of("b", 0, now_s=10.0) == 0.0

"""The scoreboard of the leak rules, on the household data that the repository owns."""

from __future__ import annotations

import numpy as np
import pytest

from edge_agent.leaks_replay import Series
from edge_agent.leaks_scoreboard import Leak
from field_sim import leak_sweep
from field_sim.leak_board import DAY_S, HOUR_S, Board, leaked, scored, with_moving_hours
from field_sim.soak.leaks import missed


@pytest.fixture(scope="module")
def board() -> Board:
    return scored(households=5, seed=7)


def test_the_promised_figures_hold_on_planted_leaks(board: Board) -> None:
    assert {what: count for what, count in missed(board).items() if count} == {}


def test_moving_hours_are_harder_and_still_found_more_often_than_not(board: Board) -> None:
    moving = [o for o in board.found if o.leak.kind == "intermittent_moving"]

    told = [o for o in moving if o.delay_s is not None and o.delay_s <= 7 * DAY_S]

    assert len(told) >= len(moving) // 2


def test_the_same_seed_plants_the_same(board: Board) -> None:
    again = scored(households=1, seed=7)

    assert again.found == scored(households=1, seed=7).found
    assert again.found[0].leak.series == board.found[0].leak.series == 0


@pytest.mark.parametrize(
    ("kind", "litres"), [("continuous", 480), ("intermittent_8h", 160), ("ramp_14d", 34)]
)
def test_a_leak_lets_go_what_it_says(kind: str, litres: int) -> None:
    at_s = np.array([0, 5 * HOUR_S, 5 * HOUR_S + 2 * DAY_S, 9 * DAY_S])
    end = 5 * HOUR_S + 2 * DAY_S

    total = leaked(
        at_s, kind=kind, lph=10, start=5 * HOUR_S, end=end, random=np.random.default_rng(1)
    )

    assert total[:2].tolist() == [0, 0]
    assert int(total[2]) == litres
    assert total[3] == total[2]


def test_copies_leak_as_much_at_other_hours() -> None:
    at_s = (np.arange(30 * 24) * HOUR_S).tolist()
    start, end = 3 * DAY_S + 2 * HOUR_S, 28 * DAY_S
    fixed = leaked(
        np.array(at_s),
        kind="intermittent_8h",
        lph=20,
        start=start,
        end=end,
        random=np.random.default_rng(1),
    )
    leak = Leak(series=0, starts=start, ends=end, lph=20, kind="intermittent_8h")
    series = Series(at_s=at_s, register_l=np.floor(fixed).astype(int).tolist())

    ((copy, _),) = with_moving_hours([series], [leak], seed=1)

    assert abs(copy.register_l[-1] - series.register_l[-1]) <= 8 * 20
    assert copy.register_l != series.register_l
    assert copy.register_l == sorted(copy.register_l)


def test_the_curve_is_drawn_with_a_mark_for_each_choice() -> None:
    point = {"load_homes": 0.9, "large_26h": 1.0, "fixed_7d": 0.9, "moving_7d": 0.6}

    svg = leak_sweep.drawn({"as shipped": point, "told every time": {**point, "load_homes": 9}})

    assert svg.count("<circle") == 2 * len(leak_sweep.LINES)
    assert "as shipped: ≥ 10 l/h within 26 h: 100% at 0.9" in svg

"""How the soak of reflashed gateways says which rows are gone."""

from __future__ import annotations

from field_sim.soak.reflash import reach


def test_a_loss_with_both_ends_says_both() -> None:
    assert reach(12, 40, of="rows") == "rows from 12 to 40"


def test_a_loss_whose_last_row_nobody_knows_stays_open() -> None:
    assert reach(12, None, of="rows") == "rows from 12 on, the end is unknown"
    assert reach(None, None, of="heard") == "heard from ? on, the end is unknown"

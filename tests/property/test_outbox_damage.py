"""The outbox's file with flipped bits and a cut journal: `soak storage` in short."""

from __future__ import annotations

from pathlib import Path

from field_sim.soak import storage


def test_a_flipped_bit_is_found_and_never_goes_out_as_truth(tmp_path: Path) -> None:
    flips = storage.flipped(tmp_path / "flips", n=24, seed=3)

    assert flips["put aside"] > 5
    assert (flips["wrong"], flips["silent"]) == (0, 0)


def test_a_journal_cut_anywhere_leaves_the_first_commits_whole(tmp_path: Path) -> None:
    cuts = storage.cut_journal(tmp_path / "cuts", step=149)

    assert cuts["different prefixes seen"] == 4
    assert cuts["not a prefix"] == 0


def test_a_profile_holds_rows_in_few_bytes(tmp_path: Path) -> None:
    """Of 77 bytes that 9 days of 4,000 meters may take in `lean`."""
    case = storage.Case(name="a day", profile="lean", asked_days=1, meters=500)

    lasted = storage.lasts(tmp_path / "day", case, seed=7)

    assert lasted.held
    assert lasted.row_bytes < 40

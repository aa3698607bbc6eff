"""The outbox's file with flipped bits and a cut journal: `soak storage` in short."""

from __future__ import annotations

from pathlib import Path

from field_sim.soak import storage


def test_a_flipped_bit_is_found_and_never_goes_out_as_truth(tmp_path: Path) -> None:
    flips = storage.flipped(tmp_path / "flips", n=24, seed=3)

    assert flips["put aside"] > 5
    assert (flips["wrong"], flips["silent"]) == (0, 0)


def test_keys_out_of_order_end_no_search_for_more(tmp_path: Path) -> None:
    """A flipped bit in a rowid makes the table's tree say "next" of a key that was passed.

    Seed: `soak storage --seed 7`, bit 1,026: the rescue went in a circle.
    """
    path, payloads = storage.a_file(tmp_path / "made", groups=60, in_journal=0)
    whole = path.read_bytes()
    places = rowids(whole)
    assert len(places) > 10

    for place in places:
        for bit in (0, 3, 5, 6):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            target = tmp_path / f"{place}-{bit}" / "outbox.db"
            target.parent.mkdir()
            target.write_bytes(damaged)

            found = storage.look(target, payloads)

            assert (found["wrong"], found["silent"]) == (0, 0)


def rowids(content: bytes) -> list[int]:
    """Return where the rowids of the first cells of each leaf of a table end.

    Source: SQLite's file format, "B-tree Pages": the leaf's type 13, its cells' number at 3, where
    they are from 8 on; a cell begins with two varints, the size of its payload and its rowid.
    """
    size = int.from_bytes(content[16:18], "big")
    found = []
    for page in range(size, len(content), size):
        if content[page] != 13:
            continue
        cells = int.from_bytes(content[page + 3 : page + 5], "big")
        for cell in range(min(cells, 3)):
            at = page + 8 + 2 * cell
            at = page + int.from_bytes(content[at : at + 2], "big")
            for _ in range(2):
                while content[at] & 0x80:
                    at += 1
                at += 1
            found.append(at - 1)
    return found


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

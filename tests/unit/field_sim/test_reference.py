"""The bench beside the reference decoder, with a program that answers in its place."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from field_sim.bench import decode, reference

MEMORY = """#!{python}
import json, sys
for litres in {litres}[: sum(line.startswith("telegram=|") for line in open(sys.argv[2]))]:
    print(json.dumps({{"total_m3": litres / 1000}}))
"""


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "SIZES", {2: 40})


def program(folder: Path, *, litres: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a program that says these totals, and name it as the reference decoder."""
    path = folder / "reference"
    path.write_text(MEMORY.format(python=sys.executable, litres=litres))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv(reference.EXECUTABLE, str(path))


def test_without_a_reference_decoder_there_is_no_figure_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(reference.EXECUTABLE, raising=False)
    monkeypatch.setenv("PATH", "")
    said: list[str] = []

    assert decode.beside_reference(said.append) == []
    assert "no reference decoder" in said[0]


def test_both_decode_the_same_telegrams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, litres=list(range(100_000, 100_040)), monkeypatch=monkeypatch)

    [figure] = decode.beside_reference(lambda _: None)

    assert figure["figure"] == "batch_to_reference_2_meters"
    assert figure["value"] > 0
    assert figure["limit"] > 0


def test_a_reference_that_reads_other_totals_is_no_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, litres=[1] * 40, monkeypatch=monkeypatch)

    with pytest.raises(reference.ReferenceFailed, match="other totals"):
        decode.beside_reference(lambda _: None)

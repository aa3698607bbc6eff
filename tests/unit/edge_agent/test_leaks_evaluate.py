"""`aquacis-edge leaks evaluate`: blind to labels, in time order, alone on stdout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_agent import __main__, leaks_scoreboard, npz
from edge_agent.leaks_replay import Series, read_series, replayed
from edge_agent.leaks_scoreboard import EventsMalformed, Leak, leaks_of, outcomes

np = pytest.importorskip("numpy", reason="real part: numpy")  # writes what our reader reads

HOUR = 3600
START = 1_488_000_000


def registers(*homes: list[int], start: int = START) -> dict[str, Any]:
    """The arrays of a file: hourly reads of registers that grow by the given litres."""
    lengths = [len(litres) + 1 for litres in homes]
    at = [start + h * HOUR for length in lengths for h in range(length)]
    total = [r for litres in homes for r in [0, *np.cumsum(litres).tolist()]]
    return {
        "offset": np.array([0, *np.cumsum(lengths)], np.int32),
        "t_local_epoch_s": np.array(at, np.int32),
        "register_l": np.array(total, np.int32),
    }


QUIET = [0, 0, 0, 0, 0, 4, 40, 90, 12, 0, 0, 8, 35, 22, 0, 0, 5, 0, 30, 60, 45, 20, 0, 0]
LEAKING = [litres + 20 for litres in QUIET]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    np.savez_compressed(tmp_path / "homes.npz", **registers(QUIET * 6, QUIET * 3 + LEAKING * 3))
    np.savez(tmp_path / "other.npz", flow=np.zeros(3))
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 nothing more")
    events = [
        {
            "series": 1,
            "start_epoch": START + 72 * HOUR,
            "end_epoch": START + 144 * HOUR,
            "rate_l_h": 20,
            "type": "continuous",
        }
    ]
    (tmp_path / "homes.json").write_text(json.dumps({"events": events}))
    return tmp_path


def test_the_alerts_alone_are_on_stdout_and_what_is_left_out_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = __main__.main(["leaks", "evaluate", str(folder), "--json"])

    out, err = capsys.readouterr()
    (alert,) = json.loads(out)["alerts"]
    assert code == 0
    assert (alert["file"], alert["series"], alert["rule"]) == ("homes", 1, "continuous_flow")
    assert alert["l_per_h"] == 20
    assert (alert["at"] - START) // HOUR == 72 + 24
    assert "other.npz" in err
    assert "broken.npz" in err
    assert set(alert) == {"file", "series", "at", "rule", "l_per_h"}


def test_labels_change_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    __main__.main(["leaks", "evaluate", str(folder), "--json"])
    with_labels = capsys.readouterr().out
    (folder / "homes.json").unlink()
    __main__.main(["leaks", "evaluate", str(folder), "--json"])

    assert capsys.readouterr().out == with_labels


def test_people_get_a_scoreboard_and_a_plot(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    __main__.main(["leaks", "evaluate", str(folder)])

    out = capsys.readouterr().out
    assert "load: 0 notifications in 11 covered meter-days before their leaks" in out
    assert "no gap > 3 h, >= 10 l/h, within 26 h" in out
    assert "1 of 1 = 100.0%" in out
    assert "|########################| 100%" in out


def test_thresholds_can_be_given(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    limits = folder / "limits.txt"
    limits.write_text(json.dumps({"continuous": [[15, 30]]}))
    __main__.main(["leaks", "evaluate", str(folder), "--json", "--limits", str(limits)])
    (alert,) = json.loads(capsys.readouterr().out)["alerts"]
    limits.write_text(json.dumps({"continuous": [[15, 300]]}))

    assert (alert["at"] - START) // HOUR == 72 + 30
    assert __main__.main(["leaks", "evaluate", str(folder), "--limits", str(limits)]) == 2


def test_a_folder_without_registers_says_so(tmp_path: Path) -> None:
    assert __main__.main(["leaks", "evaluate", str(tmp_path)]) == 66
    assert __main__.main(["leaks", "evaluate", str(tmp_path / "none")]) == 2


@pytest.mark.parametrize("kind", ["<i4", "<i8", ">i4", "<f8", "<u4", "|u1"])
def test_arrays_are_read_as_numpy_wrote_them(tmp_path: Path, kind: str) -> None:
    numbers = np.arange(200).astype(kind)
    np.savez(tmp_path / "a.npz", numbers=numbers)

    assert list(npz.whole_numbers(tmp_path / "a.npz", "numbers")) == list(range(200))
    assert npz.names(tmp_path / "a.npz") == {"numbers"}


def test_arrays_that_are_no_rows_of_numbers_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", square=np.zeros((2, 2)), words=np.array(["a"]))

    for name in ("square", "words", "missing"):
        with pytest.raises(npz.ArrayUnreadable):
            npz.whole_numbers(tmp_path / "a.npz", name)


def test_reads_in_another_order_are_put_in_order_and_a_repeated_hour_is_not() -> None:
    hours = QUIET * 2 + LEAKING * 2
    arrays = registers(hours)
    at, total = arrays["t_local_epoch_s"].tolist(), arrays["register_l"].tolist()
    backwards = Series(at_s=at[::-1], register_l=total[::-1])
    autumn = Series(at_s=at[:50] + [t - HOUR for t in at[50:]], register_l=total)

    expected = replayed("f", [Series(at_s=at, register_l=total)])
    assert [a.rule for a in expected] == ["continuous_flow"]
    assert replayed("f", [backwards]) == expected
    assert [a.rule for a in replayed("f", [autumn])] == ["continuous_flow"]


def test_a_meter_that_falls_silent_is_told_when_the_others_have_gone_on() -> None:
    long, short = registers(QUIET * 40), registers(QUIET * 10)
    series = [
        Series(at_s=a["t_local_epoch_s"].tolist(), register_l=a["register_l"].tolist())
        for a in (long, short)
    ]

    (alert,) = replayed("f", series)

    assert (alert.series, alert.rule) == (1, "silent")
    assert (alert.at - START) // (24 * HOUR) == 10 + 14


def test_files_that_do_not_hold_together_are_no_series(tmp_path: Path) -> None:
    arrays = registers(QUIET)
    np.savez(tmp_path / "a.npz", **{**arrays, "offset": np.array([0, 999])})

    with pytest.raises(ValueError, match="outside"):
        read_series(tmp_path / "a.npz")


@pytest.mark.parametrize("said", [{}, [], {"events": [{"series": 0}]}, {"events": "x"}])
def test_events_that_say_nothing_are_refused(said: object) -> None:
    with pytest.raises(EventsMalformed):
        leaks_of(said, 1)


def test_a_promise_of_hours_is_asked_only_where_no_read_is_missing() -> None:
    at = [START + h * HOUR for h in range(10)] + [START + h * HOUR for h in range(20, 50)]
    leak = Leak(series=0, starts=START + 5 * HOUR, ends=START + 49 * HOUR, lph=10, kind="x")

    (outcome,) = outcomes([leak], [], [Series(at_s=at, register_l=[0] * len(at))])

    assert outcome.gapless_s == 4 * HOUR
    assert outcome.delay_s is None
    assert leaks_scoreboard.load([leak], [], [Series(at_s=at, register_l=[])]).meter_days == 1

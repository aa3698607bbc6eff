"""The nightly scan: its methods on nights with and without a leak, and the child that ends."""

from __future__ import annotations

import os
import stat
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import cbor2
import pytest

from edge_agent import leaks, leaks_hours, memory, reduction, scan, scan_child
from edge_agent.clock import SystemClock
from edge_agent.inputs import NightFinding, Now, Scanned, Store
from edge_agent.leaks import HOUR_US
from edge_agent.leaks_episodes import NIGHT_FLOW
from edge_agent.leaks_memory import Memory
from edge_agent.outbox import Outbox
from edge_agent.scan_source import NightlyScan
from edge_agent.sources.port import Inbox

HAS_SCIPY = find_spec("scipy") is not None  # the edge's own lock has none: profile `lean`

QUIET = [0, 1, 0, 0, 2, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 0, 1, 0, 2, 0]


def asked(nights: list[int | None], hours: list[int | None]) -> dict[str, object]:
    return {"meters": {"m": {"nights": nights, "hours": hours}}}


def test_a_step_in_the_night_flow_is_found_where_it_happened() -> None:
    stats = pytest.importorskip("scipy.stats", reason="real part: scipy")

    found = scan_child.change_point([*QUIET, *[6, 7, 6, 6, 8, 6, 7, 6, 6, 7, 6, 6]], stats)

    assert found is not None
    assert (found["since_night"], found["rate_lph"]) == (20, 6)
    assert scan_child.change_point(QUIET * 2, stats) is None


def test_nights_that_are_all_alike_or_only_fall_have_no_step() -> None:
    stats = pytest.importorskip("scipy.stats", reason="real part: scipy")

    for nights in ([0] * 20, [5] * 20, [*range(40, 20, -1)]):
        assert scan_child.change_point(nights, stats) is None


def test_nights_that_creep_up_are_found_though_no_step_is() -> None:
    creeping = QUIET + [rate + i // 2 for i, rate in enumerate(QUIET)]

    found = scan_child.cusum(creeping)

    assert found is not None
    assert found["rate_lph"] >= scan_child.STEP_LPH
    assert scan_child.cusum(QUIET * 2) is None


def test_hours_that_never_rest_beside_hours_that_do_are_a_toilets() -> None:
    stats = pytest.importorskip("scipy.stats", reason="real part: scipy")
    use = [0, 0, 30, 4, 0, 12, 0]
    hours: list[int | None] = [
        (9 if 2 <= h % 24 < 10 else 0) + use[(h * 5 + h // 24) % 7] for h in range(168)
    ]

    found = scan_child.folded(hours, stats)

    assert found is not None
    assert found["rate_lph"] == 9
    answer = scan_child.scanned(asked([], hours))
    assert [(f["kind"], f["days"]) for f in answer["found"]] == [("daily_flow", 7)]
    assert scan_child.folded([use[(h * 5 + h // 24) % 7] for h in range(168)], stats) is None


def test_the_child_answers_and_has_ended() -> None:
    answer = scan.ask(asked([*QUIET, *[9] * 12], []))

    if HAS_SCIPY:
        assert answer.found == (NightFinding(meter="m", kind=NIGHT_FLOW, rate_lph=9, days=12),)
    else:
        assert answer.unavailable.startswith(scan.THE_CLOUDS)


def test_without_scipy_the_scan_is_the_clouds(tmp_path: Path) -> None:
    (tmp_path / "scipy.py").write_text("raise ImportError('not on lean')\n")
    child = [
        sys.executable,
        "-c",
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import runpy;"
        " runpy.run_module('edge_agent.scan_child', run_name='__main__')",
    ]

    answer = scan.ask(asked([], []), command=child)

    assert answer.found == ()
    assert answer.unavailable.startswith(scan.THE_CLOUDS)


@pytest.mark.parametrize(
    "says",
    [
        "print('nonsense')",
        "raise SystemExit(3)",
        "print('{}')",
        """print('{"found": [], "ended": [["m", "burst"]]}')""",
    ],
)
def test_a_child_that_fails_is_a_failed_scan(says: str) -> None:
    with pytest.raises(scan.ScanFailed):
        scan.ask(asked([], []), command=[sys.executable, "-c", says])


def memory_after(hours: int, lph: int) -> bytes:
    flow = None
    for i in range(hours + 1):
        flow, _ = leaks.feed(flow, "m", (i * HOUR_US, 1000 + i * lph))
    assert flow is not None
    return flow.memory


def test_each_night_is_remembered_for_eight_weeks_and_a_meter_that_is_gone_runs_out(
    tmp_path: Path,
) -> None:
    kept = tmp_path / "nights.cbor"

    for _ in range(3):
        scan.tonight([("m", memory_after(30, 5)), ("new", b"")], kept)

    assert scan.read_nights(kept) == {"m": bytes([5, 5, 5])}
    assert stat.S_IMODE(os.stat(kept).st_mode) == 0o600
    nights = scan.read_nights(kept)
    for _ in range(scan.NIGHTS):
        nights = scan.with_night(nights, {})
    assert nights == {}


def test_a_damaged_file_of_nights_fills_again(tmp_path: Path) -> None:
    kept = tmp_path / "nights.cbor"
    kept.write_bytes(b"\xff\xff damaged")

    assert scan.read_nights(kept) == {}


def test_a_night_without_half_of_its_hours_is_unknown() -> None:
    few = bytes([leaks_hours.UNKNOWN] * 158 + [3] * 10)

    assert scan.floor_tonight(Memory(newest_hour=5, hours=few)) is None
    assert scan.floor_tonight(Memory()) is None


def test_the_agent_scans_its_own_memory_and_reports_what_it_found(tmp_path: Path) -> None:
    inbox = Inbox()
    outbox = Outbox(tmp_path / "outbox.db", new_stream=lambda: bytes(16), now_us=0)
    flow = leaks.unpack(
        leaks.pack(leaks.Flow(last=(1, 1), base=(1, 1), recent=(), memory=memory_after(30, 5)))
    )
    outbox.append([], {"m/KAW-00000001": memory.pack(memory.Meter(flow=flow))})
    said: list[str] = []
    source = NightlyScan(
        outbox=tmp_path / "outbox.db",
        inbox=inbox,
        clock=SystemClock(),
        log=lambda event, **_: said.append(event),
    )

    source.look()
    outbox.close()

    told = inbox.get(0)
    assert isinstance(told, Scanned)
    assert said == ["scanned"]
    # without SciPy the memories are not even read
    nights = {"KAW-00000001": bytes([5])} if HAS_SCIPY else {}
    assert scan.read_nights(tmp_path / "nights.cbor") == nights
    state = reduction.State(policy=reduction.Policy())
    _, (stored,) = reduction.scanned(state, told, Now(at=7, wall_s=0.0))
    assert isinstance(stored, Store)
    assert cbor2.loads(stored.rows[0].payload)["kind"] == "scan"


def test_a_night_at_rest_ends_what_the_scan_found_and_an_unknown_night_does_not() -> None:
    pytest.importorskip("scipy.stats", reason="real part: scipy")
    rose: list[int | None] = [*QUIET, *[9] * 12]

    def ended(nights: list[int | None]) -> object:
        meter = {"nights": nights, "hours": [], "open": ["night_flow"]}
        return scan_child.scanned({"meters": {"m": meter}})["ended"]

    assert ended([*rose, 0]) == [("m", "night_flow")]
    assert ended([*rose, 9]) == []
    assert ended([*rose, None]) == []


def test_scipy_is_asked_for_before_a_memory_is_read(
    tmp_path: Path,
) -> None:
    (tmp_path / "scipy.py").write_text("raise ImportError('not on lean')\n")
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r});"
        f" sys.argv = ['scan_night', {str(tmp_path / 'no outbox')!r}, {str(tmp_path / 'n')!r}];"
        " import runpy; runpy.run_module('edge_agent.scan_night', run_name='__main__')"
    )

    answer = scan.ask({}, command=[sys.executable, "-c", script])

    assert answer.unavailable.startswith(scan.THE_CLOUDS)
    assert not (tmp_path / "n").exists()


def test_stopping_the_agent_ends_the_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = tmp_path / "slow_scan.py"
    slow.write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(scan, "NIGHT_MODULE", "slow_scan")
    said: list[str] = []
    source = NightlyScan(
        outbox=tmp_path / "outbox.db",
        inbox=Inbox(),
        clock=SystemClock(),
        log=lambda event, **_: said.append(event),
    )
    looking = threading.Thread(target=source.look)
    looking.start()

    source.stop()
    looking.join(20)

    assert not looking.is_alive()
    assert said == []

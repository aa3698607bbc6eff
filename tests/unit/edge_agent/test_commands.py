"""The commands of `aquacis-edge`, as a person or a script sees them."""

from __future__ import annotations

import io
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from decoders.drivers.registry import known_formats
from decoders.encode import encode_lorawan_hourly
from decoders.uplink import RowKind
from edge_agent import __main__ as cli
from edge_agent import selftest
from edge_agent.clock import SystemClock
from edge_agent.config import read_config
from edge_agent.outbox import Draft
from edge_agent.wiring import agent_of, open_outbox

ROOT = Path(__file__).parents[3]
TELEGRAM = "2A442D2C998734761B168D2091D37CAC21E1D68CDAFFCD3DC452BD802913FF7B1706CA9E355D6C2701CC24"
KEY = "28F64A24988064A079AA2C807D6102AE"


def said(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def settings(tmp_path: Path, **changed: Any) -> Path:
    path = tmp_path / "gateway.json"
    told = {"gateway": "norte", "broker": "mqtt://127.0.0.1:9", "state": str(tmp_path / "agent")}
    path.write_text(json.dumps(told | changed))
    return path


def test_decode_prints_what_each_meter_said_and_counts_what_it_could_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = encode_lorawan_hourly([1003, 1000], local_us=1_772_452_800_000_000).hex()
    lines = tmp_path / "lines"
    lines.write_text(
        json.dumps({"telegram_hex": TELEGRAM, "key_hex": KEY})
        + "\n"
        + json.dumps({"payload_hex": profile, "fport": 1, "dev_eui": "0013EA0001020304"})
        + "\nnonsense\n"
        + TELEGRAM
    )

    assert cli.main(["decode", str(lines)]) == 1

    wmbus, lorawan, bad, locked = said(capsys)
    assert (wmbus["meter"], wmbus["register_l"], wmbus["line"]) == ("KAM-76348799", 6408, 1)
    assert wmbus["fields"]["total_m3"] == 6.408
    assert lorawan["meter"] == "0013EA0001020304"
    assert lorawan["series"] == [
        {"timestamp": "2026-03-02T12:00:00", "volume_m3": 1.003},
        {"timestamp": "2026-03-02T11:00:00", "volume_m3": 1.0},
    ]
    assert (bad["line"], bad["ok"], bad["error"]) == (3, False, "malformed")
    assert (locked["line"], locked["error"], locked["layer"]) == (4, "key_missing", "ell")


def test_decode_reads_standard_input_with_a_key_file_and_explains_every_byte(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = tmp_path / "keys.jsonl"
    keys.write_text(json.dumps({"meter": "KAM-76348799", "key_hex": KEY}))
    keys.chmod(0o600)
    monkeypatch.setattr(sys, "stdin", io.StringIO(TELEGRAM + "\n"))

    assert cli.main(["decode", "-", "--keys", str(keys), "--explain"]) == 0

    told = capsys.readouterr().out
    assert told.startswith("line 1\n")
    assert "KAM-76348799" in told
    assert "08 19 00 00" in told


def test_a_key_file_that_others_can_read_stops_decode(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = tmp_path / "keys.jsonl"
    keys.write_text("")
    keys.chmod(0o644)

    assert cli.main(["decode", "-", "--keys", str(keys)]) == cli.EXIT_CONFIG
    assert json.loads(capsys.readouterr().err)["code"] == "keys_exposed"


def test_inspect_says_what_the_outbox_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = settings(tmp_path)
    assert cli.main(["inspect", "--config", str(path)]) == cli.EXIT_OUTBOX
    capsys.readouterr()
    outbox = open_outbox(read_config(path), SystemClock())
    outbox.append([Draft(heard_at=1, kind=RowKind.WMBUS, payload=b"x")] * 3, {"m/a": b"1"})
    outbox.acknowledge(1, [(1, "crc")])

    assert cli.main(["inspect", "--config", str(path), "--json"]) == 0
    (told,) = said(capsys)
    assert (told["head"], told["acked"], told["pending"], told["rows"]) == (3, 1, 2, 3)
    assert (told["kinds"], told["rejected"], told["meters"]) == ({"sub_hourly": 3}, {"crc": 1}, 1)
    assert told["check"] == "ok"
    assert cli.main(["inspect", "--config", str(path)]) == 0
    assert "pending      2" in capsys.readouterr().out
    outbox.close()


def test_selftest_passes_here_and_names_what_is_broken(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main(["selftest", "--json"]) == 0
    assert said(capsys)[0]["ok"] is True
    assert cli.main(["selftest"]) == 0
    capsys.readouterr()

    monkeypatch.setattr(selftest, "KEY", bytes(16))

    assert cli.main(["selftest", "--json"]) == 1
    told = said(capsys)[0]
    assert told["checks"]["wmbus"].startswith("WrongKey")
    assert told["checks"]["aes"] == "ok"


@pytest.mark.parametrize(
    ("changed", "event"),
    [
        ({"clock": "sundial"}, "settings_wrong"),
        ({"gateway": "Ñ"}, "settings_wrong"),
        ({"env": "sandbox"}, "settings_wrong"),
        ({"keys": "/nowhere"}, "keys_unusable"),
    ],
)
def test_wrong_settings_stop_the_agent_before_it_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: dict[str, Any], event: str
) -> None:
    path = settings(tmp_path, **changed)

    assert cli.main(["run", "--config", str(path)]) == cli.EXIT_CONFIG
    assert event in capsys.readouterr().err


def test_a_drained_outbox_needs_no_broker(tmp_path: Path) -> None:
    assert cli.main(["drain", "--config", str(settings(tmp_path)), "--timeout", "5"]) == 0


def others_read(folder: Path) -> list[str]:
    made = [folder, *folder.rglob("*")]
    return [path.name for path in made if stat.S_IMODE(path.stat().st_mode) & 0o077]


def test_nobody_else_can_read_what_an_agent_writes(tmp_path: Path) -> None:
    path = settings(tmp_path)
    lent = os.umask(0o022)
    try:
        assert cli.main(["drain", "--config", str(path), "--timeout", "5"]) == 0
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(lent)

    assert others_read(tmp_path / "agent") == []
    assert (tmp_path / "agent" / "outbox.db").exists()


def test_a_running_agents_outbox_and_its_journal_are_its_own(tmp_path: Path) -> None:
    """In a process of its own, as it is started, and over what an older agent left readable."""
    folder = tmp_path / "agent"
    folder.mkdir(mode=0o700)
    open_outbox(read_config(settings(tmp_path)), SystemClock()).close()
    (folder / "outbox.db").chmod(0o644)
    command = [sys.executable, "-m", "edge_agent", "run", "--config", str(settings(tmp_path))]
    running = subprocess.Popen(command, cwd=ROOT, umask=0o022, stderr=subprocess.PIPE, text=True)
    try:
        assert running.stderr is not None
        while "broker_unreachable" not in running.stderr.readline():
            assert running.poll() is None
        names = {made.name for made in folder.iterdir()}
        readable = others_read(folder)
    finally:
        running.send_signal(signal.SIGTERM)
        assert running.wait(20) == 0

    assert {"outbox.db", "outbox.db-wal", "agent.lock"} <= names
    assert readable == []


def test_a_second_agent_on_the_same_outbox_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = settings(tmp_path)
    first = agent_of(read_config(path), log=lambda *_, **__: None)

    assert cli.main(["drain", "--config", str(path)]) == cli.EXIT_OUTBOX
    assert "another agent works on it" in capsys.readouterr().err

    assert first.drain(1) == 0
    assert cli.main(["drain", "--config", str(path), "--timeout", "5"]) == 0


def test_a_damaged_outbox_is_put_aside_and_the_agent_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = settings(tmp_path)
    (tmp_path / "agent").mkdir()
    (tmp_path / "agent" / "outbox.db").write_bytes(b"not a database" * 1000)

    assert cli.main(["inspect", "--config", str(path)]) == cli.EXIT_OUTBOX
    assert "outbox_unusable" in capsys.readouterr().err
    drained = cli.main(["drain", "--config", str(path), "--timeout", "0.1"])

    assert drained == 75, "the report of it is still to be sent"
    assert "outbox_quarantined" in capsys.readouterr().err
    [aside] = (tmp_path / "agent" / "quarantine").glob("*/outbox.db")
    assert aside.read_bytes().startswith(b"not a database")


def test_help_teaches_and_documents_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["--help"])

    told = capsys.readouterr().out
    assert left.value.code == 0
    for code in (0, 1, 2, 74, 75, 77, 78):
        assert f"{code}  " in told
    with pytest.raises(SystemExit) as wrong:
        cli.main(["fly"])
    assert wrong.value.code == 2


def test_an_agent_recovers_its_memory_from_the_outbox(tmp_path: Path) -> None:
    config = read_config(settings(tmp_path))
    outbox = open_outbox(config, SystemClock())
    layout = bytes.fromhex("0413441302FF20523B")
    outbox.append([], {"f/" + layout.hex(): layout, "m/KAW-1": b"damaged"})
    outbox.close()

    agent = agent_of(config, log=lambda *_, **__: None)

    assert agent.health()["layouts"] == len(known_formats()) + 1
    assert agent.health()["meters"] == 0


def test_an_agent_says_which_profile_it_has_and_what_it_may_keep(tmp_path: Path) -> None:
    path = settings(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "profile": "lean"}))

    said = agent_of(read_config(path), log=lambda *_, **__: None).health()

    assert said["profile_lean"] == 1
    assert (said["outbox_limit_bytes"], said["outbox_limit_days"]) == (64 << 20, 9)

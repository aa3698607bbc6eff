"""`aquacis-edge keys`: which keys are taken and refused, and what a kill at any moment leaves."""

from __future__ import annotations

import io
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from edge_agent import __main__ as cli
from edge_agent.config import read_config
from edge_agent.gateway_keys import open_file, open_keys
from edge_agent.keys import Given, KeyFileUnusable, address_of

ROOT = Path(__file__).parents[3]
METER, NEIGHBOUR, LORAWAN = "KAW-53885758", "KAW-53885759", "0013EA0001020304"
KEY, NEWER, NEWEST = (bytes(range(n, n + 16)).hex() for n in (0, 1, 2))
SESSION = {"version": "1.0", "dev_addr": "01AB23CD", "app_s_key": KEY, "nwk_s_key": NEWER}


def private_key(path: Path, scalar: int = 7) -> Path:
    """Write an EC key of P-256 as SEC1, with as little in it as the form allows."""
    import base64

    der = bytes.fromhex("3031020101" + "0420") + scalar.to_bytes(32, "big")
    der += bytes.fromhex("a00a06082a8648ce3d030107")
    body = base64.b64encode(der).decode()
    path.write_text(f"-----BEGIN EC PRIVATE KEY-----\n{body}\n-----END EC PRIVATE KEY-----\n")
    path.chmod(0o600)
    return path


class Gateway:
    """One gateway's folder, and the commands that a technician gives there."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.key = private_key(folder / "gateway.key")
        self.file = folder / "keys.sealed"
        self.settings = folder / "gateway.json"
        self.said = {
            "gateway": "norte",
            "broker": "mqtt://127.0.0.1:9",
            "state": str(folder / "state"),
            "keys": str(self.file),
            "private_key": str(self.key),
        }
        self.set(**settings)

    def set(self, **settings: Any) -> None:
        self.said |= settings
        self.settings.write_text(json.dumps(self.said))

    def lines(self, *given: object, name: str = "lines", mode: int = 0o600) -> str:
        path = self.folder / name
        path.write_text("".join(json.dumps(line) + "\n" for line in given))
        path.chmod(mode)
        return str(path)

    def assigned(self, *names: str) -> str:
        path = self.folder / "assigned"
        path.write_text(
            "# this gateway's meters\n\n" + "".join(f"{name}  # one\n" for name in names)
        )
        return str(path)

    def keys(self, *arguments: str) -> int:
        return cli.main(["keys", *arguments, "--config", str(self.settings)])

    def holds(self) -> Given:
        return open_file(read_config(self.settings, environment={}))


@pytest.fixture
def gateway(tmp_path: Path) -> Gateway:
    return Gateway(tmp_path)


def key_of(meter: str, key: str = KEY, **more: object) -> dict[str, object]:
    return {"meter": meter, "key_hex": key, **more}


def code(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    for key in (KEY, NEWER, NEWEST):
        assert key not in captured.err.lower()
    return str(json.loads(captured.err.splitlines()[-1])["code"])


def test_keys_of_assigned_meters_are_taken_and_open_for_the_agent(gateway: Gateway) -> None:
    lines = gateway.lines(key_of(METER), {"meter": LORAWAN.lower(), "lorawan": SESSION})

    assert gateway.keys("import", lines, "--assigned", gateway.assigned(METER, LORAWAN)) == 0

    keys = open_keys(read_config(gateway.settings, environment={"AQUACIS_ENV": "production"}))
    assert keys.meters[address_of(METER)] == (bytes.fromhex(KEY),)
    assert keys.lorawan[LORAWAN].dev_addr == 0x01AB23CD
    assert keys.sealed
    assert gateway.file.stat().st_mode & 0o777 == 0o600


def test_keys_are_taken_from_standard_input_and_are_on_no_disk(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(key_of(METER))))

    assert gateway.keys("import", "-", "--assign-all") == 0

    assert gateway.holds().meters == {METER: {1: bytes.fromhex(KEY)}}


def test_a_key_of_another_gateways_meter_is_refused_and_nothing_is_taken(
    gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = gateway.lines(key_of(METER), key_of(NEIGHBOUR, NEWER))
    assigned = gateway.assigned(METER)

    assert gateway.keys("import", lines, "--assigned", assigned) == 78
    assert code(capsys) == "keys_not_assigned"
    assert not gateway.file.exists()

    assert gateway.keys("import", lines, "--assigned", assigned, "--skip-foreign") == 0
    assert set(gateway.holds().meters) == {METER}


def test_without_any_assignment_every_key_is_refused(
    gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gateway.keys("import", gateway.lines(key_of(METER))) == 78
    assert code(capsys) == "keys_not_assigned"

    assert gateway.keys("import", gateway.lines(key_of(METER)), "--assign-all") == 0


def test_the_setting_meters_narrows_what_is_assigned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway = Gateway(tmp_path, meters=[METER])
    lines = gateway.lines(key_of(METER), key_of(NEIGHBOUR))

    assert gateway.keys("import", lines, "--assign-all") == 78
    assert code(capsys) == "keys_not_assigned"

    gateway.set(meters=[METER, NEIGHBOUR])
    assert gateway.keys("import", lines, "--assign-all") == 0
    gateway.set(meters=[METER])
    keys = open_keys(read_config(gateway.settings, environment={}))
    assert (len(keys.meters), keys.withheld) == (1, 1)


def test_a_new_assignment_drops_the_keys_of_meters_that_went_to_another_gateway(
    gateway: Gateway,
) -> None:
    gateway.keys("import", gateway.lines(key_of(METER), key_of(NEIGHBOUR)), "--assign-all")

    assert gateway.keys("import", gateway.lines(), "--assigned", gateway.assigned(METER)) == 0

    assert set(gateway.holds().meters) == {METER}


def test_imports_add_up_and_a_version_is_not_taken_twice(
    gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.keys("import", gateway.lines(key_of(METER)), "--assign-all")
    assert (
        gateway.keys("import", gateway.lines(key_of(METER), key_of(METER, NEWER, version=2))) == 0
    )
    capsys.readouterr()

    assert gateway.keys("import", gateway.lines(key_of(METER, NEWEST))) == 78
    assert code(capsys) == "keys_version_taken"
    assert gateway.holds().meters[METER] == {1: bytes.fromhex(KEY), 2: bytes.fromhex(NEWER)}

    assert gateway.keys("import", gateway.lines(key_of(METER, NEWEST)), "--replace") == 0
    assert gateway.holds().meters[METER][1] == bytes.fromhex(NEWEST)


def test_a_new_session_replaces_the_old_one_and_leaves_the_root_keys(gateway: Gateway) -> None:
    root = {"meter": LORAWAN, "lorawan": {"app_key": NEWEST}}
    gateway.keys("import", gateway.lines(root, {"meter": METER, "key_hex": KEY}), "--assign-all")
    first = {"meter": LORAWAN, "lorawan": {**SESSION, "f_cnt_up": 9}}
    gateway.keys("import", gateway.lines(first))
    second = {"meter": LORAWAN, "lorawan": {**SESSION, "dev_addr": "01AB23CE"}}

    assert gateway.keys("import", gateway.lines(second)) == 0

    held = gateway.holds().lorawan[LORAWAN]
    assert (held.dev_addr, held.f_cnt_up, held.app_key) == (0x01AB23CE, None, bytes.fromhex(NEWEST))


def test_rotation_adds_the_next_version_and_may_drop_the_older(gateway: Gateway) -> None:
    gateway.keys("import", gateway.lines(key_of(METER)), "--assign-all")

    assert gateway.keys("rotate", gateway.lines(key_of(METER, NEWER))) == 0
    assert gateway.holds().meters[METER] == {1: bytes.fromhex(KEY), 2: bytes.fromhex(NEWER)}
    for number in range(3, 8):
        gateway.keys("rotate", gateway.lines(key_of(METER, bytes([number] * 16).hex())))
    assert sorted(gateway.holds().meters[METER]) == [4, 5, 6, 7]

    assert gateway.keys("rotate", "--drop-older") == 0
    assert gateway.holds().meters[METER] == {7: bytes([7] * 16)}


def test_a_private_key_is_replaced_without_a_moment_in_which_neither_opens(
    gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.keys("import", gateway.lines(key_of(METER)), "--assign-all")
    new = private_key(gateway.folder / "new.key", scalar=8)

    assert gateway.keys("rotate", "--to-key", str(new)) == 0
    before = gateway.holds()
    old = gateway.key.rename(gateway.folder / "old.key")
    new.rename(gateway.key)
    assert gateway.holds() == before
    assert gateway.keys("rotate") == 0
    capsys.readouterr()

    gateway.set(private_key=str(old))
    assert gateway.keys("list") == 78
    assert code(capsys) == "keys_other_private_key"


def test_a_private_key_that_was_replaced_already_opens_the_file_once_more(gateway: Gateway) -> None:
    gateway.keys("import", gateway.lines(key_of(METER)), "--assign-all")
    before = gateway.holds()
    old = gateway.key.rename(gateway.folder / "old.key")
    private_key(gateway.key, scalar=8)

    assert gateway.keys("rotate", "--from-key", str(old)) == 0

    assert gateway.holds() == before


def test_a_list_names_meters_and_versions_and_no_key(
    gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = gateway.lines(
        key_of(METER),
        key_of(METER, NEWER, version=2),
        {"meter": LORAWAN, "lorawan": {**SESSION, "app_key": KEY}},
    )
    gateway.keys("import", lines, "--assigned", gateway.assigned(METER, LORAWAN, NEIGHBOUR))
    capsys.readouterr()

    assert gateway.keys("list") == 0
    for_people = capsys.readouterr().out
    assert gateway.keys("list", "--json") == 0
    for_machines = capsys.readouterr().out

    told = json.loads(for_machines)
    assert told["gateway"] == "norte"
    assert {m["meter"]: m["versions"] for m in told["meters"]} == {
        METER: [2, 1],
        NEIGHBOUR: [],
        LORAWAN: [],
    }
    assert "version 2, 1" in for_people
    assert "no key" in for_people
    assert "root + session" in for_people
    for key in (KEY, NEWER):
        assert key not in (for_people + for_machines).lower()


def test_the_plain_file_of_old_times_is_sealed_in_its_own_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway = Gateway(tmp_path, keys=str(tmp_path / "keys.jsonl"), env="production")
    plain = gateway.lines(key_of(METER), name="keys.jsonl")
    config = read_config(gateway.settings, environment={})

    with pytest.raises(KeyFileUnusable, match="keys_not_sealed"):
        open_keys(config)
    assert gateway.keys("import", gateway.lines(key_of(METER)), "--assign-all") == 78
    assert code(capsys) == "keys_not_sealed"
    assert gateway.keys("import", plain, "--assign-all") == 0

    assert open_keys(config).sealed
    gateway.set(env="development")
    assert len(open_keys(config).meters) == 1


def test_a_plain_file_is_taken_in_development_alone(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, keys=str(tmp_path / "keys.jsonl"))
    gateway.lines(key_of(METER), name="keys.jsonl")

    keys = open_keys(read_config(gateway.settings, environment={}))

    assert (len(keys.meters), keys.sealed) == (1, False)


@pytest.mark.parametrize(
    ("arguments", "settings", "expected"),
    [
        (["import", "{absent}"], {}, "keys_unreadable"),
        (["import", "{open}", "--assign-all"], {}, "keys_exposed"),
        (["import", "{lines}", "--assigned", "{lines}"], {}, "keys_malformed"),
        (["import", "{lines}", "--assigned", "{absent}"], {}, "keys_unreadable"),
        (["import", "{lines}"], {"private_key": "/absent"}, "private_key_unreadable"),
        (["import", "{lines}"], {"private_key": None}, "private_key_unset"),
        (["import", "{lines}"], {"keys": None}, "keys_unset"),
        (["import", "{lines}"], {"keys": "/absent/keys"}, "keys_unreadable"),
        (["rotate"], {}, "keys_unreadable"),
        (["rotate", "--to-key", "{lines}"], {}, "private_key_absent"),
        (["list"], {}, "keys_unreadable"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_code(
    gateway: Gateway,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    settings: dict[str, Any],
    expected: str,
) -> None:
    gateway.set(**settings)
    places = {
        "absent": str(gateway.folder / "absent"),
        "open": gateway.lines(key_of(METER), name="open", mode=0o644),
        "lines": gateway.lines(key_of(METER)),
    }

    assert gateway.keys(*(argument.format(**places) for argument in arguments)) == 78

    assert code(capsys) == expected


@pytest.mark.parametrize(
    "line",
    [
        {"meter": LORAWAN, "lorawan": {}},
        {"meter": LORAWAN, "lorawan": {"app_key": KEY[2:]}},
        {"meter": LORAWAN, "lorawan": {"app_key": KEY, "colour": "blue"}},
        {"meter": LORAWAN, "lorawan": {"app_key": KEY, "version": "2"}},
        {"meter": LORAWAN, "lorawan": {"app_key": KEY, "f_cnt_up": -1}},
        {"meter": LORAWAN, "lorawan": {"app_key": KEY, "dev_addr": "1"}},
        {"meter": LORAWAN[:8], "lorawan": {"app_key": KEY}},
        {"meter": METER, "lorawan": {"app_key": KEY}},
        {"meter": METER, "key_hex": KEY, "version": 0},
        {"meter": METER, "key_hex": KEY, "version": 70_000},
    ],
)
def test_a_line_that_is_no_key_is_named_without_it(
    gateway: Gateway, capsys: pytest.CaptureFixture[str], line: dict[str, object]
) -> None:
    assert gateway.keys("import", gateway.lines(line), "--assign-all") == 78

    assert code(capsys) == "keys_malformed"


def test_a_rotation_killed_at_any_moment_leaves_a_file_that_opens(gateway: Gateway) -> None:
    names = [f"KAW-{number:08d}" for number in range(2000)]
    lines = gateway.lines(*(key_of(name) for name in names))
    gateway.keys("import", lines, "--assign-all")
    newer = gateway.lines(*(key_of(name, NEWER, version=2) for name in names), name="newer")
    rotate = [sys.executable, "-m", "edge_agent", "keys", "rotate", newer]
    chance = random.Random(9)

    for _ in range(12):
        before = gateway.holds()
        process = subprocess.Popen(
            [*rotate, "--config", str(gateway.settings)],
            cwd=ROOT,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(chance.uniform(0.05, 0.6))
        process.send_signal(signal.SIGKILL)
        process.wait()
        after = gateway.holds()
        assert after.names == before.names
        assert len({len(keys) for keys in after.meters.values()}) == 1

    assert gateway.keys("rotate", newer) == 0
    assert not list(gateway.folder.glob(".keys*"))

"""The sealed key file: what opens it, what does not, and what a power cut leaves."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_agent import keys_sealed
from edge_agent.keys import Given, KeyFileUnusable, LorawanKeys, held
from edge_agent.keys_sealed import is_sealed, opened, read_sealed, sealed, write_sealed
from edge_agent.private_key import PrivateKey

OWN, OTHER = PrivateKey(b"EC\0 own"), PrivateKey(b"EC\0 other")
METER, LORAWAN = "KAW-53885758", "0013EA0001020304"
KEY, NEWER = bytes.fromhex("28f64a24988064a079aa2c807d6102ae"), bytes(range(16))
GIVEN = Given(
    assigned=frozenset({METER, LORAWAN}),
    meters={METER: {1: KEY, 2: NEWER}},
    lorawan={
        LORAWAN: LorawanKeys(
            dev_eui=0x0013EA0001020304,
            dev_addr=0x01AB23CD,
            f_cnt_up=70_000,
            app_s_key=KEY,
            nwk_s_key=NEWER,
            app_key=KEY,
        )
    },
)


def written(tmp_path: Path, whole: bytes, mode: int = 0o600) -> Path:
    path = tmp_path / "keys.sealed"
    path.write_bytes(whole)
    path.chmod(mode)
    return path


def opened_by(path: Path, key: PrivateKey = OWN, gateway: str = "norte") -> Given:
    return opened(read_sealed(path), gateway=gateway, private_key=key)


def refusal(read: Callable[[], Any]) -> KeyFileUnusable:
    with pytest.raises(KeyFileUnusable) as refused:
        read()
    assert KEY.hex() not in str(refused.value).lower()
    assert repr(KEY) not in str(refused.value)
    return refused.value


def test_what_was_sealed_comes_back_and_none_of_it_stands_in_the_file(tmp_path: Path) -> None:
    whole = sealed(GIVEN, gateway="norte", private_keys=[OWN])
    path = written(tmp_path, whole)

    assert opened_by(path) == GIVEN
    assert is_sealed(path)
    for secret in (
        KEY,
        KEY.hex().encode(),
        KEY.hex().upper().encode(),
        METER.encode(),
        b"01AB23CD",
    ):
        assert secret not in whole
    assert json.loads(whole.splitlines()[0])["gateway"] == "norte"


def test_the_same_keys_sealed_twice_have_no_byte_of_ciphertext_in_common() -> None:
    first, second = (sealed(GIVEN, gateway="norte", private_keys=[OWN]) for _ in range(2))

    one, other = (whole.partition(b"\n")[2] for whole in (first, second))
    assert len(one) == len(other)
    assert sum(a == b for a, b in zip(one, other, strict=True)) < len(one) / 10


def test_another_private_key_and_another_gateway_open_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, sealed(GIVEN, gateway="norte", private_keys=[OWN]))

    by_other = refusal(lambda: opened_by(path, OTHER))
    assert by_other.code == "keys_other_private_key"
    assert OTHER.name in str(by_other)
    assert refusal(lambda: opened_by(path, OWN, "sur")).code == "keys_other_gateway"


def test_a_header_that_lies_about_its_owner_opens_nothing(tmp_path: Path) -> None:
    whole = sealed(GIVEN, gateway="norte", private_keys=[OWN])

    renamed = written(tmp_path, whole.replace(b'"norte"', b'"sures"'))
    assert refusal(lambda: opened_by(renamed, OWN, "sures")).code == "keys_tampered"
    claimed = written(tmp_path, whole.replace(OWN.name.encode(), OTHER.name.encode()))
    assert refusal(lambda: opened_by(claimed, OTHER)).code == "keys_tampered"


def test_no_changed_byte_is_opened(tmp_path: Path) -> None:
    whole = sealed(GIVEN, gateway="norte", private_keys=[OWN])
    codes: set[str] = set()

    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 0x01
        path = written(tmp_path, bytes(changed))
        codes.add(refusal(lambda path=path: opened_by(path)).code)  # type: ignore[misc]  # a default

    assert codes <= {
        *("keys_tampered", "keys_truncated", "keys_other_gateway", "keys_other_private_key"),
        *("keys_not_sealed", "keys_version"),
    }


def test_no_cut_file_is_opened(tmp_path: Path) -> None:
    whole = sealed(GIVEN, gateway="norte", private_keys=[OWN])

    codes = [
        refusal(lambda size=size: opened_by(written(tmp_path, whole[:size]))).code  # type: ignore[misc]
        for size in range(len(whole))
    ]

    assert set(codes[len(keys_sealed.MAGIC) :]) == {"keys_truncated"}
    assert set(codes[: len(keys_sealed.MAGIC)]) == {"keys_not_sealed"}
    longer = written(tmp_path, whole + b"\0")
    assert refusal(lambda: opened_by(longer)).code == "keys_tampered"


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ({"aquacis_keys": 2}, "keys_version"),
        ({"slots": []}, "keys_tampered"),
        ({"slots": [{}] * 3}, "keys_tampered"),
        (
            {"slots": [{"private_key": 1, "salt": "", "nonce": "00" * 12, "wrapped": ""}]},
            "keys_tampered",
        ),
        ({"nonce": "00"}, "keys_tampered"),
        ({"bytes": "many"}, "keys_tampered"),
        ({"bytes": -1}, "keys_tampered"),
    ],
)
def test_a_header_that_is_none_of_ours_is_refused(
    tmp_path: Path, header: dict[str, Any], code: str
) -> None:
    line, _, rest = sealed(GIVEN, gateway="norte", private_keys=[OWN]).partition(b"\n")
    said = json.dumps({**json.loads(line), **header}, separators=(",", ":")).encode()
    path = written(tmp_path, said + b"\n" + rest)

    assert refusal(lambda: opened_by(path)).code == code


def test_while_a_private_key_is_replaced_both_open_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, sealed(GIVEN, gateway="norte", private_keys=[OWN, OTHER]))

    assert opened_by(path, OWN) == opened_by(path, OTHER) == GIVEN
    assert read_sealed(path).private_keys == (OWN.name, OTHER.name)


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, sealed(GIVEN, gateway="norte", private_keys=[OWN]), 0o640)

    assert refusal(lambda: read_sealed(path)).code == "keys_exposed"
    assert refusal(lambda: read_sealed(tmp_path / "absent")).code == "keys_unreadable"
    assert refusal(lambda: is_sealed(tmp_path / "absent")).code == "keys_unreadable"


def test_a_writing_that_fails_at_any_step_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, b"old")

    def failing(*_: object, **__: object) -> None:
        raise OSError("no space left")

    for step in ("os.fsync", "pathlib.Path.replace", "os.open"):
        with monkeypatch.context() as broken:
            broken.setattr(step, failing)
            with pytest.raises(OSError, match="no space"):
                write_sealed(path, b"new")
        assert path.read_bytes() == b"old"
        assert os.listdir(tmp_path) == ["keys.sealed"]


def test_the_new_file_is_on_the_disk_before_it_takes_the_place_of_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, b"old")
    steps: list[str] = []
    sync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        at = os.readlink(f"/proc/self/fd/{descriptor}")
        steps.append("folder" if at == str(tmp_path) else f"file of {os.stat(at).st_size}")
        sync(descriptor)

    def replaced(self: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)

    write_sealed(path, b"newer")

    assert steps == ["file of 5", "rename", "folder"]
    assert path.read_bytes() == b"newer"
    assert path.stat().st_mode & 0o777 == 0o600


def test_root_leaves_the_file_to_the_user_whom_the_agent_runs_as(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "fchown", lambda _, user, group: given.append((user, group)))

    write_sealed(tmp_path / "keys.sealed", b"first")

    folder = tmp_path.stat()
    assert given == [(folder.st_uid, folder.st_gid)]


def test_what_a_power_cut_left_is_cleared_away_by_the_next_writing(tmp_path: Path) -> None:
    path = written(tmp_path, b"old")
    (tmp_path / ".keys.sealed.01234567.new").write_bytes(b"half")

    write_sealed(path, b"new")

    assert os.listdir(tmp_path) == ["keys.sealed"]


def test_keys_come_newest_first_and_no_repr_shows_one() -> None:
    keys = held(GIVEN, only=None, sealed=True)

    assert keys.meters[bytes.fromhex("372c58578853")] == (NEWER, KEY)
    shown = f"{keys!r} {keys.meters!r} {GIVEN!r} {keys.lorawan!r}"
    for secret in (repr(KEY)[2:-1], KEY.hex(), repr(NEWER)[2:-1]):
        assert secret not in shown


def test_a_meter_that_the_settings_do_not_name_has_its_key_withheld() -> None:
    keys = held(GIVEN, only=frozenset({LORAWAN}), sealed=True)

    assert len(keys.meters) == 0
    assert list(keys.lorawan) == [LORAWAN]
    assert keys.said() == {"sealed": True, "meters": 0, "lorawan": 1, "withheld": 1}

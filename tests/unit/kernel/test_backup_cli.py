"""`aquacis backup` and `aquacis restore`, as somebody types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cloud.__main__ import main
from cloud.kernel.db import Database


@pytest.fixture(autouse=True)
def _installation(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state folder of its own, over the test's database."""
    state = tmp_path / "state"
    state.mkdir()
    (state / "passwords.json").symlink_to(database.passwords_path)
    monkeypatch.setenv("AQUACIS_STATE", str(state))
    monkeypatch.setenv("AQUACIS_DATABASE_URL", database.admin_dsn)


def test_what_was_backed_up_comes_back(
    database: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "city.backup")
    with database.connect("metering") as metering:
        metering.execute("CREATE TABLE kept AS SELECT 42 AS answer")

    assert main(["backup", file]) == 0
    with database.connect("metering") as metering:
        metering.execute("DROP TABLE kept")
    assert "metering." in capsys.readouterr().err  # its progress
    assert main(["--json", "restore", file]) == 0

    told = json.loads(capsys.readouterr().out)
    assert told["file"] == file
    assert "metering" in told["contexts"]
    with database.connect("metering") as metering:
        assert metering.execute("SELECT answer FROM kept").fetchone() == (42,)


def test_a_restore_under_a_running_platform_is_refused_in_spanish(
    database: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "city.backup")
    assert main(["backup", file]) == 0

    with database.connect("metering"):
        assert main(["restore", file]) == 1
    assert "la base de datos está en uso por aquacis_metering" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["restore", "/no/such/file"], "respaldo-inexistente"),
        (["backup", "/no/such/folder/file"], "carpeta-inexistente"),
        (["restore", __file__], "respaldo-fallido"),
    ],
)
def test_what_cannot_be_done_is_said_with_a_code(
    command: list[str], code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--json", *command]) == 1
    assert json.loads(capsys.readouterr().err.splitlines()[-1])["code"] == code

"""`aquacis users` and `aquacis keys`: people and keys from the command line."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from cloud.__main__ import main
from cloud.kernel.auth import passwords
from cloud.kernel.db import Database

CLERK = ("--role", "clerk", "--administration", "queretaro")


@pytest.fixture(autouse=True)
def _installation(
    module_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with module_database.connect("kernel") as connection:
        connection.execute("TRUNCATE users, signing_keys CASCADE")
    file = tmp_path / "passwords.json"
    file.write_bytes(module_database.passwords_path.read_bytes())
    file.chmod(0o600)
    monkeypatch.setenv("AQUACIS_STATE", str(tmp_path))
    monkeypatch.setenv("AQUACIS_DATABASE_URL", module_database.admin_dsn)
    cheap = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    monkeypatch.setattr(passwords, "_hasher", cheap)


def test_a_person_is_added_once_and_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["users", "add", "ana", *CLERK, "--generate"]) == 0
    assert main(["users", "add", "ana", "--role", "field", "--generate"]) == 0
    capsys.readouterr()

    assert main(["users", "list", "--json"]) == 0

    (ana,) = json.loads(capsys.readouterr().out)
    assert (ana["name"], ana["roles"], ana["administrations"]) == ("ana", ["field"], [])


def test_a_password_is_read_from_stdin_and_never_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("una-clave-larga-7\n"))

    assert main(["users", "add", "ana", *CLERK, "--password-stdin"]) == 0

    assert "una-clave" not in "".join(capsys.readouterr())


def test_without_a_terminal_a_password_is_not_guessed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))

    assert main(["users", "add", "ana", *CLERK]) == 2
    assert "[password_missing]" in capsys.readouterr().err


def test_a_password_given_twice_differently_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = iter(["una-clave-larga-7", "otra-clave-larga-8"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("getpass.getpass", lambda _: next(typed))

    assert main(["users", "add", "ana", *CLERK]) == 1
    assert "[password_differs]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["users", "add", "Ana María", *CLERK, "--generate"], "user_invalid"),
        (["users", "set-password", "eva", "--generate"], "user_invalid"),
        (
            ["users", "add", "ana", "--role", "clerk", "--administration", "x", "--generate"],
            "administration_unknown",
        ),
        (["users", "token", "ana"], "not_serving"),
    ],
)
def test_what_cannot_be_done_says_why_with_a_code(
    arguments: list[str], code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--json"]) == 1

    answer = capsys.readouterr()
    assert json.loads(answer.err)["code"] == code
    assert answer.out == ""


def test_a_password_can_be_changed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["users", "add", "ana", *CLERK, "--generate"])
    capsys.readouterr()

    assert main(["users", "set-password", "ana", "--generate", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["password"]) >= 24


def test_a_token_is_for_a_person_who_is_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AQUACIS_HTTP_PORT", "8080")
    main(["users", "add", "ana", *CLERK, "--generate"])
    capsys.readouterr()

    assert main(["users", "token", "ana"]) == 0
    assert capsys.readouterr().out.count(".") == 2
    assert main(["users", "token", "eva"]) == 1


def test_signing_keys_rotate_and_open_after_the_sealing_key_rotated_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AQUACIS_HTTP_PORT", "8080")
    main(["users", "add", "ana", *CLERK, "--generate"])
    assert main(["keys", "rotate-signing"]) == 0
    capsys.readouterr()

    assert main(["keys", "rotate-sealing", "--json"]) == 0

    assert json.loads(capsys.readouterr().out) == {
        "version": 2,
        "signing_keys": 1,
        "meter_keys": 0,
    }
    assert main(["users", "token", "ana"]) == 0


def test_people_of_another_issuer_are_not_ours(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AQUACIS_ISSUER", "https://id.example")

    for command in (["users", "add", "ana", *CLERK, "--generate"], ["keys", "rotate-signing"]):
        assert main(command) == 1
        assert "[issuer_elsewhere]" in capsys.readouterr().err


def test_a_lost_sealing_key_is_said_without_a_stack(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AQUACIS_HTTP_PORT", "8080")
    main(["users", "add", "ana", *CLERK, "--generate"])
    main(["users", "token", "ana"])
    (tmp_path / "keys" / "kek.json").unlink()

    assert main(["users", "token", "ana"]) == 78
    assert "[key_refused]" in capsys.readouterr().err


def test_a_key_file_that_is_not_there_or_open_to_all_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "own.json"
    monkeypatch.setenv("AQUACIS_KEK_FILE", str(file))
    assert main(["keys", "rotate-signing"]) == 78
    file.write_text("{}")
    file.chmod(0o644)
    assert main(["keys", "rotate-signing"]) == 78
    file.chmod(0o600)
    assert main(["keys", "rotate-signing"]) == 78  # no key in it

    assert capsys.readouterr().err.count("AQUACIS_KEK_FILE") == 3


def test_a_database_of_a_newer_version_is_left_alone(
    capsys: pytest.CaptureFixture[str], module_database: Database
) -> None:
    insert = "INSERT INTO kernel.migrations (file, sha256) VALUES ('9999_future.sql', '')"
    with module_database.connect_admin() as admin:
        admin.execute(insert)
    try:
        assert main(["users", "list"]) == 78
    finally:
        with module_database.connect_admin() as admin:
            admin.execute("DELETE FROM kernel.migrations WHERE file = '9999_future.sql'")

    assert "[schema_differs]" in capsys.readouterr().err

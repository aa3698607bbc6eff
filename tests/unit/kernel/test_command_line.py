"""Wrong usage is told in Spanish with a code, and ends with exit code 2."""

from __future__ import annotations

import json

import pytest

from cloud.__main__ import main
from cloud.kernel.command_line import in_spanish


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ([], "falta: COMMAND"),
        (["nada"], "no existe 'nada'"),
        (["meters", "import"], "falta: file"),
        (["alerts", "--state", "abierta"], "--state: no existe 'abierta'; hay 'open', 'closed'"),
        (["alerts", "--state"], "--state: falta su valor"),
        (["meters", "--nada"], "no se reconoce: --nada"),
        (["readings", "KAW-1", "--from", "ayer"], "«ayer» no es fecha y hora"),
        (["readings", "KAW-1", "--from", "2026-03-01T06:00:00"], "le falta la zona"),
        (["explain", "reading", "KAW-1", "0001-01-01T00:00:00+14:00"], "entre 1970 y 2200"),
        (["meters", "--limit", "0"], "de 1 a 1 000 000, no «0»"),
        (["meters", "--limit", "²"], "de 1 a 1 000 000, no «²»"),
        (["rejects", "replay", "x"], "debe ser un número entero, no 'x'"),
    ],
)
def test_wrong_usage_is_said_in_spanish(
    typed: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(typed) == 2

    told = capsys.readouterr().err
    assert said in told
    assert told.startswith("usage: aquacis")
    assert told.endswith("[usage]\n")


def test_programs_are_told_in_json_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json", "alerts", "--state", "abierta"]) == 2

    told = json.loads(capsys.readouterr().err)
    assert told["code"] == "usage"
    assert "abierta" in told["message"]


def test_what_argparse_says_that_we_do_not_know_is_passed_on() -> None:
    assert in_spanish("something new") == "something new"

"""How commands answer: JSON alone for programs, tables for people, complaints on stderr."""

from __future__ import annotations

import json
from argparse import Namespace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cloud.kernel import console

PEOPLE = Namespace(json=False)
PROGRAMS = Namespace(json=True)
AT = datetime(2026, 3, 1, 6, tzinfo=UTC)


def test_rows_are_a_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"name": "KAW-53885758", "litres": 17}, {"name": "x", "litres": None}]

    console.answer(PEOPLE, rows)

    assert capsys.readouterr().out == "name          litres\nKAW-53885758  17\nx             -\n"


def test_one_thing_is_a_list_of_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    console.answer(PEOPLE, {"at": AT, "names": ["a", "b"], "é": "agua"})

    assert capsys.readouterr().out == (
        'at     2026-03-01T06:00:00Z\nnames  ["a", "b"]\né      agua\n'
    )


def test_nothing_is_nothing_and_text_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    console.answer(PEOPLE, [])
    console.answer(PEOPLE, "token")

    assert capsys.readouterr().out == "token\n"


def test_programs_get_json_alone(capsys: pytest.CaptureFixture[str]) -> None:
    console.answer(PROGRAMS, {"at": AT, "state": Path("/x"), "name": "Querétaro"})
    console.complain(PROGRAMS, code="port_taken", message="ocupado")

    said = capsys.readouterr()
    assert json.loads(said.out) == {
        "at": "2026-03-01T06:00:00Z",
        "state": "/x",
        "name": "Querétaro",
    }
    assert json.loads(said.err) == {"code": "port_taken", "message": "ocupado"}

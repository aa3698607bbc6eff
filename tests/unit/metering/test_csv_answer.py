"""Answers as CSV open in a spreadsheet, and run nothing there."""

from __future__ import annotations

import csv
import io

from cloud.metering.csv_answer import BYTE_ORDER_MARK, written


def rows(answer: dict[str, object]) -> list[dict[str, str]]:
    body = bytes(written(answer).body).decode()
    assert body.startswith(BYTE_ORDER_MARK)
    return list(csv.DictReader(io.StringIO(body.removeprefix(BYTE_ORDER_MARK))))


def test_items_become_rows_and_lists_one_cell() -> None:
    items = [{"name": "KAW-1", "names": ["KAW-1", "0013"], "hours": [{"a": 1}, {"a": 2}]}]

    assert rows({"items": items, "next": None}) == [
        {"name": "KAW-1", "names": "KAW-1 0013", "hours": "2"}
    ]


def test_a_cell_that_would_run_as_a_formula_is_text() -> None:
    assert rows({"items": [{"name": "=cmd()"}], "next": None}) == [{"name": "'=cmd()"}]


def test_absent_values_are_empty_and_accents_survive() -> None:
    items = [{"name": "Querétaro", "litres": None}, {"name": "b", "litres": 0}]

    assert rows({"items": items, "next": None}) == [
        {"name": "Querétaro", "litres": ""},
        {"name": "b", "litres": "0"},
    ]


def test_the_next_page_is_a_link() -> None:
    answer = written({"items": [], "next": "abc"})

    assert answer.headers["link"] == '<?cursor=abc>; rel="next"'

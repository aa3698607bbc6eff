"""Answers as CSV open in a spreadsheet, and run nothing there."""

from __future__ import annotations

import csv
import io

from starlette.datastructures import URL as Url

from cloud.metering.csv_answer import BYTE_ORDER_MARK, written

URL = Url("http://127.0.0.1/api/v1/meters")


def rows(answer: dict[str, object]) -> list[dict[str, str]]:
    body = bytes(written(answer, URL).body).decode()
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


def test_the_next_page_is_a_link_that_asks_the_same_again() -> None:
    asked = Url("http://127.0.0.1/api/v1/meters?format=csv&q=a%26b&cursor=old&limit=1")

    answer = written({"items": [], "next": "abc"}, asked)

    assert answer.headers["link"] == (
        '</api/v1/meters?format=csv&q=a%26b&limit=1&cursor=abc>; rel="next"'
    )

"""The same answers as CSV, for spreadsheets: `?format=csv` or `Accept: text/csv`.

UTF-8 with a byte order mark, because the spreadsheet of a Mexican office guesses otherwise; a
cell that a spreadsheet would run as a formula is quoted with an apostrophe.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

from fastapi import Request
from fastapi.responses import Response

BYTE_ORDER_MARK = "\ufeff"
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def wants_csv(request: Request) -> bool:
    return (
        request.query_params.get("format") == "csv"
        or "text/csv" in request.headers.get("accept", "").lower()
    )


def written(answer: Mapping[str, Any]) -> Response:
    """Return the items of a page as CSV; the next cursor goes into `Link`, as in RFC 8288."""
    items = [_flat(item) for item in answer["items"]]
    columns = list(dict.fromkeys(name for item in items for name in item))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\r\n")
    writer.writeheader()
    writer.writerows({name: _cell(cell) for name, cell in item.items()} for item in items)
    headers = {"content-disposition": 'attachment; filename="aquacis.csv"'}
    if answer.get("next"):
        headers["link"] = f'<?cursor={answer["next"]}>; rel="next"'
    return Response(
        BYTE_ORDER_MARK + out.getvalue(), media_type="text/csv; charset=utf-8", headers=headers
    )


def _flat(item: Mapping[str, Any]) -> dict[str, Any]:
    """Lists become one cell, nested rows their number: a table has no third dimension."""
    return {name: _joined(cell) for name, cell in item.items()}


def _joined(cell: Any) -> Any:  # noqa: ANN401  JSON values
    if not isinstance(cell, list):
        return cell
    if any(isinstance(one, dict) for one in cell):
        return len(cell)
    return " ".join(str(one) for one in cell)


def _cell(cell: Any) -> Any:  # noqa: ANN401  JSON values
    if isinstance(cell, str) and cell.startswith(FORMULA):
        return f"'{cell}"
    return cell

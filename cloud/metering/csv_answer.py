"""The same answers as CSV, for spreadsheets: `?format=csv` or `Accept: text/csv`.

UTF-8 with a byte order mark, because the spreadsheet of a Mexican office guesses otherwise; a
cell that a spreadsheet would run as a formula is quoted with an apostrophe.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import Depends, Query, Request
from fastapi.responses import Response
from starlette.datastructures import URL

from decoders.value import value

CSV_CONTENT = {"text/csv": {"schema": {"type": "string"}}}  # as OpenAPI describes it
BYTE_ORDER_MARK = "\ufeff"
FORMULA = ("=", "+", "-", "@", "\t", "\r")


@value
class Form:
    """The form that the caller wants an answer in. `url` of the request."""

    is_csv: bool
    url: URL

    def written(self, answer: Mapping[str, Any]) -> Any:  # noqa: ANN401  JSON or CSV
        """Return a page as it was asked for."""
        return written(answer, self.url) if self.is_csv else answer


def form_asked(
    request: Request,
    format: Annotated[
        Literal["json", "csv"] | None, Query(description="csv: as for Accept: text/csv")
    ] = None,
) -> Form:
    """Read the form from the query, else from `Accept`."""
    accepts = "text/csv" in request.headers.get("accept", "").lower()
    return Form(is_csv=format == "csv" or (format is None and accepts), url=request.url)


AnswerForm = Annotated[Form, Depends(form_asked)]


def written(answer: Mapping[str, Any], url: URL) -> Response:
    """Return the items of a page as CSV.

    The next page goes into `Link`, as in RFC 8288: the same query with its cursor, without the
    host, which a proxy may have changed.
    """
    items = [_flat(item) for item in answer["items"]]
    columns = list(dict.fromkeys(name for item in items for name in item))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\r\n")
    writer.writeheader()
    writer.writerows({name: _cell(cell) for name, cell in item.items()} for item in items)
    headers = {"content-disposition": 'attachment; filename="aquacis.csv"'}
    if answer.get("next"):
        following = url.include_query_params(cursor=answer["next"])
        headers["link"] = f'<{following.path}?{following.query}>; rel="next"'
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

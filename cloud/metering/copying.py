"""Rows for `COPY … (FORMAT binary)` straight from numpy columns, without a Python object per row.

The format (PostgreSQL manual, COPY, "Binary Format"): a header, then for each tuple a 16-bit
field count and for each field a 32-bit length and its bytes, all big-endian; −1 as a length is
NULL and has no bytes; a 16-bit −1 ends the file.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg
from psycopg import sql
from psycopg.adapt import Dumper
from psycopg.pq import Format

from decoders.value import value

_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
POSTGRES_EPOCH_US = (
    946_684_800_000_000  # 2000-01-01 UTC in µs since 1970: timestamptz counts from it
)

_ARRAY_HEADER = struct.Struct(">iiIii")  # dimensions, flags, element type, length, lower bound
_ELEMENT = np.dtype([("length", ">i4"), ("value", ">i8")])
_INT8, _TIMESTAMPTZ = 20, 1184  # types of the elements
_WIRE = {"int8": ">i8", "int4": ">i4", "int2": ">i2", "timestamptz": ">i8"}


@value
class Column:
    """One column of a COPY.

    type    int8, int4, int2, timestamptz (values in µs since 1970) or bytes:<n> (values (n,) V<n>)
    values  (rows,)
    null    (rows,) bool: which are NULL; None = none
    """

    type: str
    values: npt.NDArray[Any]
    null: npt.NDArray[np.bool_] | None = None


def instants(values: npt.NDArray[np.int64], null: npt.NDArray[np.bool_] | None = None) -> Column:
    """Return a timestamptz column of µs since 1970."""
    return Column(type="timestamptz", values=values, null=null)


def whole(type: str, values: npt.NDArray[Any], null: npt.NDArray[np.bool_] | None = None) -> Column:
    """Return an integer column of type int8, int4 or int2."""
    return Column(type=type, values=values, null=null)


def octets(values: npt.NDArray[np.void]) -> Column:
    """Return a bytea column of equally long values."""
    return Column(type=f"bytes:{values.dtype.itemsize}", values=values)


@value
class Instants:
    """A parameter of type timestamptz[]: µs since 1970, (n,)."""

    values: npt.NDArray[np.int64]


def rows_for(columns: Mapping[str, Column]) -> bytes | bytearray:
    """Return the whole COPY stream of the columns, in their order."""
    fields: list[tuple[str, str]] = [("count", ">i2")]
    some_null: dict[int, npt.NDArray[np.bool_]] = {}
    empty: set[int] = set()  # columns without any value have no bytes at all
    for place, column in enumerate(columns.values()):
        fields.append((f"l{place}", ">i4"))
        if column.null is not None and column.null.all():
            empty.add(place)
            continue
        fields.append((f"v{place}", _wire(column)))
        if column.null is not None and column.null.any():
            some_null[place] = column.null
    layout = np.dtype(fields)
    n = len(next(iter(columns.values())).values)
    table = np.empty(n, layout)
    table["count"] = len(columns)
    for place, column in enumerate(columns.values()):
        if place in empty:
            table[f"l{place}"] = -1
            continue
        size = layout.fields[f"v{place}"][0].itemsize  # type: ignore[index]  # a structured dtype
        table[f"l{place}"] = size
        shift = POSTGRES_EPOCH_US if column.type == "timestamptz" else 0
        table[f"v{place}"] = column.values - shift if shift else column.values
    if some_null:
        return _HEADER + _without_nulls(table, some_null) + _TRAILER
    stream = bytearray(len(_HEADER) + table.nbytes + len(_TRAILER))
    stream[: len(_HEADER)] = _HEADER
    stream[-len(_TRAILER) :] = _TRAILER
    body = np.frombuffer(stream, np.uint8, table.nbytes, len(_HEADER))
    body[:] = table.view(np.uint8)
    return stream


class KeysDumper(Dumper):
    """Sends an int64 array as one binary bigint[]: number by number costs ten times as much.

    Source: PostgreSQL's array_recv.
    """

    format = Format.BINARY
    oid = 1016  # bigint[]

    def dump(self, obj: npt.NDArray[np.int64]) -> bytes:
        return _array(_INT8, obj)


class InstantsDumper(Dumper):
    """Sends Instants as one binary timestamptz[]."""

    format = Format.BINARY
    oid = 1185  # timestamptz[]

    def dump(self, obj: Instants) -> bytes:
        return _array(_TIMESTAMPTZ, obj.values - POSTGRES_EPOCH_US)


def elements_of(array: bytes) -> npt.NDArray[np.int64]:
    """Return the elements of a binary array of 8-byte values that are not NULL, as numbers.

    Those of timestamptz are µs since PostgreSQL's epoch.
    """
    elements = np.frombuffer(array, _ELEMENT, offset=_ARRAY_HEADER.size)
    numbers: npt.NDArray[np.int64] = elements["value"].astype(np.int64)
    return numbers


def _array(type: int, values: npt.NDArray[np.int64]) -> bytes:
    elements = np.empty(len(values), _ELEMENT)
    elements["length"], elements["value"] = 8, values
    return _ARRAY_HEADER.pack(1, 0, type, len(values), 1) + elements.tobytes()


def copy_rows(
    connection: psycopg.Connection[Any], table: str, columns: Mapping[str, Column]
) -> None:
    """Copy the columns into a table of the connection's schema, in the open transaction."""
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(
        sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(rows_for(columns))


def _wire(column: Column) -> str:
    if column.type.startswith("bytes:"):
        return f"V{column.type.removeprefix('bytes:')}"
    return _WIRE[column.type]


def _without_nulls(table: npt.NDArray[Any], nulls: Mapping[int, npt.NDArray[np.bool_]]) -> bytes:
    """Return the tuples with −1 as the length of each NULL and its bytes left out.

    nulls   which are, for each column that has some
    """
    layout = table.dtype
    kept = np.ones((len(table), layout.itemsize), np.bool_)
    for place, null in nulls.items():
        table[f"l{place}"][null] = -1
        wire, offset = layout.fields[f"v{place}"][:2]  # type: ignore[index]  # as above
        kept[null, offset : offset + wire.itemsize] = False
    octets_of: npt.NDArray[np.uint8] = table.view(np.uint8).reshape(len(table), layout.itemsize)
    return octets_of[kept].tobytes()

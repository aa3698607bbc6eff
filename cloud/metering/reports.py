"""What gateways say about themselves: the payload of row kind 4."""

from __future__ import annotations

from math import isfinite
from typing import Any

from decoders.value import value

TEXT_CHARACTERS_MAX = 256
INPUT_CODES = frozenset({"malformed", "oversized", "internal"})
"""Why an agent could not read what a source delivered (edge_agent.sources)."""


@value
class Report:
    """A report to be kept as it came. `heard_at`: µs, corrected."""

    kind: str
    heard_at: int
    payload: dict[str, Any]


@value
class BadInput:
    """Bytes of a gateway's source that its agent could not read: a dead letter like any other."""

    code: str  # of dead letters: input_malformed, …
    detail: str
    given: bytes


def report_of(payload: Any, *, heard_at: int) -> Report | BadInput:  # noqa: ANN401  any CBOR
    """Return what a report row says. Raises ValueError for what is none."""
    kind = payload.get("kind") if isinstance(payload, dict) else None
    if not isinstance(kind, str) or not 0 < len(kind) <= 32:
        raise ValueError("report: kind is missing or not a short text")
    if kind == "bad_input":
        return _bad_input(payload)
    plain = {_printable(name): _plain(given) for name, given in payload.items()}
    return Report(kind=kind, heard_at=heard_at, payload=plain)


def _bad_input(payload: dict[Any, Any]) -> BadInput:
    given, code = payload.get("given"), payload.get("code")
    if not isinstance(given, bytes) or not isinstance(code, str):
        raise ValueError("report: bad_input without its bytes or its code")
    known = code in INPUT_CODES  # a code of ours is a series of figures: nobody makes up new ones
    source, detail = (_printable(payload.get(name, "")) for name in ("source", "detail"))
    return BadInput(
        code=f"input_{code}" if known else "input_malformed",
        detail=f"{source}: {detail}" if known else f"{source}: {_printable(code)}: {detail}",
        given=given,
    )


def _plain(given: Any) -> int | float | str | bool:  # noqa: ANN401  any CBOR
    """Return what JSON can say of a value; bytes as hex."""
    if isinstance(given, (int, bool)) or (isinstance(given, float) and isfinite(given)):
        return given
    return given.hex() if isinstance(given, bytes) else _printable(given)


def _printable(given: Any) -> str:  # noqa: ANN401  any CBOR
    return str(given).replace("\0", "")[:TEXT_CHARACTERS_MAX]

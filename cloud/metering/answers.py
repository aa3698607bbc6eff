"""The shapes of the API's answers, as `/openapi.json` describes them; `shapes` fills them.

They describe and are not checked at run time: a list of a thousand rows goes out as it is built.
Instants are ISO 8601 in UTC, volumes whole litres.
"""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from cloud.metering.csv_answer import CSV_CONTENT

Item = TypeVar("Item")


class Page(TypedDict, Generic[Item]):
    """One page of a list; `next` is the cursor of the page after it, null on the last one."""

    items: list[Item]
    next: str | None


class Meter(TypedDict):
    """A meter, its newest register and its open alerts. `provisional`: heard, never declared."""

    meter_key: int
    name: str
    names: list[str]
    driver: str | None
    administration: str
    provisional: bool
    last_at: str | None
    last_register_l: int | None
    last_heard_at: str | None
    info_code: int | None
    open_alerts: int


class Reading(TypedDict):
    """A register as it was read. `clock`: whose clock says when."""

    at: str | None
    register_l: int
    kind: str
    quality: list[str]
    clock: str
    late: bool
    heard_at: str | None
    received_at: str | None
    frame: str | None


Hour = TypedDict(
    "Hour",
    {"from": str | None, "to": str | None, "litres": int | None, "late": bool},
)
"""Litres of an hour; null where a register is missing or fell: a gap."""

Day = TypedDict(
    "Day",
    {
        "on": str,
        "from": str | None,
        "to": str | None,
        "first_register_l": int,
        "litres": int | None,
        "readings": int,
        "late": bool,
        "went_back": bool,
    },
)
"""Litres of a local day; null while no later register is known, or where one fell (went_back)."""


class Reception(TypedDict):
    """One gateway that heard a frame. `batch` and `row` are where its bytes are kept."""

    gateway: str
    heard_at: str | None
    received_at: str | None
    clock_quality: str
    rssi_dbm: int | None
    snr_db: float | None
    batch: int
    row: int


class Frame(TypedDict):
    """A frame and everyone who heard it."""

    hash: str
    meter_key: int
    radio: str
    counter: int
    integrity: str
    key_version: int | None
    heard_at: str | None
    register_l: int | None
    receptions: list[Reception]


class Said(TypedDict):
    """What a frame says when it is decoded now; `error` says why it says nothing."""

    driver: str | None
    fields: dict[str, Any]
    status: list[str]
    series: list[dict[str, Any]]
    error: str | None


class DecodedFrame(Frame, Said):
    """A frame with its bytes and what they say, decoded now."""

    raw: str
    decoder_version: int


class Explanation(Said):
    """From a reading to the bytes it came in. `same`: they say the same litres again."""

    meter: Meter
    reading: Reading
    frame: str | None
    receptions: list[Reception]
    batch: dict[str, Any]
    key_version: int | None
    decoder_version: dict[str, int]
    meter_clock_offset_s: int
    raw: str
    layers: str
    register_l: dict[str, int | None]
    same: bool
    conflicts: list[dict[str, Any]]


class Alert(TypedDict):
    """A finding. `level`: hours of continuous flow (12, 24, 48, 72, 168); 0 for other kinds."""

    id: int
    meter_key: int
    meter: str
    kind: str
    level: int
    state: Literal["open", "closed"]
    rate_lph: int
    litres: int
    started_at: str | None
    opened_at: str | None
    updated_at: str | None
    closed_at: str | None
    gateway: str


class DeadLetter(TypedDict):
    """A row or a message that was refused, with its bytes. `seq` null: a whole message."""

    id: int
    code: str
    detail: str
    gateway: str
    seq: int | None
    meter: str | None
    bytes_hex: str
    received_at: str | None
    state: Literal["open", "replayed", "dismissed"]
    attempts: int
    last_attempt_at: str | None


GatewayHour = TypedDict(
    "GatewayHour", {"from": str | None, "expected": int | None, "received": int}
)


class Gateway(TypedDict):
    """A gateway: frames expected and received, of the last full hour and of the last 24.

    behind_since   up to when its rows are here, while there is a backlog
    heard, health  telegrams in all, and what its agent last said about itself
    """

    id: str
    name: str
    administration: str
    agent_version: str | None
    last_seen_at: str | None
    clock_offset_s: float | None
    clock_quality: str
    backlog: int
    behind_since: str | None
    heard: int
    health: dict[str, Any]
    expected: int | None
    received: int
    losses: int
    hours: list[GatewayHour]


Loss = TypedDict(
    "Loss",
    {
        "first_seq": int,
        "last_seq": int | None,
        "reason": str,
        "kind": str,
        "rows": int | None,
        "certain": bool,
        "from": str | None,
        "to": str | None,
        "reported_at": str | None,
    },
)


class GatewayHours(Page[GatewayHour]):
    """Hours of a gateway, and the rows that it lost."""

    losses: list[Loss]


class Report(TypedDict):
    """What a gateway reported of itself; `says` depends on its kind."""

    id: int
    kind: str
    heard_at: str | None
    received_at: str | None
    says: dict[str, Any]


class Rejects(TypedDict):
    """How many dead letters of one code a gateway has, and in which state."""

    code: str
    open: int
    replayed: int
    dismissed: int
    last_received_at: str | None


Responses = dict[int | str, dict[str, Any]]


def listed(model: Any) -> Responses:  # noqa: ANN401  a type
    """Describe a route that answers `model`, or the same as CSV."""
    return {200: {"model": model, "content": CSV_CONTENT}}


def shown(model: Any) -> Responses:  # noqa: ANN401  a type
    """Describe a route that answers `model`."""
    return {200: {"model": model}}

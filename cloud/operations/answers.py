"""The shape of the pipeline's picture, as `/openapi.json` describes it."""

from __future__ import annotations

from typing import Any

from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from cloud.metering.answers import Gateway


class Stage(TypedDict):
    """One stage of the flow: wall seconds for its rate, the city's for its lag."""

    id: str
    rate_per_s: float
    total: int
    lag_s: float | None
    ok: bool


class Pipeline(TypedDict):
    """The flow from radio to alert, now."""

    now: str
    speed: float
    stages: list[Stage]
    gateways: list[Gateway]
    history: dict[str, Any] | None
    readings_total: int
    telegrams_total: int
    meters_total: int
    open_alerts: int
    dead_letters: int
    alert_feed: list[dict[str, Any]]
    recorded_hours: list[dict[str, Any]]

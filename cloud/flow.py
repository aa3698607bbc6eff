"""The routing table: which published fact goes to which use cases. The picture of the platform.

    gateway ─▶ metering ─ reading.recorded ──┬─▶ metering.daily_consumption   stored daily roll-ups
                  │                          └─▶ operations.recorded_hours    the pipeline page
                  ├──── reading.corrected ─────▶ metering.daily_consumption
                  ├──── anomaly.detected ──────▶ operations.alert_feed       the flow page's feed
                  ├──── reading.conflicted       kept in metering, nobody reacts yet
                  └──── edge.loss.reported       kept in metering, nobody reacts yet

A published fact that is neither routed nor terminal fails a test, and so does a route to a fact
that nobody publishes.
"""

from __future__ import annotations

from typing import Final

from cloud.kernel.bus import Handler, Subscription
from cloud.kernel.events import EventType, Upcaster
from cloud.kernel.platform import Platform
from cloud.metering import events as metering
from cloud.metering import rollups
from cloud.operations import projections
from decoders.value import value


@value
class UseCase:
    """What a context does about a fact; the name is kept for ever: its position goes by it."""

    consumer: str
    name: str
    handler: Handler


DAILY_CONSUMPTION: Final = UseCase(
    consumer="metering", name="daily_consumption", handler=rollups.roll_up
)
RECORDED_HOURS: Final = UseCase(
    consumer="operations", name="recorded_hours", handler=projections.count_recorded
)
ALERT_FEED: Final = UseCase(
    consumer="operations", name="alert_feed", handler=projections.tell_alerts
)

ROUTES: Final[dict[EventType, tuple[UseCase, ...]]] = {
    metering.READING_RECORDED: (DAILY_CONSUMPTION, RECORDED_HOURS),
    metering.READING_CORRECTED: (DAILY_CONSUMPTION,),
    metering.ANOMALY_DETECTED: (ALERT_FEED,),
}

TERMINAL: Final[dict[EventType, str]] = {
    metering.READING_CONFLICTED: "shown from metering's own table; work orders will take it up",
    metering.EDGE_LOSS_REPORTED: "shown from metering's own table; work orders will take it up",
}
"""Facts nobody reacts to, each with the reason why that is meant."""

SOURCES: Final = ("metering",)
"""The contexts that publish: whose outboxes are read."""

UPCASTERS: Final[dict[str, Upcaster]] = {}
"""dataschema of an old version → the step to a newer one, from the contexts' `events.py`."""


def subscriptions(platform: Platform) -> tuple[Subscription, ...]:
    """Return every use case with all the facts that are routed to it."""
    types: dict[tuple[str, str], set[str]] = {}
    cases: dict[tuple[str, str], UseCase] = {}
    for fact, routed in ROUTES.items():
        for case in routed:
            place = (case.consumer, case.name)
            types.setdefault(place, set()).add(fact.name)
            cases[place] = case
    return tuple(
        Subscription(
            consumer=case.consumer,
            name=case.name,
            types=frozenset(types[place]),
            handler=case.handler,
        )
        for place, case in cases.items()
    )

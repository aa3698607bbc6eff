"""The routing table is the platform's picture: nothing published is lost sight of."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import cast

from cloud import app, flow
from cloud.kernel.events import EventType, declared_in
from cloud.kernel.platform import Platform

ROOT = Path(__file__).parents[2]


def published_in() -> dict[str, list[EventType]]:
    """Return the published facts by context."""
    paths = sorted((ROOT / "cloud").glob("*/events.py"))
    contexts = [path.parent.name for path in paths if path.parent.name != "kernel"]
    return {
        name: list(declared_in(importlib.import_module(f"cloud.{name}.events")))
        for name in contexts
    }


PUBLISHED = {fact for facts in published_in().values() for fact in facts}


def test_routes_take_up_every_published_fact_or_say_why_not() -> None:
    assert set(flow.ROUTES) | set(flow.TERMINAL) == PUBLISHED
    assert not set(flow.ROUTES) & set(flow.TERMINAL)
    assert all(flow.TERMINAL.values()), "a terminal fact needs a reason"


def test_routes_read_every_context_that_publishes() -> None:
    assert set(flow.SOURCES) == {name for name, facts in published_in().items() if facts}


def test_routes_lead_to_contexts_that_have_an_inbox() -> None:
    consumers = {case.consumer for cases in flow.ROUTES.values() for case in cases}

    assert consumers <= {context.name for context in app.CONTEXTS}


def test_routes_become_one_subscription_for_each_use_case() -> None:
    subscriptions = flow.subscriptions(cast(Platform, None))

    names = [(each.consumer, each.name) for each in subscriptions]
    assert len(set(names)) == len(names)
    assert {(kind, each.name) for each in subscriptions for kind in each.types} == {
        (fact.name, case.name) for fact, cases in flow.ROUTES.items() for case in cases
    }


def test_routes_of_a_use_case_have_one_handler() -> None:
    cases = [case for routed in flow.ROUTES.values() for case in routed]

    assert len({(case.consumer, case.name) for case in cases}) == len(set(cases))


def test_the_picture_in_the_table_shows_every_route() -> None:
    picture = flow.__doc__ or ""

    for fact, cases in flow.ROUTES.items():
        assert fact.name in picture
        for case in cases:
            assert f"{case.consumer}.{case.name}" in picture
    for fact in flow.TERMINAL:
        assert fact.name in picture

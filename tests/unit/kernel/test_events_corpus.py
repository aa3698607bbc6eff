"""Every version of every event ever published can still be read."""

from __future__ import annotations

import base64
import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from cloud import flow
from cloud.kernel.cloudevents import event_from, headers_of
from cloud.kernel.events import ARROW, Event, EventType, declared_in, upcast

ROOT = Path(__file__).parents[3]
CORPUS = ROOT / "tests" / "vectors" / "events"
FROZEN = sorted(CORPUS.glob("*.json"))


def published() -> list[EventType]:
    """Return what the contexts' `events.py` declare."""
    found: list[EventType] = []
    for path in sorted((ROOT / "cloud").glob("*/events.py")):
        found += declared_in(importlib.import_module(f"cloud.{path.parent.name}.events"))
    return found


def kept(path: Path) -> tuple[Event, dict[str, Any], dict[str, Any]]:
    vector = json.loads(path.read_text())
    wire = base64.b64decode(vector["wire_base64"])
    return Event.received(wire), vector["headers"], vector["says"]


def says(event: Event) -> dict[str, Any]:
    if event.content_type == ARROW:
        return {"columns": {name: column.tolist() for name, column in event.columns().items()}}
    return {"body": event.body()}


@pytest.mark.parametrize("path", FROZEN, ids=lambda path: path.stem)
def test_a_frozen_event_still_says_what_it_said(path: Path) -> None:
    event, headers, said = kept(path)

    assert says(event) == said
    assert headers_of(event) == headers
    assert event_from(headers, event.data) == event
    assert path.stem == event.dataschema.replace("/", "-")


@pytest.mark.parametrize("kind", published(), ids=lambda kind: kind.dataschema)
def test_every_published_version_is_in_the_corpus(kind: EventType) -> None:
    assert CORPUS / f"{kind.name}-{kind.version}.json" in FROZEN


@pytest.mark.parametrize("path", FROZEN, ids=lambda path: path.stem)
def test_within_a_version_columns_are_only_added(path: Path) -> None:
    event, _, _ = kept(path)
    now = {kind.name: kind for kind in published()}[event.type]
    newest = upcast(event, flow.UPCASTERS)

    assert newest.version == now.version
    if now.columns is not None:
        frozen = newest.table().schema
        assert [now.columns.field(field.name).type for field in frozen] == frozen.types

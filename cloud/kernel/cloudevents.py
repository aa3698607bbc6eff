"""An event as CloudEvents 1.0 has it, in binary content mode: attributes as headers, body as is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from uuid import UUID

from cloud.kernel.events import Event

_OPTIONAL: Final = {  # extension names are lower case letters and digits: CloudEvents 1.0 §3.1
    "key": "key",
    "firstat": "first_at",
    "lastat": "last_at",
}


def headers_of(event: Event) -> dict[str, str]:
    """Return the CloudEvents 1.0 attributes of an event; `time` stays µs since 1970 in text."""
    headers = {
        "specversion": "1.0",
        "id": str(event.id),
        "source": event.source,
        "type": event.type,
        "time": str(event.time),
        "dataschema": event.dataschema,
        "datacontenttype": event.content_type,
        "shard": str(event.shard),
        "rows": str(event.rows),
    }
    if event.traceparent:
        headers["traceparent"] = event.traceparent
    for header, field in _OPTIONAL.items():
        number = getattr(event, field)
        if number is not None:
            headers[header] = str(number)
    return headers


def event_from(headers: Mapping[str, str], data: bytes) -> Event:
    """Return the event of a header and its data; unknown headers are ignored."""
    optional = {
        field: int(headers[header]) for header, field in _OPTIONAL.items() if header in headers
    }
    return Event(
        id=UUID(headers["id"]),
        source=headers["source"],
        type=headers["type"],
        time=int(headers["time"]),
        dataschema=headers["dataschema"],
        traceparent=headers.get("traceparent", ""),
        shard=int(headers["shard"]),
        rows=int(headers["rows"]),
        content_type=headers["datacontenttype"],
        data=data,
        **optional,
    )

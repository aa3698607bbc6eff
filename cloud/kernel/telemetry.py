"""How a process says what it does: JSON logs on stderr, Prometheus figures, W3C trace context.

    log = telemetry.logger(__name__)
    log.info("batch_stored", batch=17, rows=400)

A log line is one JSON object: `at`, `level`, `event`, `process`, `logger`, `traceparent` when
there is one, and the fields given. Secrets are masked by the name of the field, by their shape
and by their value (those of the settings), in lines of foreign libraries too.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TextIO

from prometheus_client import Counter, Gauge, Histogram

MASK = "***"
VALUE_CHARACTERS_MAX = 2_000  # one field; a log line is not a dump
TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")

# Fields that hold secrets or people, whatever is in them.
_SECRET_NAMES = re.compile(
    r"pass|secret|token|authorization|cookie|credential|key_hex|private|kek$|verifier"
    r"|^(curp|rfc|e?mail|phone|address|dsn)$"
)
_SECRET_SHAPES = (
    (re.compile(r"(://[^:/@\s]*):[^@\s]+@"), rf"\1:{MASK}@"),  # URL with a password
    (re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*"), MASK),  # JSON Web Token
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]+"), rf"\1 {MASK}"),
    (re.compile(r"\$argon2\w+\$[^\s\"']+"), MASK),
    (
        re.compile(r"(?i)\b(password|passwd|secret|token)(['\"]?\s*[=:]\s*)[^\s,;\"'&]+"),
        rf"\1\2{MASK}",
    ),
)
_LABELS_REFUSED = frozenset({"meter", "meter_key", "serial", "dev_eui", "frame", "subject", "user"})
_UNITS = ("_total", "_seconds", "_bytes", "_ratio", "_rows")

_RECORD_ATTRIBUTES = logging.makeLogRecord({}).__dict__.keys() | {
    "fields",
    "message",
    "asctime",
    "color_message",
}

_current: ContextVar[str | None] = ContextVar("traceparent", default=None)


def new_traceparent() -> str:
    """Begin a trace. Source: https://www.w3.org/TR/trace-context/, level 1."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def parse(header: str | None) -> str | None:
    """Return a valid traceparent, or None for anything else: never trust a caller's header."""
    if header is None or TRACEPARENT.fullmatch(header) is None:
        return None
    return header


def child(traceparent: str | None) -> str:
    """Return the next span of the same trace, or a new trace when there is none."""
    if parse(traceparent) is None:
        return new_traceparent()
    assert traceparent is not None
    return f"{traceparent[:36]}{secrets.token_hex(8)}{traceparent[52:]}"


def trace_id(traceparent: str) -> str:
    return traceparent[3:35]


def current() -> str | None:
    """Return the traceparent that this thread or task works under."""
    return _current.get()


@contextmanager
def carrying(traceparent: str | None) -> Iterator[str]:
    """Work as a child span of `traceparent`: logs and events made inside carry it."""
    span = child(traceparent)
    held = _current.set(span)
    try:
        yield span
    finally:
        _current.reset(held)


class EventLogger:
    """Logs events by NAME with fields; a thin face on the standard library's logger."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, **named: object) -> None:
        self._log(logging.DEBUG, event, named)

    def info(self, event: str, **named: object) -> None:
        self._log(logging.INFO, event, named)

    def warning(self, event: str, **named: object) -> None:
        self._log(logging.WARNING, event, named)

    def error(self, event: str, **named: object) -> None:
        self._log(logging.ERROR, event, named)

    def failure(self, event: str, error: BaseException, **named: object) -> None:
        """Log an error with its stack."""
        self._logger.log(logging.ERROR, event, exc_info=error, extra={"fields": named})

    def _log(self, level: int, event: str, named: Mapping[str, object]) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, event, extra={"fields": named})


def logger(name: str) -> EventLogger:
    return EventLogger(name)


class JsonLines(logging.Formatter):
    """Formats every record, ours or a library's, as one masked JSON line."""

    def __init__(self, *, process: str, hidden: Iterable[str] = ()) -> None:
        super().__init__()
        self._process = process
        self._hidden = tuple(sorted((one for one in hidden if one), key=len, reverse=True))

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": self._text(record.getMessage()),
            "process": self._process,
            "logger": record.name,
        }
        if span := _current.get():
            line["traceparent"] = span
        for name, given in _fields(record).items():
            line[name] = MASK if _SECRET_NAMES.search(name.lower()) else self._plain(given)
        if record.exc_info:
            line["error"] = self._text(self.formatException(record.exc_info), maximum=20_000)
        return json.dumps(line, ensure_ascii=False)

    def _plain(self, given: object) -> object:
        """Return `given` as JSON with every text in it masked."""
        if given is None or isinstance(given, bool | int | float):
            return given
        if isinstance(given, bytes | memoryview):
            return f"{len(given)} bytes"  # raw frames belong in the raw store
        if isinstance(given, Mapping):
            return {
                str(name): MASK if _SECRET_NAMES.search(str(name).lower()) else self._plain(held)
                for name, held in given.items()
            }
        if isinstance(given, Sequence) and not isinstance(given, str):
            return [self._plain(one) for one in given]
        return self._text(str(given))

    def _text(self, text: str, *, maximum: int = VALUE_CHARACTERS_MAX) -> str:
        for hidden in self._hidden:
            text = text.replace(hidden, MASK)
        for shape, instead in _SECRET_SHAPES:
            text = shape.sub(instead, text)
        return text if len(text) <= maximum else f"{text[:maximum]}…"


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """Return the fields of a record: ours, and the `extra` of whoever uses `logging` itself."""
    held = record.__dict__
    extra = {name: held[name] for name in held.keys() - _RECORD_ATTRIBUTES}
    return {**extra, **held.get("fields", {})}


def configure(
    process: str, *, hidden: Iterable[str] = (), level: str = "INFO", stream: TextIO | None = None
) -> None:
    """Send every log of this process to stderr as JSON lines. `hidden`: texts to mask."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines(process=process, hidden=hidden))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.captureWarnings(capture=True)
    for name in ("httpx", "httpcore", "uvicorn.access", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)  # they say one line for each request


def counter(name: str, says: str, *labels: str) -> Counter:
    """Declare a figure that only grows: `aquacis_<what>_total`."""
    _check(name, labels, ("_total",))
    return Counter(name, says, labels)


def gauge(name: str, says: str, *labels: str) -> Gauge:
    """Declare a figure that goes up and down."""
    _check(name, labels, ("",))
    return Gauge(name, says, labels)


def histogram(
    name: str, says: str, *labels: str, buckets: Sequence[float] = Histogram.DEFAULT_BUCKETS
) -> Histogram:
    """Declare a distribution; its unit is the last word of its name."""
    _check(name, labels, _UNITS[1:])
    return Histogram(name, says, labels, buckets=buckets)


def _check(name: str, labels: Sequence[str], units: Sequence[str]) -> None:
    if not name.startswith("aquacis_") or not name.endswith(tuple(units)):
        raise ValueError(f"{name}: aquacis_…, ending in one of {', '.join(units)}")
    if refused := _LABELS_REFUSED & set(labels):
        raise ValueError(f"{name}: a series for each {', '.join(sorted(refused))} has no bound")

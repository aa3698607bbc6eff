"""Logs are JSON without secrets or people; figures have names, units and bounded labels."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cloud.kernel import telemetry

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"  # W3C's own example
JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"

log = telemetry.logger("tests.telemetry")


class Written(io.StringIO):
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]


@pytest.fixture
def written() -> Iterator[Written]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = Written()
    telemetry.configure("test", hidden=["planted-by-value"], stream=stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


def test_a_line_has_the_events_name_and_its_fields(written: Written) -> None:
    log.info("batch_stored", batch=17, rows=400, gateway="gw-1", late=None)

    (line,) = written.lines()
    assert (line["event"], line["level"], line["process"]) == ("batch_stored", "info", "test")
    assert (line["batch"], line["rows"], line["gateway"], line["late"]) == (17, 400, "gw-1", None)
    assert line["at"].endswith("+00:00")


def test_no_secret_reaches_a_log(written: Written) -> None:
    log.info("connected", dsn="postgresql://a:planted-dsn@h/d", url="mqtt://u:planted-url@h:1883")
    log.info("signed", password="planted-a", access_token="planted-b", key_hex="planted-c")
    log.info("nested", headers={"Authorization": "Bearer planted-d", "cookie": "planted-e"})
    log.info("told planted-by-value aloud", also=["x", "planted-by-value"])
    log.warning("header", text="Authorization: Bearer planted-f", more="password=planted-g;")
    log.info("token", text=JWT, hash="$argon2id$v=19$m=65536,t=3,p=4$planted-h$planted-i")
    logging.getLogger("library").error("cannot reach %s", "redis://:planted-j@h/0")
    logging.getLogger("library").info("with extra", extra={"password": "planted-k"})
    try:
        raise ConnectionError("postgresql://a:planted-l@h/d refused")
    except ConnectionError as error:
        log.failure("connection_failed", error)

    assert len(written.lines()) == 9
    assert "planted" not in written.getvalue()
    assert JWT not in written.getvalue()


def test_people_are_not_logged(written: Written) -> None:
    log.info("citizen", rfc="planted", curp="planted", email="planted", phone="planted")

    assert "planted" not in written.getvalue()


def test_codes_and_reasons_stay_readable(written: Written) -> None:
    log.warning("row_refused", code="wrong_key", reason="crc", meter="KAW-53885758")

    (line,) = written.lines()
    assert (line["code"], line["reason"], line["meter"]) == ("wrong_key", "crc", "KAW-53885758")


def test_bytes_and_long_texts_are_cut(written: Written) -> None:
    log.info("frame", payload=bytes(1000), detail="x" * 10_000)

    (line,) = written.lines()
    assert line["payload"] == "1000 bytes"
    assert len(line["detail"]) < 3_000


def test_a_failure_comes_with_its_stack_and_a_librarys_line_with_its_extra(
    written: Written,
) -> None:
    try:
        raise ValueError("the reason")
    except ValueError as error:
        log.failure("decode_failed", error, frame="ab")
    logging.getLogger("library").info("MIGRATED", extra={"file": "0001.sql"})

    failed, migrated = written.lines()
    assert "ValueError: the reason" in failed["error"]
    assert "test_telemetry.py" in failed["error"]
    assert failed["frame"] == "ab"
    assert (migrated["event"], migrated["file"]) == ("MIGRATED", "0001.sql")


def test_a_line_carries_the_trace_it_was_written_under(written: Written) -> None:
    with telemetry.carrying(TRACEPARENT) as span:
        log.info("inside")
    log.info("outside")

    inside, outside = written.lines()
    assert inside["traceparent"] == span
    assert "traceparent" not in outside


def test_a_child_stays_in_its_trace_and_is_a_span_of_its_own() -> None:
    span = telemetry.child(TRACEPARENT)

    assert telemetry.parse(span) == span
    assert telemetry.trace_id(span) == "0af7651916cd43dd8448eb211c80319c"
    assert span != TRACEPARENT
    assert span.endswith("-01")


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "garbage",
        TRACEPARENT.upper(),
        f"{TRACEPARENT}-extra",
        f"ff{TRACEPARENT[2:]}",
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
        f"{TRACEPARENT}\r\nx: y",
    ],
)
def test_a_header_that_is_no_traceparent_begins_a_new_trace(header: str | None) -> None:
    assert telemetry.parse(header) is None
    assert telemetry.parse(telemetry.child(header)) is not None


def test_traces_do_not_leak_between_threads() -> None:
    def work(number: int) -> bool:
        with telemetry.carrying(f"00-{number:032x}-{number:016x}-01") as span:
            return telemetry.current() == span

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(1, 200)))
    assert telemetry.current() is None


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("readings_total", ()),
        ("aquacis_readings", ()),
        ("aquacis_readings_total", ("meter",)),
        ("aquacis_readings_total", ("dev_eui",)),
    ],
)
def test_a_counter_without_name_unit_or_bound_is_refused(name: str, labels: tuple[str]) -> None:
    with pytest.raises(ValueError, match="aquacis_"):
        telemetry.counter(name, "says", *labels)


def test_a_histogram_names_its_unit() -> None:
    with pytest.raises(ValueError, match="_seconds"):
        telemetry.histogram("aquacis_latency", "says")
    telemetry.histogram("aquacis_test_latency_seconds", "says").observe(0.1)
    telemetry.counter("aquacis_test_things_total", "says", "code").labels("crc").inc()
    telemetry.gauge("aquacis_test_level", "says").set(1)

"""How metering's rows look in JSON: names, units and ids as the API promises them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from cloud.metering import answers
from cloud.metering.intervals import Interval
from cloud.metering.model import Quality
from decoders.drivers.registry import DRIVERS
from decoders.reading import Integrity

Row = dict[str, Any]

DEV_EUI = re.compile(r"[0-9A-F]{16}")

READING_KINDS = {1: "total"}
CLOCKS = {0: "meter", 1: "gateway", 2: "untrusted"}
RADIOS = {1: "wmbus", 2: "lorawan"}


def instant(at: datetime | None) -> str | None:
    """Return an instant as ISO 8601 in UTC, as every answer of ours writes it."""
    return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def meter(row: Row) -> answers.Meter:
    names = row["names"] or []
    return {
        "meter_key": row["meter_key"],
        "name": names[0] if names else str(row["meter_key"]),
        "names": names,
        "driver": row["driver"] or driver_of(names, version=row["version"], medium=row["medium"]),
        "administration": row["administration"],
        "provisional": row["provisional"],
        "last_at": instant(row["last_at"]),
        "last_register_l": row["last_register_l"],
        "last_heard_at": instant(row["last_heard_at"]),
        "info_code": row["info_code"],
        "open_alerts": row["open_alerts"],
    }


def driver_of(names: Sequence[str], *, version: int | None, medium: int | None) -> str | None:
    """Return the driver that claims one of a meter's names; None while none does."""
    for name in names:
        found = (
            _drivers_of_dev_eui(name)
            if DEV_EUI.fullmatch(name)
            else _drivers_of_serial(name, version=version, medium=medium)
        )
        if len(found) == 1:
            return found.pop()
    return None


def _drivers_of_dev_eui(dev_eui: str) -> set[str]:
    prefix = int(dev_eui[:6], 16)
    return {driver.name for driver in DRIVERS if prefix in driver.dev_eui_prefixes}


def _drivers_of_serial(name: str, *, version: int | None, medium: int | None) -> set[str]:
    """A meter imported and not yet met says no version and medium: its maker must do."""
    manufacturer = name.partition("-")[0]
    return {
        driver.name
        for driver in DRIVERS
        for match in driver.matches
        if match.manufacturer == manufacturer
        and version in {None, match.version}
        and medium in {None, match.medium}
    }


def reading(row: Row) -> answers.Reading:
    quality = Quality(row["quality"])
    return {
        "at": instant(row["register_at"]),
        "register_l": row["register_l"],
        "kind": READING_KINDS[row["kind"]],
        "quality": [flag.name.lower() for flag in Quality if flag in quality and flag.name],
        "clock": CLOCKS[row["clock"]],
        "late": Quality.LATE in quality,
        "heard_at": instant(row["heard_at"]),
        "received_at": instant(row["received_at"]),
        "frame": row["frame"],
    }


def hour(interval: Interval) -> answers.Hour:
    return {
        "from": instant(interval.from_at),
        "to": instant(interval.to_at),
        "litres": interval.litres,
        "late": interval.late,
    }


def day(row: Row) -> answers.Day:
    return {
        "on": row["day_on"].isoformat(),
        "from": instant(row["first_at"]),
        "to": instant(row["next_at"]),
        "first_register_l": row["first_register_l"],
        "litres": row["litres"],
        "readings": row["readings"],
        "late": row["late"],
        "went_back": row["went_back"],
    }


def reception(row: Row) -> answers.Reception:
    return {
        "gateway": row["gateway"],
        "heard_at": instant(row["heard_at"]),
        "received_at": instant(row["received_at"]),
        "clock_quality": row["clock_quality"],
        "rssi_dbm": row["rssi_dbm"],
        "snr_db": None if row["snr_db"] is None else float(row["snr_db"]),
        "batch": row["batch_key"],
        "row": row["batch_row"],
    }


def frame(receptions: Sequence[Row]) -> answers.Frame:
    """Return one frame from all of its receptions, the first heard first."""
    first = receptions[0]
    return {
        "hash": first["frame"].hex(),
        "meter_key": first["meter_key"],
        "radio": RADIOS[first["radio"]],
        "counter": first["counter"],
        "integrity": Integrity(first["integrity"]).text,
        "key_version": first["key_version"] or None,
        "heard_at": instant(first["heard_at"]),
        "register_l": first["register_l"],
        "receptions": [reception(row) for row in receptions],
    }


def alert(row: Row) -> answers.Alert:
    return {
        "id": row["alert_key"],
        "meter_key": row["meter_key"],
        "meter": row["meter"],
        "kind": row["kind"],
        "level": row["level"],
        "state": row["state"],
        "rate_lph": row["rate_lph"],
        "litres": row["litres"],
        "started_at": instant(row["started_at"]),
        "opened_at": instant(row["opened_at"]),
        "updated_at": instant(row["updated_at"]),
        "closed_at": instant(row["closed_at"]),
        "gateway": row["gateway"],
    }


def dead_letter(row: Row) -> answers.DeadLetter:
    return {
        "id": row["dead_letter_key"],
        "code": row["code"],
        "detail": row["detail"],
        "gateway": row["topic_gateway"],
        "seq": row["seq"],
        "meter": row["meter"],
        "bytes_hex": bytes(row["bytes"]).hex(),
        "received_at": instant(row["received_at"]),
        "state": row["state"],
        "attempts": row["attempts"],
        "last_attempt_at": instant(row["last_attempt_at"]),
    }


def gateway(row: Row, hours: Sequence[Row]) -> answers.Gateway:
    offset = row["clock_offset_us"]
    return {
        "id": row["id"],
        "name": row["name"],
        "administration": row["administration"],
        "agent_version": row["agent_version"],
        "last_seen_at": instant(row["last_seen_at"]),
        "clock_offset_s": None if offset is None else round(offset / 1e6, 1),
        "clock_quality": row["clock_quality"],
        "backlog": row["backlog"],
        "behind_since": instant(row["behind_since"]),
        "heard": row["heard_total"],
        "health": row["health"],
        "expected": row["expected"],
        "received": row["received"],
        "losses": row["losses"],
        "hours": [gateway_hour(one, row["expected"]) for one in hours],
    }


def gateway_hour(row: Row, expected: int | None) -> answers.GatewayHour:
    return {"from": instant(row["hour_at"]), "expected": expected, "received": row["frames"]}


def loss(row: Row) -> answers.Loss:
    return {
        "first_seq": row["first_seq"],
        "last_seq": row["last_seq"],
        "reason": row["reason"],
        "kind": row["kind"],
        "rows": row["rows"],
        "certain": row["certain"],
        "from": instant(row["from_at"]),
        "to": instant(row["to_at"]),
        "reported_at": instant(row["reported_at"]),
    }


def report(row: Row) -> answers.Report:
    return {
        "id": row["report_key"],
        "kind": row["kind"],
        "heard_at": instant(row["heard_at"]),
        "received_at": instant(row["received_at"]),
        "says": {name: held for name, held in row["payload"].items() if name != "kind"},
    }


def rejects(row: Row) -> answers.Rejects:
    return {
        "code": row["code"],
        "open": row["open"],
        "replayed": row["replayed"],
        "dismissed": row["dismissed"],
        "last_received_at": instant(row["last_received_at"]),
    }

"""What was sent, what is stored, and what it should be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import LiteralString

from cloud.kernel.platform import Platform
from decoders.decode import decode_lorawan, decode_wmbus
from decoders.drivers.registry import known_formats
from decoders.uplink import RowKind
from decoders.value import value
from edge_agent.outbox_source import Source
from field_sim.meters import HOUR_US
from field_sim.town import Town

METER_CLOCK_US = -6 * HOUR_US

Reception = tuple[str, str, int]  # gateway, meter, counter


@value
class Sent:
    """A row that an agent's SQLite committed."""

    gateway: str
    stream: bytes
    seq: int
    heard_at: int
    meter: str
    counter: int
    readings: tuple[tuple[int, int], ...]  # (µs UTC, litres); LoRaWAN only: a wM-Bus frame has none

    @property
    def reception(self) -> Reception:
        return self.gateway, self.meter, self.counter


def sent_rows(town: Town, gateway: str, outbox: Path) -> list[Sent]:
    """Read and decode every telegram an outbox holds, independently of the cloud."""
    keys = {meter.name: meter.key for meter in town.wmbus}
    formats = known_formats()
    file = Source(outbox)
    progress, rows = file.progress(), list(file.rows())
    file.close()
    sent = []
    for row in rows:
        kind, payload, radio, f_cnt = row.kind, row.payload, row.radio, row.counter
        readings: tuple[tuple[int, int], ...] = ()
        if kind == RowKind.LORAWAN:
            telegram = decode_lorawan(payload, port=row.port, f_cnt=f_cnt, dev_eui=radio)
            meter, counter = f"{radio:016X}", f_cnt
            readings = tuple((us - METER_CLOCK_US, litres) for us, litres in telegram.series)
        elif kind == RowKind.WMBUS:
            meter = f"KAW-{payload[7:3:-1].hex()}"
            counter = decode_wmbus(payload, key=keys[meter], formats=formats).counter
        else:
            continue
        sent.append(
            Sent(
                gateway=gateway,
                stream=progress.stream,
                seq=row.seq - progress.base,
                heard_at=row.heard_at,
                meter=meter,
                counter=counter,
                readings=readings,
            )
        )
    return sent


def stored_receptions(platform: Platform) -> Counter[Reception]:
    with platform.pool("metering").connection() as connection:
        rows = connection.execute(
            "SELECT g.id, n.name, r.counter FROM receptions r"
            " JOIN gateways g USING (gateway_key) JOIN meter_names n USING (meter_key)"
        ).fetchall()
    return Counter((gateway, meter, counter) for gateway, meter, counter in rows)


def stored_readings(platform: Platform) -> dict[tuple[str, int], list[int]]:
    """Return {(meter, µs UTC): registers in litres}; more than one would be a doubled reading."""
    with platform.pool("metering").connection() as connection:
        rows = connection.execute(
            "SELECT n.name, (extract(epoch FROM r.register_at) * 1000000)::bigint, r.register_l"
            " FROM readings r JOIN meter_names n USING (meter_key) WHERE r.kind = 1"
        ).fetchall()
    readings: dict[tuple[str, int], list[int]] = {}
    for meter, at_us, litres in rows:
        readings.setdefault((meter, at_us), []).append(litres)
    return readings


def count(platform: Platform, query: LiteralString) -> int:
    with platform.pool("metering").connection() as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


@dataclass
class Verdict:
    """The counts a soak prints; it holds when everything that must be zero is."""

    counts: dict[str, int] = field(default_factory=dict)
    must_be_zero: dict[str, int] = field(default_factory=dict)
    must_be_some: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return not any(self.must_be_zero.values()) and all(self.must_be_some.values())


def judge(town: Town, platform: Platform, sent: Iterable[Sent], verdict: Verdict) -> None:
    """Compare what was sent with what is stored, and what is stored with the true registers."""
    rows = list(sent)
    stored = stored_receptions(platform)
    readings = stored_readings(platform)
    expected = {(row.meter, at) for row in rows for at, _ in row.readings}
    verdict.counts |= {
        "rows sent": len(rows),
        "receptions stored": stored.total(),
        "readings stored": len(readings),
    }
    verdict.must_be_zero |= {
        "sent but not stored": len({row.reception for row in rows} - stored.keys()),
        "readings missing": len(expected - readings.keys()),
        "readings doubled": sum(len(values) > 1 for values in readings.values()),
        "readings wrong": wrong(town, readings),
        "conflicts": count(platform, "SELECT count(*) FROM reading_conflicts"),
        "rejected rows": count(platform, "SELECT count(*) FROM row_dead_letters"),
    }


def wrong(town: Town, readings: Mapping[tuple[str, int], list[int]]) -> int:
    """Count readings that differ from what the meter's register truly was."""
    truth = true_registers(town)
    return sum(
        any(litres != truth(meter, at_us) for litres in values)
        for (meter, at_us), values in readings.items()
    )


def true_registers(town: Town) -> Callable[[str, int], int]:
    """Return the function of (meter, µs UTC) that gives its true register in litres."""
    lorawan = {f"{meter.dev_eui:016X}": meter.household for meter in town.lorawan}
    wmbus = {meter.name: meter for meter in town.wmbus}

    def truth(meter: str, at_us: int) -> int:
        if meter in lorawan:
            return town.households.register_at(lorawan[meter], at_us)
        # in history one telegram an hour, in the first sixteen seconds of it
        own = wmbus[meter]
        return town.households.register_at(own.household, at_us + own.phase_us)

    return truth

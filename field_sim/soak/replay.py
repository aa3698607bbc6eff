"""A clean replay: the same raw batches through the production code into an empty database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import LiteralString

import psycopg
from psycopg import sql

from cloud import app, flow
from cloud.kernel.db import Database
from cloud.kernel.platform import Platform
from cloud.kernel.postgres_bus import PostgresBus
from cloud.metering.registry import NewMeter
from cloud.metering.service import Metering

DATABASE = "replay"
BATCHES = (
    "SELECT encode(b.sha256, 'hex'), g.id, (extract(epoch FROM b.received_at) * 1000000)::bigint"
    " FROM batches b JOIN gateways g USING (gateway_key) ORDER BY b.batch_key"
)
# context, what to compare: whatever does not depend on when a batch came or on surrogate keys
PROJECTIONS: Sequence[tuple[str, LiteralString]] = (
    (
        "metering",
        "SELECT n.name, r.register_at, r.kind, r.register_l"
        " FROM readings r JOIN meter_names n USING (meter_key)",
    ),
    (
        "metering",
        "SELECT n.name, d.day_on, d.first_at, d.first_register_l, d.next_at, d.next_register_l,"
        " d.readings FROM readings_daily d JOIN meter_names n USING (meter_key)",
    ),
    (
        "metering",
        "SELECT n.name, a.kind, a.level, a.state, a.started_at"
        " FROM alerts a JOIN meter_names n USING (meter_key)",
    ),
    ("operations", "SELECT sum(readings)::bigint FROM recorded_hours"),
    ("operations", "SELECT kind, level, state, count(*) FROM alert_feed GROUP BY 1, 2, 3"),
)


def rows_of(platform: Platform, context: str, query: LiteralString) -> Counter[Hashable]:
    with platform.pool(context).connection() as connection:
        return Counter(connection.execute(query).fetchall())


def replayed(platform: Platform, meters: Sequence[NewMeter]) -> Platform:
    """Return a platform on an empty database that took the same batches; close its pools."""
    admin = platform.database.admin_dsn
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
    dsn = psycopg.conninfo.make_conninfo(admin, dbname=DATABASE)
    database = Database(dsn, platform.database.passwords_path)
    database.migrate(app.CONTEXTS)
    clean = app.assemble(platform.settings, database)
    with platform.pool("metering").connection() as connection:
        batches = connection.execute(BATCHES).fetchall()
    with Metering.on(platform) as live, Metering.on(clean) as service:
        service.register_gateways(platform.settings.gateways)
        service.import_meters(meters)
        for digest, gateway, received_at in batches:
            believed = live.batch_offset(digest)
            service.ingest(platform.blobs.get(digest), gateway, received_at, believed=believed)
    bus = PostgresBus(database, clean.blobs, sources=flow.SOURCES)
    while bus.run_once(flow.subscriptions(clean)):
        pass
    return clean


def differences(live: Platform, clean: Platform) -> dict[str, int]:
    """Return {projection: rows that only one of the two has}."""
    found = {}
    for context, query in PROJECTIONS:
        left, right = rows_of(live, context, query), rows_of(clean, context, query)
        name = query.partition(" FROM ")[2].split()[0]
        found[f"{name} unlike the replay"] = ((left - right) + (right - left)).total()
    return found

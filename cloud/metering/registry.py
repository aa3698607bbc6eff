"""Meters, their names, keys and compact formats, as intake needs them: found fast, minted late.

A `Registry` belongs to one worker and remembers what it read. `registry_version` moves on with
every change made elsewhere, so a stale memory lasts one batch at most.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import psycopg

from cloud.kernel.config import CST_OFFSET_S, Administration
from cloud.kernel.keyvault import KeyVault, Wrapped
from cloud.metering.layout_store import PostgresLayouts
from cloud.metering.model import Gateway
from decoders.drivers.registry import known_formats
from decoders.value import value

Connection = psycopg.Connection[Any]

KEYS_TRIED_MAX = 4  # of one meter: keys change rarely, and each one tried costs a decryption
REMEMBERED_MAX = 500_000  # meters a worker keeps in memory: about 100 bytes each


@value
class Meter:
    """What intake needs of a meter."""

    meter_key: int
    administration: str
    clock_offset_s: int  # its own, else its administration's
    max_flow_lph: int
    keys: tuple[bytes, ...]  # radio keys, newest first; a backlog may need an older one
    key_versions: tuple[int, ...]  # of `keys`
    numbers: bytes  # packed as NUMBERS: a batch's meters become columns at once


NUMBERS = struct.Struct(f"={3 + KEYS_TRIED_MAX}q")
"""`Meter.numbers`: meter key, clock offset in s, most l/h, key versions newest first."""

NOBODY = NUMBERS.pack(0, 0, 1, *[0] * KEYS_TRIED_MAX)
"""The numbers of a meter that nobody knows."""


@value
class NewMeter:
    """A meter or a key to import: one JSON line of `aquacis meters import` (see `importing`)."""

    name: str
    administration: str
    key: bytes | None = None
    dev_eui: str | None = None
    clock_offset_s: int | None = None


class Registry:
    """What one worker knows of the meters it hears."""

    def __init__(self, vault: KeyVault, administrations: Sequence[Administration]) -> None:
        self._vault = vault
        self._administrations = tuple(administrations)
        self._meters: dict[str, Meter] = {}
        self._newest: dict[str, bytes] = {}
        self._unknown: set[str] = set()
        self._stored: frozenset[bytes] = frozenset()  # layouts
        self._version = 0
        self._connection: Connection | None = None
        self.formats = known_formats()

    def use(self, connection: Connection) -> None:
        """Look up keys through this connection from now on."""
        self._connection = connection

    def refresh(self, connection: Connection) -> None:
        """Forget everything when anything changed since it was read."""
        version = _one(connection.execute("SELECT version FROM registry_version"))
        if version == self._version:
            return
        self.forget()
        self._stored = frozenset(PostgresLayouts(connection).believed())
        for layout in self._stored:
            self.formats.learn(layout)
        self._version = version

    def forget(self) -> None:
        """Forget everything: after a rollback nobody knows what was true."""
        self._forget_meters()
        self._stored = frozenset()
        self.formats = known_formats()
        self._version = 0

    @property
    def meters(self) -> Mapping[str, Meter]:
        """The meters that `find` has found, by name."""
        return self._meters

    def unknown_among(self, layouts: Iterable[tuple[bytes, int]]) -> tuple[tuple[bytes, int], ...]:
        """Return those of (layout, row) that are not stored yet, as far as is remembered."""
        return tuple(each for each in layouts if each[0] not in self._stored)

    @property
    def newest_keys(self) -> Mapping[str, bytes]:
        """The newest radio key of each meter that `find` has found and that has one, by name."""
        return self._newest

    def keys(self, name: str) -> tuple[bytes, ...]:
        """Return a meter's radio keys, newest first; none when there is none or no such meter."""
        if name not in self._meters and self._connection is not None:
            self.find(self._connection, [name])
        meter = self._meters.get(name)
        return () if meter is None else meter.keys

    def find(self, connection: Connection, names: Iterable[str]) -> None:
        """Read the meters of these names that are not remembered yet."""
        wanted = names if isinstance(names, set) else set(names)
        missing = wanted.difference(self._meters).difference(self._unknown)
        if len(self._meters) + len(self._unknown) + len(missing) > REMEMBERED_MAX:
            self._forget_meters()
            missing = wanted  # also those that were just forgotten: the caller needs them all
        if missing:
            self._read(connection, missing)

    def _forget_meters(self) -> None:
        self._meters.clear()
        self._newest.clear()
        self._unknown.clear()

    def _read(self, connection: Connection, missing: set[str]) -> None:
        rows = connection.execute(
            """SELECT n.name, m.meter_key, m.administration, m.clock_offset_s, m.max_flow_lph,
                   k.versions, k.wrapped
               FROM meter_names n JOIN meters m USING (meter_key)
               CROSS JOIN LATERAL (SELECT array_agg(version ORDER BY version DESC) AS versions,
                       array_agg(wrapped ORDER BY version DESC) AS wrapped
                   FROM (SELECT version, wrapped FROM meter_keys WHERE meter_key = m.meter_key
                         ORDER BY version DESC LIMIT %s) newest) k
               WHERE n.name = ANY (%s)""",
            [KEYS_TRIED_MAX, list(missing)],
        )
        for name, meter_key, administration, own_s, max_flow_lph, versions, wrapped in rows:
            offset_s = clock_offset_s(own_s, administration, self._administrations)
            held = tuple(versions or ())
            padding = [0] * (KEYS_TRIED_MAX - len(held))
            self._meters[name] = meter = Meter(
                meter_key=meter_key,
                administration=administration,
                clock_offset_s=offset_s,
                max_flow_lph=max_flow_lph,
                keys=tuple(
                    self._unwrapped(meter_key, version, sealed)
                    for version, sealed in zip(held, wrapped or (), strict=True)
                ),
                key_versions=held,
                numbers=NUMBERS.pack(meter_key, offset_s, max_flow_lph, *held, *padding),
            )
            if meter.keys:
                self._newest[name] = meter.keys[0]
        self._unknown |= missing - self._meters.keys()

    def mint(
        self, connection: Connection, names: Iterable[str], *, gateway: Gateway, now_us: int
    ) -> int:
        """Make provisional meters for names heard for the first time; return how many.

        They get the administration of the gateway that heard them. The caller commits before it
        locks anything else, so that two workers that hear the same new meters wait for each
        other instead of deadlocking.
        """
        new = sorted({name for name in names if name not in self._meters})
        if new:
            mint(connection, new, administration=gateway.administration, now_us=now_us)
            self._unknown -= set(new)
            self._read(connection, set(new))
        return len(new)

    def _unwrapped(self, meter_key: int, version: int, wrapped: bytes) -> bytes:
        aad = key_aad(meter_key, version)
        return self._vault.unwrap(Wrapped.from_bytes(wrapped), aad)


def clock_offset_s(
    own_s: int | None, administration: str, administrations: Iterable[Administration]
) -> int:
    """Return what a meter's clock shows, minus UTC: its own setting, else its administration's.

    The one place that says so: whoever reads a meter's clock and whoever explains it must agree.
    """
    if own_s is not None:
        return own_s
    for each in administrations:
        if each.code == administration:
            return each.meter_clock_offset_s
    return CST_OFFSET_S


def key_aad(meter_key: int, version: int) -> bytes:
    """Return what a wrapped meter key is bound to."""
    return f"metering.meter_keys:{meter_key}:{version}".encode()


def parts_of(name: str) -> tuple[str | None, str | None, str | None]:
    """Return (manufacturer, serial, dev_eui) of a natural id.

    >>> parts_of("KAW-53885758"), parts_of("0013EA0001020304")
    (('KAW', '53885758', None), (None, None, '0013EA0001020304'))
    """
    manufacturer, dash, serial = name.partition("-")
    return (manufacturer, serial, None) if dash else (None, None, name)


def lock_registry(connection: Connection) -> None:
    """Wait for whoever is making meters, and be alone in it until the transaction ends."""
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('metering.mint', 1))")


def mint(
    connection: Connection,
    names: Sequence[str],
    *,
    administration: str,
    now_us: int,
    provisional: bool = True,
) -> None:
    """Make meters for those of the names that have none, in the open transaction.

    One at a time in the whole database: a second worker that heard the same new meters waits
    here, and then finds the first one's.
    """
    lock_registry(connection)
    parts = [parts_of(name) for name in names]
    connection.execute(
        """WITH fresh AS (
               INSERT INTO meters (manufacturer, serial, dev_eui, administration, provisional,
                   created_at)
               SELECT g.manufacturer, g.serial, g.dev_eui, %s, %s, to_timestamp(%s / 1e6)
               FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[])
                   AS g (name, manufacturer, serial, dev_eui)
               WHERE NOT EXISTS (SELECT FROM meter_names n WHERE n.name = g.name)
               RETURNING meter_key, coalesce(dev_eui, manufacturer || '-' || serial) AS name),
           named AS (
               INSERT INTO meter_names (name, meter_key) SELECT name, meter_key FROM fresh)
           INSERT INTO meter_state (meter_key) SELECT meter_key FROM fresh""",
        [
            administration,
            provisional,
            now_us,
            list(names),
            *(list(column) for column in zip(*parts, strict=True)),
        ],
    )


def add_key(
    connection: Connection, meter_key: int, key: bytes, *, vault: KeyVault, now_us: int
) -> bool:
    """Add a radio key as the meter's newest version, unless it is that already."""
    newest = connection.execute(
        """SELECT version, wrapped FROM meter_keys WHERE meter_key = %s
           ORDER BY version DESC LIMIT 1""",
        [meter_key],
    ).fetchone()
    version = 1
    if newest is not None:
        version = newest[0] + 1
        held = vault.unwrap(Wrapped.from_bytes(newest[1]), key_aad(meter_key, newest[0]))
        if held == key:
            return False
    wrapped = vault.wrap(key, key_aad(meter_key, version)).to_bytes()
    connection.execute(
        "INSERT INTO meter_keys VALUES (%s, %s, %s, to_timestamp(%s / 1e6))",
        [meter_key, version, wrapped, now_us],
    )
    return True


def rewrap_keys(connection: Connection, *, vault: KeyVault) -> int:
    """Wrap every radio key under the vault's newest version; return how many were not yet."""
    rows = connection.execute(
        "SELECT meter_key, version, wrapped FROM meter_keys ORDER BY meter_key, version FOR UPDATE"
    ).fetchall()
    changed = 0
    for meter_key, version, wrapped in rows:
        old = Wrapped.from_bytes(wrapped)
        new = vault.rewrap(old, key_aad(meter_key, version))
        if new != old:
            connection.execute(
                "UPDATE meter_keys SET wrapped = %s WHERE meter_key = %s AND version = %s",
                [new.to_bytes(), meter_key, version],
            )
            changed += 1
    touch(connection)
    return changed


def touch(connection: Connection) -> None:
    """Tell every worker that the registry changed."""
    connection.execute("UPDATE registry_version SET version = version + 1")


def _one(cursor: psycopg.Cursor[Any]) -> Any:  # noqa: ANN401  a column of any type
    row = cursor.fetchone()
    assert row is not None
    return row[0]

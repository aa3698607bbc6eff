"""Meters that the utility declares: made, adopted, joined under their names, or refused.

A meter may be heard before it is declared, under its serial or under its DevEUI: then it exists
already, with readings. Declaring both names joins what is known under each, as long as only one
of them has readings: which readings are whose cannot be told afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import psycopg

from cloud.kernel.config import Administration
from cloud.kernel.keyvault import KeyVault, Wrapped
from cloud.metering.alerts import NATURAL_ID
from cloud.metering.registry import (
    NewMeter,
    add_key,
    clock_offset_s,
    key_aad,
    lock_registry,
    mint,
    parts_of,
    touch,
)
from decoders.value import value

Connection = psycopg.Connection[Any]

DEV_EUI = re.compile(r"[0-9A-F]{16}")
KEY_BYTES = 16
OFFSET_MAX_S = 14 * 3600  # no zone of the world is further from UTC


class MeterRefused(Exception):
    """A meter cannot be imported; nothing was. The message is for people, with a code.

    index   of the meter among those given
    """

    def __init__(self, index: int, code: str, message: str) -> None:
        super().__init__(message)
        self.index = index
        self.code = code


@value
class Known:
    """A meter that the registry has under one of the names of a meter to import."""

    meter_key: int
    administration: str
    own_offset_s: int | None
    serial_name: str | None  # by which it may turn out to be another meter
    has_readings: bool
    has_data: bool  # readings, receptions or alerts point to it


def checked(meter: NewMeter, index: int = 0) -> NewMeter:
    """Return the meter with its names in upper case. Raises MeterRefused for what is no name."""
    name = meter.name.strip().upper()
    dev_eui = None if meter.dev_eui is None else meter.dev_eui.strip().upper()
    if not NATURAL_ID.fullmatch(name):
        raise MeterRefused(
            index,
            "meter_name_invalid",
            f"«{meter.name}» no es un medidor: se espera fabricante y serie, como KAW-53885758, "
            "o un DevEUI de 16 dígitos hexadecimales",
        )
    if dev_eui is not None and not DEV_EUI.fullmatch(dev_eui):
        raise MeterRefused(
            index,
            "dev_eui_invalid",
            f"«{meter.dev_eui}» no es un DevEUI: deben ser 16 dígitos hexadecimales",
        )
    if meter.key is not None and len(meter.key) != KEY_BYTES:
        raise MeterRefused(index, "key_length", "la clave debe tener 32 dígitos hexadecimales")
    if meter.clock_offset_s is not None and abs(meter.clock_offset_s) > OFFSET_MAX_S:
        raise MeterRefused(
            index,
            "clock_offset_invalid",
            f"clock_offset_s son segundos respecto a UTC, de −{OFFSET_MAX_S} a {OFFSET_MAX_S}",
        )
    return replace(meter, name=name, dev_eui=dev_eui)


def import_meters(
    connection: Connection,
    meters: Sequence[NewMeter],
    *,
    vault: KeyVault,
    now_us: int,
    administrations: Sequence[Administration] = (),
) -> tuple[int, int]:
    """Register meters and keys in the open transaction; return how many meters and keys are new.

    A meter that intake minted is adopted: it keeps its key and readings. A key equal to the newest
    one is not a new version. The same meter's DevEUI becomes a second name of it.
    Raises MeterRefused: the caller rolls back.
    """
    lock_registry(connection)
    right = [checked(meter, index) for index, meter in enumerate(meters)]
    known = _keys_of(connection, [name for meter in right for name in _names(meter)])
    _lock_contested(connection, right, known)
    fresh = [meter for meter in right if not any(name in known for name in _names(meter))]
    for administration in sorted({meter.administration for meter in fresh}):
        mint(
            connection,
            sorted({m.name for m in fresh if m.administration == administration}),
            administration=administration,
            now_us=now_us,
            provisional=False,
        )
    new_keys = 0
    for index, meter in enumerate(right):
        importer = _Importer(
            connection=connection,
            vault=vault,
            now_us=now_us,
            administrations=tuple(administrations),
            index=index,
            meter=meter,
        )
        meter_key = importer.register()
        if meter.key is not None:
            new_keys += add_key(connection, meter_key, meter.key, vault=vault, now_us=now_us)
    touch(connection)
    return len({meter.name for meter in fresh}), new_keys


def _names(meter: NewMeter) -> tuple[str, ...]:
    return (meter.name,) if meter.dev_eui is None else (meter.name, meter.dev_eui)


def _keys_of(connection: Connection, names: Sequence[str]) -> dict[str, int]:
    rows = connection.execute(
        "SELECT name, meter_key FROM meter_names WHERE name = ANY (%s)", [list(names)]
    )
    return dict(rows.fetchall())


def _lock_contested(
    connection: Connection, meters: Sequence[NewMeter], known: Mapping[str, int]
) -> None:
    """Keep readings from being added, until we commit, to meters that may be joined or moved in
    time. In the order of every writer, so that nobody waits in a circle.
    """
    contested: set[int] = set()
    for meter in meters:
        keys = {known[name] for name in _names(meter) if name in known}
        if len(keys) > 1 or meter.clock_offset_s is not None:
            contested |= keys
    connection.execute(
        """SELECT FROM meter_state WHERE meter_key = ANY (%s) ORDER BY meter_key
           FOR NO KEY UPDATE""",
        [sorted(contested)],
    )


@value
class _Importer:
    """One meter on its way into the registry."""

    connection: Connection
    vault: KeyVault
    now_us: int
    administrations: tuple[Administration, ...]
    index: int
    meter: NewMeter

    def register(self) -> int:
        """Give the meter all its names and settings; return its key. It exists under one name."""
        meter = self.meter
        named = self._known(meter.name)
        radio = None if meter.dev_eui in {None, meter.name} else self._known(str(meter.dev_eui))
        if named is not None and radio is not None and named.meter_key != radio.meter_key:
            return self._merge(named, radio)
        one = named or radio
        assert one is not None, "those with no name known were made"
        self._require_not_another(radio)
        own_s = one.own_offset_s if meter.clock_offset_s is None else meter.clock_offset_s
        self._adopt(one, own_s)
        return one.meter_key

    def _known(self, name: str) -> Known | None:
        row = self.connection.execute(
            """SELECT m.meter_key, m.administration, m.clock_offset_s,
                   (SELECT min(n.name) FROM meter_names n
                    WHERE n.meter_key = m.meter_key AND n.name LIKE '___-%%'),
                   s.last_at IS NOT NULL,
                   s.last_at IS NOT NULL OR s.last_heard_at IS NOT NULL
                   OR EXISTS (SELECT FROM alerts a WHERE a.meter_key = m.meter_key)
               FROM meters m JOIN meter_state s USING (meter_key)
               WHERE m.meter_key = (SELECT meter_key FROM meter_names WHERE name = %s)""",
            [name],
        ).fetchone()
        if row is None:
            return None
        meter_key, administration, own_offset_s, serial_name, has_readings, has_data = row
        return Known(
            meter_key=meter_key,
            administration=administration,
            own_offset_s=own_offset_s,
            serial_name=serial_name,
            has_readings=has_readings,
            has_data=has_data,
        )

    def _require_not_another(self, radio: Known | None) -> None:
        """The DevEUI may be known alone, or as this meter's: never as another serial's."""
        if radio is not None and radio.serial_name not in {None, self.meter.name}:
            raise self._taken(f"ya es del medidor {radio.serial_name}")

    def _taken(self, why: str) -> MeterRefused:
        return MeterRefused(
            self.index, "dev_eui_taken", f"{self.meter.name}: el DevEUI {self.meter.dev_eui} {why}"
        )

    def _merge(self, named: Known, radio: Known) -> int:
        """Make one meter of two; the one that readings point to stays. Returns its key."""
        self._require_not_another(radio)
        if named.has_data and radio.has_data:
            raise self._taken(
                "ya tiene lecturas propias y este medidor también: no se pueden juntar"
            )
        stays, goes = (radio, named) if radio.has_data else (named, radio)
        own_s = self.meter.clock_offset_s
        if own_s is None:
            own_s = stays.own_offset_s if stays.own_offset_s is not None else goes.own_offset_s
        execute = self.connection.execute
        self._move_keys(goes.meter_key, stays.meter_key)
        moved = [stays.meter_key, goes.meter_key]
        execute("UPDATE meter_names SET meter_key = %s WHERE meter_key = %s", moved)
        execute("DELETE FROM meter_state WHERE meter_key = %s", [goes.meter_key])
        execute("DELETE FROM meters WHERE meter_key = %s", [goes.meter_key])
        self._adopt(stays, own_s)
        return stays.meter_key

    def _move_keys(self, from_key: int, to_key: int) -> None:
        """Keys are bound to their meter: each is opened and sealed again, oldest first."""
        rows = self.connection.execute(
            "DELETE FROM meter_keys WHERE meter_key = %s RETURNING version, wrapped", [from_key]
        ).fetchall()
        for version, wrapped in sorted(rows):
            plain = self.vault.unwrap(Wrapped.from_bytes(wrapped), key_aad(from_key, version))
            add_key(self.connection, to_key, plain, vault=self.vault, now_us=self.now_us)

    def _adopt(self, one: Known, own_s: int | None) -> None:
        """Write what is declared. Raises MeterRefused when it would move readings in time."""
        meter = self.meter
        before = clock_offset_s(one.own_offset_s, one.administration, self.administrations)
        after = clock_offset_s(own_s, meter.administration, self.administrations)
        if before != after and one.has_readings:
            raise MeterRefused(
                self.index,
                "offset_has_readings",
                f"{meter.name} ya tiene lecturas con su reloj a {before} s de UTC: con {after} s "
                "se guardarían otra vez en otras horas",
            )
        manufacturer, serial, dev_eui = parts_of(meter.name)
        self.connection.execute(
            """UPDATE meters SET administration = %s, provisional = false, clock_offset_s = %s,
                   manufacturer = coalesce(%s, manufacturer), serial = coalesce(%s, serial),
                   dev_eui = coalesce(%s, dev_eui)
               WHERE meter_key = %s""",
            [
                meter.administration,
                own_s,
                manufacturer,
                serial,
                meter.dev_eui or dev_eui,
                one.meter_key,
            ],
        )
        names = [name for name in {meter.name, meter.dev_eui} if name is not None]
        self.connection.execute(
            """INSERT INTO meter_names (name, meter_key) SELECT name, %s
               FROM unnest(%s::text[]) AS name ON CONFLICT DO NOTHING""",
            [one.meter_key, names],
        )

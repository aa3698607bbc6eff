"""The keys that a gateway was given, in memory, and the lines they are given as.

A gateway holds the keys of the meters assigned to it and no others. On its disk they are sealed
(`keys_sealed`); they come as JSON lines, readable by their owner alone:

    {"meter": "KAW-53885758", "key_hex": "28F6…", "version": 2}          version: 1 where absent
    {"meter": "0013EA0001020304", "lorawan": {"version": "1.0", "app_key": "…",
        "dev_addr": "01AB23CD", "app_s_key": "…", "nwk_s_key": "…", "f_cnt_up": 70000}}

A key never appears in a log, a message or an error, and no `repr` shows one.
"""

from __future__ import annotations

import json
import stat
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import Any, Final

from decoders.ids import MeterId
from decoders.value import value

KEY_BYTES: Final = 16
ADDRESS_BYTES: Final = 6  # M(2) ID(4): a meter keeps its key when version or medium is misread
MAX_KEYS: Final = 100_000
MAX_VERSIONS: Final = 4  # of one meter's key: the newest is tried first, then up to three older
MAX_VERSION: Final = 0xFFFF
LORAWAN_KEYS: Final = frozenset(
    ("app_s_key", "nwk_s_key", "s_nwk_s_int_key", "nwk_s_enc_key", "app_key", "nwk_key")
)


class KeyFileUnusable(Exception):
    """Keys cannot be trusted, read or taken. `code` is for machines."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code


@value
class LorawanKeys:
    """What opens one LoRaWAN meter's uplinks: a session, the root keys of the next, or both.

    version     "1.0" or "1.1" of LoRaWAN
    f_cnt_up    the next 32-bit counter that the server expected when the keys were given
    nwk_s_key   1.0's, and 1.1's FNwkSIntKey
    """

    dev_eui: int
    version: str = "1.0"
    dev_addr: int | None = None
    f_cnt_up: int | None = None
    app_s_key: bytes | None = field(default=None, repr=False)
    nwk_s_key: bytes | None = field(default=None, repr=False)
    s_nwk_s_int_key: bytes | None = field(default=None, repr=False)
    nwk_s_enc_key: bytes | None = field(default=None, repr=False)
    app_key: bytes | None = field(default=None, repr=False)
    nwk_key: bytes | None = field(default=None, repr=False)


class MeterKeys(Mapping[bytes, "tuple[bytes, ...]"]):
    """Address M(2) ID(4), as on the air → a wM-Bus meter's AES keys, newest version first.

    Packed: the keys of 4,000 meters live as long as the agent, and as a dict of bytes they take
    ten times as much.
    """

    __slots__ = ("_addresses", "_keys", "_starts")

    def __init__(self, keys: Mapping[bytes, tuple[bytes, ...]] | None = None) -> None:
        ordered = sorted((keys or {}).items())
        self._pack((address, key) for address, each in ordered for key in each)

    @classmethod
    def of(cls, ordered: Iterable[tuple[bytes, bytes]]) -> MeterKeys:
        """Pack (address, key), addresses ascending, of one address the newest key first."""
        made = cls.__new__(cls)
        made._pack(ordered)
        return made

    def _pack(self, ordered: Iterable[tuple[bytes, bytes]]) -> None:
        self._addresses, self._starts, keys = array("Q"), array("L"), bytearray()
        for address, key in ordered:
            number = int.from_bytes(address, "big")
            if not self._addresses or self._addresses[-1] != number:
                self._addresses.append(number)
                self._starts.append(len(keys))
            keys += key
        self._starts.append(len(keys))
        self._keys = bytes(keys)

    def __getitem__(self, address: bytes) -> tuple[bytes, ...]:
        number = int.from_bytes(address, "big")
        place = bisect_left(self._addresses, number)
        if place == len(self._addresses) or self._addresses[place] != number:
            raise KeyError(address)
        start, end, keys = self._starts[place], self._starts[place + 1], self._keys
        return tuple([keys[at : at + KEY_BYTES] for at in range(start, end, KEY_BYTES)])

    def __iter__(self) -> Iterator[bytes]:
        return (number.to_bytes(ADDRESS_BYTES, "big") for number in self._addresses)

    def __len__(self) -> int:
        return len(self._addresses)

    def __repr__(self) -> str:
        return f"MeterKeys({len(self)} meters)"


@value
class Given:
    """Keys by meter, as lines give them and as the sealed file holds them.

    assigned   natural ids of the meters whose keys this gateway may hold
    meters     natural id of a wM-Bus meter → {version: key}
    lorawan    DevEUI in hex → its keys
    """

    assigned: frozenset[str] = frozenset()
    meters: Mapping[str, Mapping[int, bytes]] = field(default_factory=dict, repr=False)
    lorawan: Mapping[str, LorawanKeys] = field(default_factory=dict, repr=False)

    @property
    def names(self) -> frozenset[str]:
        """The meters that there are keys of."""
        return frozenset((*self.meters, *self.lorawan))

    def only(self, names: frozenset[str]) -> Given:
        """Return the keys of `names` alone."""
        return replace(
            self,
            meters={name: keys for name, keys in self.meters.items() if name in names},
            lorawan={name: keys for name, keys in self.lorawan.items() if name in names},
        )


@value
class GatewayKeys:
    """What the running agent holds.

    withheld   meters whose keys the file has and the setting `meters` does not name
    """

    meters: MeterKeys = field(default_factory=MeterKeys)
    lorawan: Mapping[str, LorawanKeys] = field(default_factory=dict)
    sealed: bool = False
    withheld: int = 0

    def said(self) -> dict[str, int | bool]:
        """Return what a log may say of them."""
        return {
            "sealed": self.sealed,
            "meters": len(self.meters),
            "lorawan": len(self.lorawan),
            "withheld": self.withheld,
        }


def held(given: Given, *, only: frozenset[str] | None, sealed: bool) -> GatewayKeys:
    """Return the keys that an agent holds whose setting `meters` is `only`."""
    kept = given if only is None else given.only(only)
    newest_first = {
        address_of(name): tuple(keys[version] for version in sorted(keys, reverse=True))
        for name, keys in kept.meters.items()
    }
    return GatewayKeys(
        meters=MeterKeys(newest_first),
        lorawan=dict(kept.lorawan),
        sealed=sealed,
        withheld=len(given.names) - len(kept.names),
    )


def read_lines(path: Path, *, newer: Mapping[str, int] | None = None) -> Given:
    """Read JSON lines. Raises KeyFileUnusable, which names the line and not its key.

    newer   the version that a line without one stands for, by meter; 1 where it is not named
    """
    try:
        mode = path.stat().st_mode
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileUnusable("keys_unreadable", f"{path}: {type(error).__name__}") from None
    if stat.S_IMODE(mode) & 0o077:
        raise KeyFileUnusable("keys_exposed", f"{path}: others can read it; chmod 600")
    return given_by(text, str(path), newer=newer or {})


def read_keys(path: Path) -> MeterKeys:
    """Read a plain file's wM-Bus keys. Raises KeyFileUnusable."""
    return held(read_lines(path), only=None, sealed=False).meters


def given_by(text: str, where: str, *, newer: Mapping[str, int]) -> Given:
    """Return what lines give. Raises KeyFileUnusable."""
    meters: dict[str, dict[int, bytes]] = {}
    lorawan: dict[str, LorawanKeys] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        at = f"{where}:{number}"
        if number > MAX_KEYS:
            raise KeyFileUnusable(
                "keys_too_many", f"{at}: at most {MAX_KEYS} keys belong on a gateway"
            )
        name, version, key = _line(line, at, newer)
        if isinstance(key, LorawanKeys):
            lorawan[name] = key
        elif meters.setdefault(name, {}).setdefault(version, key) != key:
            raise KeyFileUnusable(
                "keys_version_taken", f"{at}: another key has version {version} of {name}"
            )
    return Given(meters=meters, lorawan=lorawan)


def address_of(natural_id: str) -> bytes:
    """Return M(2) ID(4) as on the air of "KAW-53885758". Raises ValueError.

    >>> address_of("KAW-53885758").hex()
    '372c58578853'
    """
    manufacturer, _, serial = natural_id.partition("-")
    if len(manufacturer) != 3 or not manufacturer.isalpha() or len(serial) != 8:
        raise ValueError(f"{natural_id!r}: a meter is named like KAW-53885758")
    meter = MeterId(manufacturer=manufacturer.upper(), serial=serial, version=0, medium=0)
    return meter.to_wire()[:ADDRESS_BYTES]


def natural_id_of(address: bytes) -> str:
    """Return the natural id of M(2) ID(4).

    >>> natural_id_of(bytes.fromhex("372c58578853"))
    'KAW-53885758'
    """
    return str(MeterId.from_wire(address + bytes(2)))


def lorawan_keys(name: str, said: Mapping[str, Any]) -> LorawanKeys:
    """Read one meter's LoRaWAN keys. Raises ValueError, TypeError or KeyError."""
    unknown = set(said) - LORAWAN_KEYS - {"version", "dev_addr", "f_cnt_up"}
    version = said.get("version", "1.0")
    counter = said.get("f_cnt_up")
    known = {n: bytes.fromhex(said[n]) for n in LORAWAN_KEYS & set(said)}
    wrong = [key for key in known.values() if len(key) != KEY_BYTES]
    if unknown or wrong or not known or version not in {"1.0", "1.1"}:
        raise ValueError("no LoRaWAN keys")
    if counter is not None and not 0 <= int(counter) <= 0xFFFFFFFF:
        raise ValueError("no 32-bit counter")
    return LorawanKeys(
        dev_eui=dev_eui_of(name),
        version=version,
        dev_addr=None if said.get("dev_addr") is None else _dev_addr(said["dev_addr"]),
        f_cnt_up=None if counter is None else int(counter),
        **known,
    )


def lorawan_said(keys: LorawanKeys) -> dict[str, str | int]:
    """Return LoRaWAN keys as a line says them."""
    said: dict[str, str | int] = {"version": keys.version}
    if keys.dev_addr is not None:
        said["dev_addr"] = f"{keys.dev_addr:08X}"
    if keys.f_cnt_up is not None:
        said["f_cnt_up"] = keys.f_cnt_up
    for name in sorted(LORAWAN_KEYS):
        key: bytes | None = getattr(keys, name)
        if key is not None:
            said[name] = key.hex()
    return said


def dev_eui_of(natural_id: str) -> int:
    """Return a DevEUI written as 16 hex digits. Raises ValueError."""
    if len(natural_id) != 16:
        raise ValueError(f"{natural_id!r}: a LoRaWAN meter is named by 16 hex digits")
    return int.from_bytes(bytes.fromhex(natural_id), "big")


def _dev_addr(said: str) -> int:
    if len(said) != 8:
        raise ValueError("a DevAddr has 8 hex digits")
    return int.from_bytes(bytes.fromhex(said), "big")


def _line(line: str, where: str, newer: Mapping[str, int]) -> tuple[str, int, bytes | LorawanKeys]:
    """Return meter, version and key of a line. Raises KeyFileUnusable."""
    try:
        said: Mapping[str, Any] = json.loads(line)
        name = str(said["meter"]).upper()
        if "lorawan" in said:
            return name, 1, lorawan_keys(name, said["lorawan"])
        address_of(name)
        key = bytes.fromhex(said["key_hex"])
        version = int(said.get("version", newer.get(name, 1)))
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError):
        raise KeyFileUnusable(
            "keys_malformed",
            f'{where}: {{"meter": …, "key_hex": …}} or {{"meter": …, "lorawan": …}} is expected',
        ) from None
    if len(key) != KEY_BYTES:
        raise KeyFileUnusable("keys_malformed", f"{where}: a key has 32 hex digits")
    if not 1 <= version <= MAX_VERSION:
        raise KeyFileUnusable("keys_malformed", f"{where}: versions are 1 to {MAX_VERSION}")
    return name, version, key

"""What stands sealed in a key file, as bytes. Pure.

Four parts, each behind its length in 4 bytes, big-endian:

    keys        of wM-Bus meters: M(2) ID(4) as on the air, version (2, big-endian), AES key (16);
                addresses ascending, of one meter the newest version first
    assigned    wM-Bus meters whose keys may be here: M(2) ID(4) each
    assigned    LoRaWAN meters: DevEUI, 8 bytes each, big-endian
    lorawan     JSON {DevEUI in hex: its keys, as a line of the import says them}

An agent reads the first part straight into its packed table: as text, 4,000 meters would cost it
three megabytes that it never gets back.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Final

from edge_agent.keys import (
    ADDRESS_BYTES,
    GatewayKeys,
    Given,
    LorawanKeys,
    MeterKeys,
    address_of,
    dev_eui_of,
    lorawan_keys,
    lorawan_said,
    natural_id_of,
)

_KEY: Final = struct.Struct(">6sH16s")
_SIZE: Final = struct.Struct(">I")
_EUI_BYTES: Final = 8
_PARTS: Final = 4


def content_of(given: Given) -> bytes:
    """Return the bytes to seal."""
    keys = sorted(
        (address_of(name), -version, key)
        for name, each in given.meters.items()
        for version, key in each.items()
    )
    wmbus = sorted(address_of(name) for name in given.assigned if not _is_lorawan(name))
    lorawan = sorted(name for name in given.assigned if _is_lorawan(name))
    said = {name: lorawan_said(each) for name, each in sorted(given.lorawan.items())}
    parts = (
        b"".join(_KEY.pack(address, -version, key) for address, version, key in keys),
        b"".join(wmbus),
        b"".join(bytes.fromhex(name) for name in lorawan),
        json.dumps(said, separators=(",", ":")).encode("ascii"),
    )
    return b"".join(_SIZE.pack(len(part)) + part for part in parts)


def given_in(content: bytes) -> Given:
    """Return all that the bytes say. Raises ValueError, KeyError or TypeError."""
    keys, wmbus, euis, lorawan = _parts(content)
    meters: dict[str, dict[int, bytes]] = {}
    for address, version, key in _KEY.iter_unpack(keys):
        meters.setdefault(natural_id_of(address), {})[version] = bytes(key)
    assigned = [natural_id_of(address) for address in _cut(wmbus, ADDRESS_BYTES)]
    assigned += [eui.hex().upper() for eui in _cut(euis, _EUI_BYTES)]
    return Given(assigned=frozenset(assigned), meters=meters, lorawan=_lorawan(lorawan))


def held_in(content: bytes, *, only: frozenset[str] | None) -> GatewayKeys:
    """Return what an agent holds whose setting `meters` is `only`. Raises as `given_in`."""
    keys, _, _, said = _parts(content)
    lorawan = _lorawan(said)
    addresses = None
    if only is not None:
        addresses = {address_of(name) for name in only if not _is_lorawan(name)}
    meters = MeterKeys.of(
        (address, key)
        for address, _, key in _KEY.iter_unpack(keys)
        if addresses is None or address in addresses
    )
    kept = {name: each for name, each in lorawan.items() if only is None or name in only}
    withheld = len(lorawan) - len(kept)
    if only is not None:
        withheld += len({address for address, _, _ in _KEY.iter_unpack(keys)}) - len(meters)
    return GatewayKeys(meters=meters, lorawan=kept, sealed=True, withheld=withheld)


def _parts(content: bytes) -> list[memoryview]:
    view, parts, at = memoryview(content), [], 0
    for _ in range(_PARTS):
        if at + _SIZE.size > len(view):
            raise ValueError("a part is missing")
        (size,) = _SIZE.unpack_from(view, at)
        at += _SIZE.size
        parts.append(view[at : at + size])
        at += size
    if at != len(view):
        raise ValueError("the parts do not make the whole")
    return parts


def _cut(part: memoryview, size: int) -> Iterator[bytes]:
    return (bytes(part[at : at + size]) for at in range(0, len(part), size))


def _lorawan(part: memoryview) -> dict[str, LorawanKeys]:
    return {name: lorawan_keys(name, said) for name, said in json.loads(bytes(part)).items()}


def _is_lorawan(name: str) -> bool:
    try:
        dev_eui_of(name)
    except ValueError:
        return False
    return True

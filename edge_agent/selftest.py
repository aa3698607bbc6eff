"""`aquacis-edge selftest`: can this machine decode, decrypt, store and encode?

Each check does the real thing with known bytes. None needs the network or the settings, but with
a broker (`--broker URL`, or the one of `--config`) one more shows that it takes this gateway.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final, TextIO

from decoders import aes_gcm, uplink
from decoders.aes import BACKEND, ctr
from decoders.decode import decode_lorawan, decode_wmbus
from decoders.drivers.registry import known_formats
from edge_agent import leaks
from edge_agent.keys import Given, KeyFileUnusable
from edge_agent.keys_sealed import opened, read_sealed, sealed, write_sealed
from edge_agent.outbox import Draft, Outbox
from edge_agent.private_key import PrivateKey

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1

# Public telegram of a MULTICAL 21 with its published key: wmbusmeters, drivers/src/kamwater.xmq.
TELEGRAM: Final = bytes.fromhex(
    "2A442D2C998734761B168D2091D37CAC21E1D68CDAFFCD3DC452BD802913FF7B1706CA9E355D6C2701CC24"
)
METER: Final = "KAM-76348799"
KEY: Final = bytes.fromhex("28F64A24988064A079AA2C807D6102AE")
# Hourly profile of a flowIQ 2200: Kamstrup's example, lorawan-devices vendor/kamstrup.
PROFILE: Final = bytes.fromhex("78446D003318374413030000004D9313226101000000030000" + "00" * 26)


def run(
    *, as_json: bool, out: TextIO | None = None, broker: Callable[[], str] | None = None
) -> int:
    """Run every check and say how it went. Returns the exit code.

    broker   connects and returns how; None: that check is not asked for
    """
    results: dict[str, str] = {}
    details: dict[str, str] = {
        "aes": BACKEND.name,
        "keys": aes_gcm.BACKEND.name,
        "outbox": f"SQLite {sqlite3.sqlite_version}",
    }
    checks = dict(CHECKS)
    if broker is not None:
        checks["broker"] = lambda: details.update(broker=broker())
    for name, check in checks.items():
        try:
            check()
            results[name] = "ok"
        except Exception as error:  # a selftest says what is broken, whatever it is
            results[name] = f"{type(error).__name__}: {error}"
    failed = [name for name, result in results.items() if result != "ok"]
    if as_json:
        print(json.dumps({"ok": not failed, "checks": results, "with": details}), file=out)
    else:
        for name, result in results.items():
            print(f"{name:<10} {result:<6} {details.get(name, '')}".rstrip(), file=out)
    return EXIT_FAILED if failed else EXIT_OK


def _aes() -> None:
    """NIST SP 800-38A, F.5.1."""
    key = bytes.fromhex("2B7E151628AED2A6ABF7158809CF4F3C")
    counter = bytes.fromhex("F0F1F2F3F4F5F6F7F8F9FAFBFCFDFEFF")
    plain = bytes.fromhex("6BC1BEE22E409F96E93D7E117393172A")
    expected = bytes.fromhex("874D6191B620E3261BEF6864990DB6CE")
    _expect(ctr(key, counter, plain) == expected, "AES-CTR gives another answer")


def _wmbus() -> None:
    telegram = decode_wmbus(TELEGRAM, key=KEY, formats=known_formats())
    _expect(telegram.register_l == 6408, f"register is {telegram.register_l}, 6408 l is right")


def _lorawan() -> None:
    telegram = decode_lorawan(PROFILE, port=1, f_cnt=1, dev_eui=0x0013EA0000000001)
    _expect(telegram.register_l == 3, f"register is {telegram.register_l}, 3 l is right")


def _keys() -> None:
    """What is sealed under a private key opens with it, and with no other."""
    own, other = PrivateKey(b"selftest"), PrivateKey(b"another")
    given = Given(assigned=frozenset({METER}), meters={METER: {1: KEY}})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "keys.sealed"
        write_sealed(path, sealed(given, gateway="selftest", private_keys=[own]))
        file = read_sealed(path)
    _expect(opened(file, gateway="selftest", private_key=own) == given, "other keys come back")
    try:
        opened(file, gateway="selftest", private_key=other)
    except KeyFileUnusable:
        return
    raise RuntimeError("another private key opens them")


def _leaks() -> None:
    flow, found = leaks.feed(None, "selftest", (0, 0))
    for hour in range(1, 25):
        flow, found = leaks.feed(flow, "selftest", (hour * leaks.HOUR_US, 10 * hour))
    _expect(len(found) == 1, "25 hours of flow are not found")


def _outbox() -> None:
    with tempfile.TemporaryDirectory() as folder:
        outbox = Outbox(Path(folder) / "outbox.db", new_stream=lambda: bytes(16), now_us=0)
        drafts = [Draft(heard_at=1, kind=uplink.RowKind.WMBUS, payload=TELEGRAM)]
        outbox.append(drafts, {"m/selftest": b"state"})
        rows = outbox.read(1, rows=10, max_bytes=1000)
        outbox.close()
    _expect([row.payload for row in rows] == [TELEGRAM], "the outbox gives back other rows")
    _expect(sqlite3.sqlite_version_info >= (3, 24), f"SQLite {sqlite3.sqlite_version} is too old")


def _message() -> None:
    row = uplink.Row(seq=1, heard_at=1, kind=uplink.RowKind.WMBUS, payload=TELEGRAM)
    batch = uplink.Batch(
        gateway="selftest",
        stream=bytes(16),
        rows=uplink.pack_rows([row]),
        sent_at=1,
        started_at=1,
    )
    read = uplink.decode_batch(uplink.encode_batch(batch))
    _expect(list(read.rows) == [row], "a message comes back changed")


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise RuntimeError(otherwise)


CHECKS: Final[dict[str, Callable[[], None]]] = {
    "aes": _aes,
    "keys": _keys,
    "wmbus": _wmbus,
    "lorawan": _lorawan,
    "leaks": _leaks,
    "outbox": _outbox,
    "message": _message,
}

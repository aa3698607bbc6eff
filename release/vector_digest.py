"""One number for all that the decoders answer, to hold one machine's against another's.

    PYTHONPATH=dist/aquacis-edge.pyz python3 release/vector_digest.py tests/vectors [--libcrypto F]

Every public telegram, payload and MAC frame, each also damaged in seeded ways, and AES in all
modes; what comes out, refusals with their place included, goes into one SHA-256. Equal digests
mean equal answers. Runs on whatever runs the agent: only the decoders and the standard library.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import random
import ssl
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from decoders import aes, aes_gcm, aes_pure
from decoders.decode import decode_lorawan, decode_wmbus
from decoders.drivers.registry import known_formats
from decoders.errors import DecodeError
from decoders.formats import Formats
from decoders.lorawan import phy, security
from decoders.reading import Telegram

SEED = 8
DAMAGED = 12  # copies of each frame
AES_INPUTS = 200
DEV_EUI = 0x0013EA0001020304


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("vectors", type=Path, help="the folder tests/vectors")
    parser.add_argument("--libcrypto", metavar="FILE", help="use this library, not Python's own")
    parser.add_argument("--pure", action="store_true", help="use AES in pure Python")
    told = parser.parse_args()
    if told.libcrypto:
        aes.BACKEND = aes._Libcrypto(told.libcrypto)
        aes_gcm.BACKEND = aes_gcm._Libcrypto(told.libcrypto)
    if told.pure:
        aes.BACKEND, aes_gcm.BACKEND = aes_pure.PurePython(), aes_gcm.PurePython()
    assert aes.is_right(aes.BACKEND), "this AES gives wrong answers"
    assert aes_gcm.is_right(aes_gcm.BACKEND), "this AES-GCM gives wrong answers"
    digest, answers = hashlib.sha256(), 0
    for answer in everything(told.vectors):
        digest.update(json.dumps(answer, default=str, separators=(",", ":")).encode() + b"\n")
        answers += 1
    said = {
        "digest": digest.hexdigest(),
        "answers": answers,
        "aes": aes.BACKEND.name,
        "library": told.libcrypto and Path(told.libcrypto).name,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "openssl": ssl.OPENSSL_VERSION,
    }
    print(json.dumps(said))
    return 0


def everything(vectors: Path) -> Iterator[object]:
    """Yield all answers, always in the same order."""
    chance = random.Random(SEED)  # noqa: S311  damage, not keys
    for path in sorted((vectors / "telegrams").glob("*.json")):
        for vector in json.loads(path.read_text("utf-8"))["vectors"]:
            yield from _telegram(vector, chance)
    kamstrup = vectors / "lorawan" / "kamstrup_water.json"
    for vector in json.loads(kamstrup.read_text("utf-8"))["vectors"]:
        for payload in _copies(bytes.fromhex(vector["payload"]), chance):
            yield _tried(partial(_lorawan, payload, vector["port"]))
    for name in ("mac", "chirpstack_frames"):
        path = vectors / "lorawan" / f"{name}.json"
        for vector in json.loads(path.read_text("utf-8"))["vectors"]:
            yield from _mac(vector, chance)
    yield from _ciphers(chance)


def _telegram(vector: dict[str, Any], chance: random.Random) -> Iterator[object]:
    formats = known_formats()
    key = bytes.fromhex(vector["key"]) if vector["key"] else None
    decrypted = bool(vector.get("kept_decrypted"))
    for before in vector.get("heard_before", ()):
        taught = decode_wmbus(
            bytes.fromhex(before), key=key, formats=formats, already_decrypted=decrypted
        )
        formats.learn(taught.layout)
    for form in ("frame", "stripped", "format_a", "format_b"):
        for frame in _copies(bytes.fromhex(vector.get(form) or ""), chance):
            yield _tried(partial(_wmbus, frame, key, formats, decrypted))


def _wmbus(frame: bytes, key: bytes | None, formats: Formats, decrypted: bool) -> object:
    return _said(decode_wmbus(frame, key=key, formats=formats, already_decrypted=decrypted))


def _lorawan(payload: bytes, port: int) -> object:
    return _said(decode_lorawan(payload, port=port, f_cnt=7, dev_eui=DEV_EUI))


def _mac(vector: dict[str, Any], chance: random.Random) -> Iterator[object]:
    for frame in _copies(bytes.fromhex(vector.get("frame") or ""), chance):
        yield _tried(partial(_opened, frame, vector))


def _opened(frame: bytes, vector: dict[str, Any]) -> object:
    parsed = phy.parse_phy(frame)
    if not isinstance(parsed, phy.DataFrame) or "nwk_s_key" not in vector:
        return [type(parsed).__name__, phy.build_phy(parsed).hex()]
    session = security.session_1_0(
        nwk_s_key=bytes.fromhex(vector["nwk_s_key"]), app_s_key=bytes.fromhex(vector["app_s_key"])
    )
    return security.open_payload(parsed, session, f_cnt=vector.get("counter", 1)).hex()


def _ciphers(chance: random.Random) -> Iterator[object]:
    for _ in range(AES_INPUTS):
        key, iv = chance.randbytes(16), chance.randbytes(16)
        blocks, ragged = chance.randbytes(16 * chance.randrange(6)), chance.randbytes(47)
        yield [
            aes.ctr(key, iv, ragged).hex(),
            aes.ecb_encrypt(key, blocks).hex(),
            aes.cbc_encrypt(key, iv, blocks).hex(),
            aes.cbc_decrypt(key, iv, blocks).hex(),
            aes.cmac(key, ragged).hex(),
            aes_gcm.seal(key + iv, key[:12], ragged, beside=blocks).hex(),
        ]


def _copies(frame: bytes, chance: random.Random) -> Iterator[bytes]:
    """Yield the frame, then damaged ones: bits flipped, or cut short."""
    if not frame:
        return
    yield frame
    for number in range(DAMAGED):
        damaged = bytearray(frame)
        for _ in range(1 + number % 3):
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        yield bytes(damaged[: chance.randrange(len(damaged)) + 1] if number % 4 == 3 else damaged)


def _said(telegram: Telegram) -> object:
    fields = {name: str(given) for name, given in telegram.fields.items()}
    return [
        *(telegram.natural_id, telegram.driver, telegram.version, telegram.medium),
        *(telegram.counter, telegram.integrity.name, telegram.info_code, telegram.register_l),
        *(fields, telegram.status, telegram.series, telegram.doubts),
        *(telegram.checked.hex(), telegram.layout.hex()),
    ]


def _tried(decode: Callable[[], object]) -> object:
    try:
        return decode()
    except DecodeError as error:
        return [error.code, error.layer, error.offset, error.detail]


if __name__ == "__main__":
    raise SystemExit(main())

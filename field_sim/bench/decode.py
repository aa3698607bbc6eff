"""Decoding encrypted telegrams, beside the bare cipher of the same run, on one core.

"Bare AES" is the ctypes call of libcrypto's CTR with a new key each time over 36 bytes, and nothing
else. Telegrams are Kamstrup's, one full frame to seven compact ones, of 50 and of 5,000 meters
that each have a key. Rounds alternate and the medians are compared, because the machine is shared.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from decoders import aes
from decoders.batch import decode_rows
from decoders.decode import decode_wmbus
from decoders.drivers.registry import known_formats
from decoders.encode import encode_wmbus, kamstrup_multical_records, session_number
from decoders.formats import Formats
from decoders.ids import MeterId
from decoders.uplink import Row, RowKind, Rows, pack_rows
from field_sim.bench import reference

FRAMES = 5_000  # in a batch: one of each meter at 5,000 keys
ROUNDS = 7
FEW, MANY = 50, 5_000
FULL_EVERY = 8
BARE_BYTES = 36
ASKED_OF_BARE = 0.30
ASKED_FLAT = 0.9
ASKED_SINGLE_PER_S = 10_000
Progress = Callable[[str], None]
Figure = dict[str, Any]


def run(progress: Progress) -> list[Figure]:
    """Measure; return the figures. Takes about ten seconds, with the reference decoder twenty."""
    many = telegrams(MANY)
    few_rows, many_rows = rows_of(telegrams(FEW)), rows_of(many)
    held = {str(meter_id(n)): key_of(n) for n in range(MANY)}
    tasks: dict[str, Callable[[], object]] = {
        "bare": bare,
        "batch_50_keys": lambda: batch(few_rows, held),
        "batch_5000_keys": lambda: batch(many_rows, held),
        "one_at_a_time": lambda: one_by_one(many, held),
    }
    rates: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(ROUNDS + 1):
        for name, task in tasks.items():
            begun_s = time.perf_counter()
            task()
            if number:  # the first round warms caches up
                rates[name].append(FRAMES / (time.perf_counter() - begun_s))
        progress(f"decode round {number}/{ROUNDS}")
    median = {name: statistics.median(found) for name, found in rates.items()}
    flat = statistics.median(
        large / small
        for large, small in zip(rates["batch_5000_keys"], rates["batch_50_keys"], strict=True)
    )
    return [
        figure("batch_50_keys", median["batch_50_keys"], median["bare"], ASKED_OF_BARE),
        figure("batch_5000_keys", median["batch_5000_keys"], median["bare"], ASKED_OF_BARE),
        {
            **figure(
                "flat_5000_to_50_keys", median["batch_5000_keys"], median["batch_50_keys"], None
            ),
            "ratio": round(flat, 3),
            "asked": ASKED_FLAT,
            "holds": flat >= ASKED_FLAT,
        },
        {
            **figure("one_at_a_time", median["one_at_a_time"], median["bare"], None),
            "asked": ASKED_SINGLE_PER_S,
            "holds": median["one_at_a_time"] >= ASKED_SINGLE_PER_S,
        },
        *beside_reference(progress),
    ]


def beside_reference(progress: Progress) -> list[Figure]:
    """Compare with the reference decoder; without one on this machine there is nothing to say."""
    program = reference.executable()
    if program is None:
        progress(f"no reference decoder here: {reference.EXECUTABLE} names none, nor does PATH")
        return []
    return reference.figures(
        program,
        progress,
        frames_of=telegrams,
        meter_of=lambda number: (str(meter_id(number)), key_of(number)),
        rows_of=rows_of,
    )


def figure(name: str, rate: float, limit: float | None, asked: float | None) -> Figure:
    ratio = None if limit is None else rate / limit
    return {
        "bench": "decode",
        "figure": name,
        "value": round(rate, 1),
        "unit": "telegrams/s",
        "limit": None if limit is None else round(limit, 1),
        "ratio": None if ratio is None else round(ratio, 3),
        "asked": asked,
        "holds": None if ratio is None or asked is None else ratio >= asked,
    }


def meter_id(number: int) -> MeterId:
    return MeterId(manufacturer="KAM", serial=f"{number:08d}", version=0x1B, medium=0x16)


def key_of(number: int) -> bytes:
    return (number + 1).to_bytes(aes.KEY_BYTES, "big")


def telegrams(meters: int) -> list[bytes]:
    """Return FRAMES encrypted telegrams of that many meters, one in eight of them full."""
    return [
        encode_wmbus(
            kamstrup_multical_records(total_l=100_000 + number, water_c=14, ambient_c=21),
            meter=meter_id(number % meters),
            session_number=session_number(session=1, minutes=number, encrypted=True),
            access_number=number & 0xFF,
            key=key_of(number % meters),
            compact=number % FULL_EVERY != 0,
        )
        for number in range(FRAMES)
    ]


def rows_of(frames: Sequence[bytes]) -> Rows:
    return pack_rows(
        Row(seq=number, heard_at=0, kind=RowKind.WMBUS, payload=frame)
        for number, frame in enumerate(frames, start=1)
    )


def bare() -> None:
    """Run libcrypto's cipher as often as there are telegrams, each time with another key."""
    keys = [key_of(number) for number in range(FRAMES)]
    counter, sealed, ctr = bytes(aes.BLOCK_BYTES), bytes(BARE_BYTES), aes.BACKEND.ctr
    for key in keys:
        ctr(key, counter, sealed)


def batch(rows: Rows, held: dict[str, bytes]) -> None:
    decoded = decode_rows(rows, keys=held.get, formats=known_formats())
    assert not decoded.errors, decoded.errors[:1]


def one_by_one(frames: Sequence[bytes], held: dict[str, bytes]) -> None:
    """Decode as a gateway does: every field named."""
    formats: Formats = known_formats()
    for number, frame in enumerate(frames):
        decode_wmbus(frame, key=held[str(meter_id(number))], formats=formats)

"""`soak mutate`: damaged and made-up input for every decoder; each answers or refuses, at once.

Frames of every kind (encoded here, and the public telegrams where the tests' vectors are at hand)
are bent in many ways at once and handed to the decoders, their explanations and the batch. Any
exception but DecodeError, and any answer that takes longer than SLOW_S, is a failure and is
written down as hex, so that it can become a vector.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from decoders.batch import decode_rows
from decoders.decode import decode_lorawan, decode_wmbus
from decoders.drivers.registry import known_formats
from decoders.errors import DecodeError
from decoders.explain import explain_lorawan, explain_wmbus
from decoders.lorawan.phy import parse_phy
from decoders.uplink import Row, RowKind, pack_rows
from decoders.wmbus.search import LayoutSearch
from field_sim.soak.seeds import DEV_EUI, KEY, seeds_by_radio
from field_sim.soak.truth import Verdict

INPUTS = 1_000_000
CLEAR_CI = frozenset({0x72, 0x78, 0x7A})  # a LoRaWAN payload has no L
SLOW_S = 1.0  # of processor time: a thousand times what a frame takes
BATCH_ROWS = 500
MOST_BENDS = 6
# Bytes that open something: DIFs and VIFs of every kind, extensions, fill, CIs, lengths
TELLING = bytes.fromhex("000102040c0d0f131f2f3b6c6d7c7d7f808d8e8f90ffc0d0e0f0f5fb72787a79")
FORMATS = known_formats()
SEARCH = LayoutSearch(known_formats())


def run(folder: Path, *, n: int, seed: int) -> Verdict:
    """Hand `n` mutated inputs to the decoders. `folder` gets a file of what failed, if anything."""
    chance = random.Random(seed)
    seeds = seeds_by_radio()
    answers, failed = Counter[str](), list[str]()
    held: list[bytes] = []
    slowest_s = 0.0
    for _ in range(n):
        way, radio, decode = chance.choice(WAYS)
        given = mutated(seeds[radio], chance)
        began_s = time.thread_time()
        try:
            decode(given)
            answers[f"{way}: decoded"] += 1
        except DecodeError as error:
            answers[f"{way}: {error.code}"] += 1
        except Exception as error:
            failed.append(f"{way} {type(error).__name__} {given.hex()}")
        slowest_s = max(slowest_s, time.thread_time() - began_s)
        held.append(given)
        if len(held) == BATCH_ROWS:
            failed.extend(batch_failures(held))
            held.clear()
    verdict = Verdict(counts=dict(sorted(answers.items())))
    verdict.counts["slowest answer, µs"] = round(slowest_s * 1e6)
    verdict.must_be_some["inputs decoded"] = answers["wmbus: decoded"]
    verdict.must_be_zero["exceptions that are no DecodeError"] = len(failed)
    verdict.must_be_zero["answers slower than a second"] = int(slowest_s > SLOW_S)
    if failed:
        (folder / "failed.txt").write_text("\n".join(failed))
        firsts = {line.split(maxsplit=2)[1]: line[:400] for line in reversed(failed)}
        verdict.notes.extend(("all of them are in failed.txt (--keep)", *firsts.values()))
    return verdict


def wmbus(given: bytes) -> None:
    telegram = decode_wmbus(given, key=KEY, formats=FORMATS)
    assert telegram.records or not telegram.fields.keys() - {"access_counter", "status"}


def kept(given: bytes) -> None:
    decode_wmbus(given, key=None, formats=FORMATS, already_decrypted=True)


def lorawan(given: bytes) -> None:
    decode_lorawan(given, port=1, f_cnt=1, dev_eui=DEV_EUI)


def nobody(given: bytes) -> None:
    decode_lorawan(given, port=1, f_cnt=1, dev_eui=None)


def explained(given: bytes) -> None:
    """Explaining raises nothing, not even DecodeError; searching neither."""
    assert explain_wmbus(given, key=KEY, formats=FORMATS)
    assert explain_wmbus(given, key=None, formats=FORMATS, already_decrypted=True)
    assert explain_lorawan(given, port=1, f_cnt=1, dev_eui=DEV_EUI)
    SEARCH.offer(given)


# What an input is handed to; the first ones are drawn more often because they are deeper.
WAYS: tuple[tuple[str, str, Callable[[bytes], object]], ...] = (
    *(("wmbus", "wmbus", wmbus),) * 4,
    *(("wmbus kept decrypted", "wmbus", kept),) * 4,
    *(("lorawan", "payload", lorawan),) * 3,
    ("lorawan of nobody", "payload", nobody),
    ("lorawan frame", "phy", parse_phy),
    ("wmbus explained", "wmbus", explained),
    ("lorawan explained", "payload", explained),
)


def batch_failures(held: Sequence[bytes]) -> Iterator[str]:
    """Decode the inputs as one batch; say what it broke on."""
    rows = pack_rows(
        Row(
            seq=number,
            heard_at=0,
            kind=RowKind.LORAWAN if number & 1 else RowKind.WMBUS,
            payload=given,
        )
        for number, given in enumerate(held, start=1)
    )
    try:
        decoded = decode_rows(rows, keys=lambda _: KEY, formats=known_formats())
        assert len(decoded.row) == len(held)
    except Exception as error:
        yield f"batch {type(error).__name__} {' '.join(given.hex() for given in held)}"


def mutated(seeds: Sequence[bytes], chance: random.Random) -> bytes:
    """One seed, bent a few times; L made right half of the time, so that more gets through."""
    given = bytearray(chance.choice(seeds))
    for _ in range(chance.randint(1, MOST_BENDS)):
        chance.choice(BENDS)(given, chance)
    if given and given[0] not in CLEAR_CI and chance.random() < 0.5:
        given[0] = min(len(given) - 1, 255)
    return bytes(given)


def flip(given: bytearray, chance: random.Random) -> None:
    if given:
        given[chance.randrange(len(given))] ^= 1 << chance.randrange(8)


def overwrite(given: bytearray, chance: random.Random) -> None:
    if given:
        given[chance.randrange(len(given))] = chance.choice(TELLING)


def insert(given: bytearray, chance: random.Random) -> None:
    at = chance.randint(0, len(given))
    given[at:at] = bytes((chance.choice(TELLING),)) * chance.choice((1, 1, 2, 12))


def remove(given: bytearray, chance: random.Random) -> None:
    at = chance.randint(0, len(given))
    del given[at : at + chance.choice((1, 1, 2, 16))]


def cut(given: bytearray, chance: random.Random) -> None:
    del given[chance.randint(0, len(given)) :]


def repeat(given: bytearray, chance: random.Random) -> None:
    at = chance.randint(0, len(given))
    given[at:at] = given[at : at + chance.choice((2, 4, 16))]


BENDS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    *(flip, flip, overwrite, overwrite, insert, remove, cut, repeat),
)

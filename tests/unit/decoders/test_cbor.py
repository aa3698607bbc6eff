"""Damaged CBOR costs nothing that stays."""

from __future__ import annotations

import gc
import tracemalloc
from contextlib import suppress

import cbor2
import pytest

from decoders import cbor
from decoders.uplink import claimed_stream, decode_ack, decode_batch
from decoders.uplink_fields import UplinkError

DAMAGED = {
    "text that is not UTF-8": "62ffff",
    "the same in a map": "a26176016162" + "62ffff",
    "tag of a regular expression": "d8236128",
    "tag of a UUID": "d8254161",
}
TIMES = 500
KEPT_BYTES = 20_000  # the interpreter's own; the C decoder keeps twenty times as much


@pytest.mark.parametrize("damaged", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_message_leaves_no_memory_behind(damaged: str) -> None:
    message = bytes.fromhex(damaged)

    def refuse() -> None:
        claimed_stream(message)
        for read in (decode_batch, decode_ack):
            with suppress(UplinkError):
                read(message)

    tracemalloc.start()
    try:
        for _ in range(TIMES // 5):  # until the interpreter has all that it keeps for itself
            refuse()
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(TIMES):
            refuse()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < KEPT_BYTES


def test_what_cbor2_writes_is_read() -> None:
    said = {"v": 1, "rows": bytes(1000), "lost": [[1, 2, None]], "name": "Querétaro", "at": -1.5}

    assert cbor.loads(cbor2.dumps(said)) == said

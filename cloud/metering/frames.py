"""The rows of an uplink as numpy columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cloud.metering.clock_steps import moved
from cloud.metering.model import Bools, Int16s, Int64s
from decoders.batch_wmbus import names_of
from decoders.ids import WIRE_BYTES
from decoders.uplink import COLUMNS, ClockStep, RowFlag, RowKind, Rows
from decoders.value import value

ADDRESS_AT = 2  # of a wM-Bus frame: L, C, then M and A


@value
class Uplinked:
    """The columns of `Rows` as numpy arrays, (rows,) each; `start` is where a payload begins.

    `heard_at` is what the gateway's clock would have said as it went when the message was sent.
    """

    seq: Int64s
    heard_at: Int64s
    kind: npt.NDArray[np.uint8]
    flags: npt.NDArray[np.uint8]
    radio: npt.NDArray[np.uint64]
    session: npt.NDArray[np.uint32]
    counter: npt.NDArray[np.uint32]
    port: npt.NDArray[np.uint8]
    rssi: Int16s
    snr: Int16s
    length: npt.NDArray[np.uint16]
    start: Int64s
    is_doubtful: Bools  # nobody can say how far the clock of `heard_at` was off


_NUMPY = {"Q": "<u8", "q": "<i8", "B": "u1", "b": "i1", "h": "<i2", "H": "<u2", "I": "<u4"}


def uplinked(rows: Rows, steps: Sequence[ClockStep] = ()) -> Uplinked:
    """Return the columns of an uplink, as far as may be without copying them.

    steps   by how much the gateway's clock was set since
    """
    columns: dict[str, npt.NDArray[Any]] = {
        name: np.frombuffer(rows.columns[name], _NUMPY[code]) for name, code in COLUMNS.items()
    }
    lengths = columns["length"].astype(np.int64)
    columns["start"] = np.cumsum(lengths) - lengths
    # row numbers beyond 63 bits would be no number of ours: they end up behind every gap
    columns["seq"] = np.minimum(columns["seq"], np.uint64((1 << 63) - 1)).astype(np.int64)
    columns["snr"] = columns["snr"].astype(np.int16)
    foreign: Bools = (columns["flags"] & RowFlag.FOREIGN_CLOCK) != 0
    columns["is_doubtful"] = foreign
    if steps:
        heard_at, doubtful = moved(columns["heard_at"], columns["seq"], steps)
        columns["heard_at"] = np.where(foreign, columns["heard_at"], heard_at)
        columns["is_doubtful"] = foreign | doubtful
    return Uplinked(**columns)


def likely_names(rows: Rows, up: Uplinked) -> set[str]:
    """Return the natural ids that wM-Bus rows carry where most frames have them: in the clear link
    header, after L and C. Only to look meters up together; who sent a frame the decoders say.
    """
    long_enough = (up.kind == RowKind.WMBUS) & (up.length >= ADDRESS_AT + WIRE_BYTES)
    begin = up.start[long_enough] + ADDRESS_AT
    if not len(begin):
        return set()
    octets = np.frombuffer(rows.payload, np.uint8)[begin[:, None] + np.arange(WIRE_BYTES)]
    return set(names_of(octets).tolist())

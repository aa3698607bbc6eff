"""The rows of an uplink as numpy columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cloud.metering.model import Int16s, Int64s
from decoders.uplink import COLUMNS, Rows
from decoders.value import value


@value
class Uplinked:
    """The columns of `Rows` as numpy arrays, (rows,) each; `start` is where a payload begins."""

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


_NUMPY = {"Q": "<u8", "q": "<i8", "B": "u1", "b": "i1", "h": "<i2", "H": "<u2", "I": "<u4"}


def uplinked(rows: Rows) -> Uplinked:
    """Return the columns of an uplink without copying them."""
    columns: dict[str, npt.NDArray[Any]] = {
        name: np.frombuffer(rows.columns[name], _NUMPY[code]) for name, code in COLUMNS.items()
    }
    lengths = columns["length"].astype(np.int64)
    columns["start"] = np.cumsum(lengths) - lengths
    # row numbers beyond 63 bits would be no number of ours: they end up behind every gap
    columns["seq"] = np.minimum(columns["seq"], np.uint64((1 << 63) - 1)).astype(np.int64)
    columns["snr"] = columns["snr"].astype(np.int16)
    return Uplinked(**columns)

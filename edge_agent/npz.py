"""Whole-number arrays out of NumPy's `.npz` files, without NumPy: a gateway has none.

Source: NumPy's description of the NPY format, versions 1.0 to 3.0 (`numpy.lib.format`).
"""

from __future__ import annotations

import ast
import struct
import sys
import zipfile
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_MAGIC: Final = b"\x93NUMPY"
_CODES: Final = {
    **{"i1": "b", "u1": "B", "i2": "h", "u2": "H", "i4": "i", "u4": "I"},
    **{"i8": "q", "u8": "Q", "f4": "f", "f8": "d"},
}
MOST_BYTES: Final = 1 << 30  # of one array: 128 million reads


class ArrayUnreadable(ValueError):
    """A file, or an array in it, that is not what NumPy writes; says which and why."""


def names(path: Path) -> frozenset[str]:
    """Return the names of the arrays of a file. Raises ArrayUnreadable."""
    try:
        with zipfile.ZipFile(path) as archive:
            return frozenset(n[: -len(".npy")] for n in archive.namelist() if n.endswith(".npy"))
    except (OSError, zipfile.BadZipFile) as error:
        raise ArrayUnreadable(f"{path.name}: {error}") from None


def whole_numbers(path: Path, name: str) -> Sequence[int]:
    """Return a row of numbers, fractions cut off. Raises ArrayUnreadable."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(f"{name}.npy").file_size > MOST_BYTES:
                raise ArrayUnreadable(f"{path.name}: {name} is too large")
            return _array(archive.read(f"{name}.npy"))
    except ArrayUnreadable:
        raise
    except (OSError, KeyError, ValueError, SyntaxError, OverflowError, struct.error) as error:
        raise ArrayUnreadable(f"{path.name}: {name}: {error}") from None
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise ArrayUnreadable(f"{path.name}: {name}: {error}") from None


def _array(held: bytes) -> Sequence[int]:
    if not held.startswith(_MAGIC):
        raise ArrayUnreadable("not an NPY array")
    size = struct.Struct("<H" if held[6] == 1 else "<I")
    begin = 8 + size.size
    end = begin + size.unpack_from(held, 8)[0]
    described = ast.literal_eval(held[begin:end].decode("utf-8"))
    kind, shape = described["descr"], described["shape"]
    if not isinstance(kind, str) or kind[1:] not in _CODES or len(shape) != 1:
        raise ArrayUnreadable(f"{kind!r} of shape {shape} is not a row of numbers")
    numbers = array(_CODES[kind[1:]])
    numbers.frombytes(held[end : end + shape[0] * numbers.itemsize])
    if len(numbers) != shape[0]:
        raise ArrayUnreadable(f"{len(numbers)} of {shape[0]} numbers")
    if (kind[0] == ">") != (sys.byteorder == "big") and kind[0] != "|":
        numbers.byteswap()
    return numbers if kind[1] != "f" else array("q", [int(number) for number in numbers])

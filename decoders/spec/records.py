"""The record layer (EN 13757-3:2018, 6 and annexes A, F), declared."""

from __future__ import annotations

from construct import (
    Array,
    BitsInteger,
    BitStruct,
    Bytes,
    ByteSwapped,
    Const,
    Flag,
    GreedyBytes,
    GreedyRange,
    If,
    Int8ub,
    Prefixed,
    RepeatUntil,
    Struct,
    Switch,
    this,
)


def rest_of(length: int) -> int:
    """Data bytes behind the length byte of a variable-length record."""
    for first, last, each, zero in (
        (0x00, 0xBF, 1, 0x00),  # text
        (0xC0, 0xC9, 1, 0xC0),  # BCD, positive
        (0xD0, 0xD9, 1, 0xD0),  # BCD, negative
        (0xE0, 0xEF, 1, 0xE0),  # binary number
        (0xF0, 0xF4, 4, 0xEC),  # binary number of 4 (n - EC) bytes
    ):
        if first <= length <= last:
            return each * (length - zero)
    if length in (0xF5, 0xF6):
        return {0xF5: 48, 0xF6: 64}[length]
    raise ValueError(f"length {length:02X} is reserved")


Dif = BitStruct(
    "extended" / Flag,
    "storage" / BitsInteger(1),
    "function" / BitsInteger(2),
    "field" / BitsInteger(4),
)
Dife = BitStruct(
    "extended" / Flag,
    "subunit" / BitsInteger(1),
    "tariff" / BitsInteger(2),
    "storage" / BitsInteger(4),
)
Vif = BitStruct("extended" / Flag, "code" / BitsInteger(7))
Variable = Struct("length" / Int8ub, "rest" / Bytes(lambda found: rest_of(found.length)))
Head = Struct(
    "dif" / Dif,
    "difes" / If(this.dif.extended, RepeatUntil(lambda code, *_: not code.extended, Dife)),
    "vif" / Vif,
    "text" / If(this.vif.code == 0x7C, Prefixed(Int8ub, GreedyBytes)),
    "vifes" / If(this.vif.extended, RepeatUntil(lambda code, *_: not code.extended, Vif)),
)
_FIXED = {1: 1, 2: 2, 3: 3, 4: 4, 5: 4, 6: 6, 7: 8, 9: 1, 10: 2, 11: 3, 12: 4, 14: 6}
Record = Struct(
    "fill" / GreedyRange(Const(b"\x2f")),
    "head" / Head,
    "data"
    / Switch(
        this.head.dif.field,
        {field: Bytes(size) for field, size in _FIXED.items()} | {13: Variable},
        default=Bytes(0),
    ),
)
Records = Struct("records" / GreedyRange(Record), "fill" / GreedyRange(Const(b"\x2f")))

_DAY = (
    "year_high" / BitsInteger(4),
    "month" / BitsInteger(4),
    "year_low" / BitsInteger(3),
    "day" / BitsInteger(5),
)
TypeG = ByteSwapped(BitStruct(*_DAY))  # a date
TypeF = ByteSwapped(  # date and time
    BitStruct(
        *_DAY,
        "summer" / Flag,
        "century" / BitsInteger(2),
        "hour" / BitsInteger(5),
        "invalid" / Flag,
        "reserved" / Flag,
        "minute" / BitsInteger(6),
    )
)
InverseProfile = Struct(
    "length" / Int8ub,
    "control"
    / BitStruct("mode" / BitsInteger(2), "unit" / BitsInteger(2), "size" / BitsInteger(4)),
    "spacing" / Int8ub,
    "elements" / Array((this.length - 2) // this.control.size, Bytes(this.control.size)),
)

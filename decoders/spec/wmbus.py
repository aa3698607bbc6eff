"""Frames without link checksums, in clear, layer by layer (EN 13757-4, -7; OMS Vol. 2)."""

from __future__ import annotations

from construct import (
    BitsInteger,
    BitStruct,
    Bytes,
    ByteSwapped,
    Flag,
    GreedyBytes,
    If,
    Int8ub,
    Int16ul,
    Int32ul,
    OneOf,
    Optional,
    Struct,
    this,
)

Address = Struct(
    "manufacturer" / Int16ul, "serial" / Int32ul, "version" / Int8ub, "medium" / Int8ub
)
SessionNumber = ByteSwapped(
    BitStruct("encryption" / BitsInteger(3), "time" / BitsInteger(25), "session" / BitsInteger(4))
)
ExtendedLink = Struct(
    "ci" / OneOf(Int8ub, (0x8C, 0x8D, 0x8E, 0x8F)),
    "control" / Int8ub,
    "access_number" / Int8ub,
    "meter" / If(this.ci & 2, Address),
    "session" / If(this.ci & 1, SessionNumber),
    "checksum" / If(this.ci & 1, Int16ul),  # of everything behind it
)
FragmentControl = ByteSwapped(
    BitStruct(
        "reserved_high" / Flag,
        "more" / Flag,
        "has_control" / Flag,
        "has_length" / Flag,
        "has_counter" / Flag,
        "has_code" / Flag,
        "has_key_information" / Flag,
        "reserved_low" / Flag,
        "fragment" / BitsInteger(8),
    )
)
_CODE_BYTES = {3: 2, 4: 4, 5: 8, 6: 12, 7: 16}
Authentication = Struct(
    "ci" / OneOf(Int8ub, (0x90,)),
    "length" / Int8ub,
    "fragment" / FragmentControl,
    "control" / If(this.fragment.has_control, Int8ub),
    "key_information" / If(this.fragment.has_key_information, Int16ul),
    "message_counter" / If(this.fragment.has_counter, Int32ul),
    "code" / If(this.fragment.has_code, Bytes(lambda found: _CODE_BYTES[found.control & 0x0F])),
    "message_length" / If(this.fragment.has_length, Int16ul),
)
Configuration = ByteSwapped(
    BitStruct(
        "bidirectional" / Flag,
        "accessible" / Flag,
        "synchronous" / Flag,
        "mode" / BitsInteger(5),
        "blocks" / BitsInteger(4),
        "content" / BitsInteger(4),
    )
)
Short = Struct(
    "access_number" / Int8ub,
    "status" / Int8ub,
    "configuration" / Configuration,
    "extension" / If(this.configuration.mode == 7, Int8ub),
)
Long = Struct(
    "serial" / Int32ul,
    "manufacturer" / Int16ul,
    "version" / Int8ub,
    "medium" / Int8ub,
    "rest" / Short,
)
Transport = Struct(
    "ci" / OneOf(Int8ub, (0x72, 0x73, 0x78, 0x79, 0x7A, 0x7B)),
    "long" / If(lambda found: found.ci in (0x72, 0x73), Long),
    "short" / If(lambda found: found.ci in (0x7A, 0x7B), Short),
    "signature" / If(this.ci & 1, Int16ul),
    "full_checksum" / If(this.ci & 1, Int16ul),
    "records" / GreedyBytes,  # decoders.spec.records.Records where they are not compact
)
Frame = Struct(
    "length" / Int8ub,
    "control" / Int8ub,
    "sender" / Address,
    "extended_link" / Optional(ExtendedLink),
    "authentication" / Optional(Authentication),
    "transport" / Transport,
)

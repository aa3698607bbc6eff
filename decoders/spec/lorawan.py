"""LoRaWAN's PHYPayload (L2 1.0.4, 4 and 6; 1.1), declared."""

from __future__ import annotations

from construct import (
    BitsInteger,
    BitStruct,
    Bytes,
    BytesInteger,
    Computed,
    Const,
    FixedSized,
    GreedyBytes,
    Int8ub,
    Int16ul,
    Int24ul,
    Int32ul,
    Int64ul,
    Optional,
    Struct,
    Switch,
    Terminated,
    this,
)

Header = BitStruct("type" / BitsInteger(3), "reserved" / BitsInteger(3), "major" / BitsInteger(2))
FrameControl = BitStruct(
    "adr" / BitsInteger(1),
    "adr_ack_request" / BitsInteger(1),
    "ack" / BitsInteger(1),
    "class_b_or_pending" / BitsInteger(1),
    "options" / BitsInteger(4),
)
Data = Struct(
    "dev_addr" / Int32ul,
    "control" / FrameControl,
    "counter" / Int16ul,
    "options" / Bytes(this.control.options),
    "port" / Optional(Int8ub),
    "payload" / GreedyBytes,
)
JoinRequest = Struct("join_eui" / Int64ul, "dev_eui" / Int64ul, "dev_nonce" / Int16ul)
RejoinRequest = Struct(
    "kind" / Int8ub,
    "home" / Switch(this.kind, {1: Int64ul}, default=Int24ul),
    "dev_eui" / Int64ul,
    "counter" / Int16ul,
)
JoinAccept = Struct("sealed" / GreedyBytes)
# 0 join-request, 1 join-accept, 2 … 5 data, 6 rejoin-request; all but 1 end with a code
_BODIES = {0: JoinRequest, 2: Data, 3: Data, 4: Data, 5: Data, 6: RejoinRequest}
Signed = Struct("header" / Header, "body" / Switch(this.header.type, _BODIES))


def phy_payload(size: int) -> Struct:
    """The layout of a frame of `size` bytes: its last four are the code."""
    return Struct("signed" / FixedSized(size - 4, Signed), "code" / Bytes(4))


SealedAccept = Struct("header" / Header, "body" / JoinAccept)

# Axioma W1, a day of hours: its 41 packed bytes are one little-endian number of 23 × 14 + 6 bits
PackedDay = Struct(
    "version" / Const(b"\x01"),
    "time" / Int32ul,
    "status" / Int8ub,
    "log_l" / Int32ul,
    "packed" / BytesInteger(41, swapped=True),
    "hours_l" / Computed(lambda day: [day.packed >> 14 * hour & 0x3FFF for hour in range(23)]),
    "multiplier" / Computed(this.packed >> 322),
    Terminated,
)

"""Axioma Qalcosonic W1 and Q400: ultrasonic water meters, wM-Bus (LoRaWAN: lorawan/axioma.py).

All but two records are named by the standard: the remaining battery (FD74, days by the standard)
is a percentage here, and FD17 of the error state counts error codes.
"""

from __future__ import annotations

from decoders.drivers.driver import Driver, Field, Match, count

AXIOMA_W1 = Driver(
    name="axioma_w1",
    matches=(
        Match(manufacturer="AXI", version=0x01, medium=0x07),
        Match(manufacturer="AXI", version=0x10, medium=0x07),
    ),
    dev_eui_prefixes=(),
    register="0413",
    fields=(
        Field(head="01FD74", into="battery_pct", read=count),
        Field(head="34FD17", into="error_code_counter", read=count),
    ),
    info_codes=(),
    layouts=(),
    sources=(
        "wmbusmeters drivers/src/q400.xmq: telegrams W0271, W0272, W0275, W0380 and their values",
        "TheThingsNetwork/lorawan-devices vendor/axioma/qalcosonic-w1-codec.yaml",
        "tests/vectors/telegrams/axioma_w1.json",
        "tests/vectors/lorawan/axioma_w1.json",
    ),
)

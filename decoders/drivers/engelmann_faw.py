"""Engelmann FAW radio module: monthly volumes in compact frames, wM-Bus.

Its compact layout is in no document that is open. It was found by searching plausible record
lists until both the signature and the full frame's checksum fitted (32 bits), and its fifteen
months agree with the published values. All records are named by the standard.
"""

from __future__ import annotations

from decoders.drivers.driver import Driver, Match

ENGELMANN_FAW = Driver(
    name="engelmann_faw",
    matches=(Match(manufacturer="EFE", version=0x00, medium=0x07),),
    dev_eui_prefixes=(),
    register="0413",
    fields=(),
    info_codes=(),
    layouts=(
        "426C441301FD17840113C40113840213C40213840313C40313840413C40413840513C40513840613C40613"
        "840713C40713840813046D0413",
    ),
    sources=(
        "wmbusmeters drivers/src/engelmann_faw.xmq: telegram W0096, its test key and its values",
        "tests/vectors/telegrams/engelmann_faw.json",
    ),
)

"""What a ChirpStack v4 publishes for an uplink: the `up` event, as a real one was seen to.

Shape, number formats and quirks are those of a recorded ChirpStack 4.20 (region us915_1): default
values are present on the event and absent inside `rxInfo` and `txInfo`, `time` is the gateway's
own clock with six digits, `nsTime` has nine. Each gateway of the city runs its own ChirpStack, so
`rxInfo` has one entry and the application is the gateway's.
"""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

from decoders.value import value
from field_sim.meters import LorawanMeter, seeded
from field_sim.radio import Gateway

TENANT = "3d0f1f4e-6a0e-4a8b-9a9d-5b5c0a2f7d11"
PROFILE = "a1c7f2de-2c55-4f0d-8f52-6d1c39f3b8e4"
CHANNELS = 8
FIRST_CHANNEL_HZ, CHANNEL_STEP_HZ = 903_900_000, 200_000  # us915_1: channels 8 to 15
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@value
class Reception:
    """One uplink as one gateway heard it. `at_us`: the true instant, µs UTC."""

    gateway: Gateway
    meter: LorawanMeter
    counter: int
    port: int
    payload: bytes
    at_us: int
    rssi: int


def topic(reception: Reception) -> str:
    application = reception.gateway.application
    return f"application/{application}/device/{reception.meter.dev_eui:016x}/event/up"


def up_event(reception: Reception, seed: int) -> bytes:
    """Return the event as ChirpStack's JSON marshaler writes it. The same twice for the same."""
    gateway, meter = reception.gateway, reception.meter
    mark = seeded(seed, "up", gateway.id, meter.household, reception.counter)
    seen = instant(reception.at_us + gateway.clock_error_us)
    channel = mark[0] % CHANNELS
    received = {
        "gatewayId": gateway.eui,
        "uplinkId": int.from_bytes(mark[1:5], "big"),
        "gwTime": seen + "+00:00",
        "nsTime": f"{seen}{mark[5] * 3 % 1000:03d}+00:00",
        "rssi": reception.rssi,
        "snr": round(9.5 - (-72 - reception.rssi) / 6 + (mark[6] % 12) / 4, 2),
        **({"channel": channel} if channel else {}),
        "location": {
            "latitude": gateway.latitude,
            "longitude": gateway.longitude,
            "altitude": 1820.0,
            "source": "GPS",
        },
        "context": base64.b64encode(mark[7:11]).decode(),
        "crcStatus": "CRC_OK",
    }
    event = {
        "deduplicationId": str(UUID(bytes=mark, version=4)),
        "time": seen + "+00:00",
        "deviceInfo": _device(gateway, meter),
        "devAddr": f"{meter.dev_addr:08x}",
        "adr": True,
        "dr": 3,
        "fCnt": reception.counter,
        "fPort": reception.port,
        "confirmed": False,
        "data": base64.b64encode(reception.payload).decode(),
        "rxInfo": [received],
        "txInfo": {
            "frequency": FIRST_CHANNEL_HZ + channel * CHANNEL_STEP_HZ,
            "modulation": {
                "lora": {"bandwidth": 125_000, "spreadingFactor": 7, "codeRate": "CR_4_5"}
            },
        },
        "regionConfigId": "us915_1",
    }
    return json.dumps(event, separators=(",", ":")).encode()


def _device(gateway: Gateway, meter: LorawanMeter) -> dict[str, object]:
    return {
        "tenantId": TENANT,
        "tenantName": "CEA Querétaro",
        "applicationId": gateway.application,
        "applicationName": f"medidores-{gateway.id}",
        "deviceProfileId": PROFILE,
        "deviceProfileName": "flowIQ 2200 horario",
        "deviceName": f"flowiq-{meter.serial}",
        "devEui": f"{meter.dev_eui:016x}",
        "deviceClassEnabled": "CLASS_A",
        "tags": {"serial": str(meter.serial)},
    }


def instant(at_us: int) -> str:
    """Return µs UTC as ISO text with six digits and without a zone."""
    moment = EPOCH + timedelta(microseconds=at_us)
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds")

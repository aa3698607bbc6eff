"""How the city's gateways and meters are made known to the platform."""

from __future__ import annotations

from pathlib import Path

from cloud.metering.registry import NewMeter
from field_sim.sandbox import ADMINISTRATION, Agent
from field_sim.town import Town

LEAST_CHANCE_FOR_KEY = 0.02  # a gateway is given the keys of the meters it can hear
UNREGISTERED = 3  # meters the registry does not know: intake makes them provisional


def city_agents(state: Path, town: Town) -> list[Agent]:
    agents = []
    for number, gateway in enumerate(town.gateways):
        near = [
            meter
            for meter in town.wmbus
            if town.air.chance[meter.household, number] >= LEAST_CHANCE_FOR_KEY
        ]
        fifo = str(state / "agents" / gateway.id / "wmbus.fifo")
        agents.append(
            Agent(
                gateway=gateway.id,
                name=gateway.name,
                application=gateway.application,
                sources=(
                    {
                        "kind": "chirpstack",
                        "application": gateway.application,
                        "gateway_eui": gateway.eui,
                    },
                    {"kind": "lines", "path": fifo},
                ),
                keys={meter.name: meter.key.hex() for meter in near},
                clock_error_us=gateway.clock_error_us,
            )
        )
    return agents


def registered(town: Town) -> list[NewMeter]:
    """Return the meters that the utility knows: all but a few that were just installed."""
    wmbus = [
        NewMeter(name=meter.name, administration=ADMINISTRATION, key=meter.key)
        for meter in town.wmbus
    ]
    lorawan = [
        NewMeter(name=f"{meter.dev_eui:016X}", administration=ADMINISTRATION)
        for meter in town.lorawan[:-UNREGISTERED]
    ]
    return wmbus + lorawan

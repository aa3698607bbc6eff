"""What a restart must not forget, under its names among the outbox's checkpoints.

A meter's memory is written with the rows that it led to. What is the whole agent's (the cloud's
clock, what the caps hold back) goes along with whatever is written, where it changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from edge_agent import caps, clock_steps, cloud_clock, memory, reduction
from edge_agent.outbox import Outbox

METER: Final = "m/"
LAYOUT: Final = "f/"
SOURCE: Final = "s/"  # a source's own, see `inputs.SourceMemory`
CLOCK: Final = "clock"
CAPS: Final = "caps"
STEPS: Final = "steps"

# What the caps alone change is written at most this often: a flood of noise must not wear the
# disk out; a power cut may cost the count of so many seconds.
CAPS_EACH_S: Final = 60.0


class Checkpoints:
    """Says what to write next; knows what stands on the disk already."""

    def __init__(self) -> None:
        self._written: dict[str, bytes] = {}
        self._checked_s = float("-inf")

    def of(
        self, state: reduction.State, *, meters: Iterable[str], layouts: Iterable[bytes]
    ) -> dict[str, bytes]:
        """Return the memory of the named meters, the new layouts, and what else has changed."""
        known = state.meters
        named = {METER + n: known.packed(n) for n in meters if n in known}
        named |= {LAYOUT + layout.hex(): layout for layout in layouts}
        return named | self._changed(state)

    def are_due(self, state: reduction.State, *, now_s: float) -> bool:
        """Say whether something must be written though no row was."""
        if now_s - self._checked_s < CAPS_EACH_S:
            return False
        self._checked_s = now_s
        return bool(self._changed(state))

    def wrote(self, checkpoints: Mapping[str, bytes]) -> None:
        """The outbox holds these now."""
        whole = {CLOCK, CAPS, STEPS} & checkpoints.keys()
        self._written |= {name: checkpoints[name] for name in whole}

    def _changed(self, state: reduction.State) -> dict[str, bytes]:
        now = {
            CLOCK: cloud_clock.pack(state.clock),
            CAPS: caps.pack(state.caps),
            STEPS: clock_steps.pack(state.steps),
        }
        return {name: packed for name, packed in now.items() if packed != self._written.get(name)}


def of_sources(outbox: Outbox) -> dict[str, bytes]:
    """Return what sources asked to remember, by name."""
    return {name: packed for name, packed in outbox.checkpoints() if name.startswith(SOURCE)}


def recovered(outbox: Outbox, policy: reduction.Policy) -> reduction.State:
    """Return the rules' memory as the outbox holds it."""
    state = reduction.State(policy=policy)
    for name, packed in outbox.checkpoints():
        if name.startswith(LAYOUT):
            state.layouts.formats.learn(packed)
        elif name.startswith(METER):
            meter = memory.unpack(packed)
            if meter is not None:
                state.meters[name[len(METER) :]] = meter
        elif name == CLOCK:
            state.clock = cloud_clock.unpack(packed)
        elif name == CAPS:
            state.caps = caps.unpack(packed)
        elif name == STEPS:
            state.steps = clock_steps.unpack(packed)
    return state

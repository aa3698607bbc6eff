"""The agent's mind: step(state, input, now) → (state, effects). Pure; `shell` does the rest.

Two parts that know nothing of each other: `reduction` decides what becomes a row, `protocol`
what is sent when; what messages and acks tell of the cloud's clock is carried from the one to the
other. A state is used up by the call that gets it: go on with the returned one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from edge_agent import caps, clock_steps, cloud_clock, inputs, protocol, reduction
from edge_agent.inputs import Input, Now

Effect = reduction.Effect | protocol.Effect | inputs.SourceMemory

NONE: tuple[Effect, ...] = ()


@dataclass
class State:
    """What the agent knows. `pace` is told once."""

    reduction: reduction.State
    link: protocol.Link
    pace: protocol.Pace


def step(state: State, told: Input, now: Now) -> tuple[State, tuple[Effect, ...]]:
    """Take one input; return what to do about it, in order."""
    known = state.reduction
    if isinstance(told, inputs.Heard):
        state.reduction, effects = reduction.heard(known, told, now)
        return state, effects if told.memory is None else (*effects, told.memory)
    if isinstance(told, inputs.SourceMemory):
        return state, (told,)
    if isinstance(told, inputs.BadInput):
        state.reduction, effects = reduction.bad_input(known, told, now)
    elif isinstance(told, inputs.SourceChanged):
        state.reduction, effects = reduction.source_changed(known, told, now)
    elif isinstance(told, inputs.ClockStepped):
        told = replace(told, first=told.first or state.link.head + 1)
        state.reduction, effects = reduction.clock_stepped(known, told, now)
    elif isinstance(told, inputs.Scanned):
        state.reduction, effects = reduction.scanned(known, told, now)
    elif isinstance(told, inputs.Stopping):
        state.reduction, effects = reduction.stopping(known, now)
    elif isinstance(told, inputs.Tick):
        state.reduction, said = reduction.ticked(known, now)
        asked = _next_message(state, now, news=told.news) if told.free else NONE
        return state, (*said, *asked)
    else:
        return _link_step(state, told, now)
    return state, effects


def _link_step(state: State, told: Input, now: Now) -> tuple[State, tuple[Effect, ...]]:
    link, wall_s = state.link, now.wall_s
    effects: tuple[Effect, ...] = NONE
    _learn_clock(state, told, now)
    if isinstance(told, inputs.AckReceived):
        link, asked = protocol.acknowledged(
            link, told.ack, now_s=wall_s, pace=state.pace, chance=now.chance
        )
        effects = tuple(asked)
    elif isinstance(told, inputs.Connected):
        link = protocol.connected(link, now_s=wall_s)
    elif isinstance(told, inputs.Delivered):
        if told.rows:
            link = protocol.delivered(link, now_s=wall_s, pace=state.pace, chance=now.chance)
    elif isinstance(told, inputs.Disconnected):
        link = protocol.disconnected(link)
    elif isinstance(told, inputs.Committed):
        link = protocol.committed(link, first=told.first, head=told.head, now_s=wall_s)
        effects = _shed(told, now)
    elif isinstance(told, inputs.Published) and told.ahead:
        link = protocol.published_ahead(
            link,
            kind=told.ahead,
            last=told.last,
            reach=told.reach,
            now_s=wall_s,
            pace=state.pace,
            chance=now.chance,
        )
    elif isinstance(told, inputs.Published):
        link = protocol.published(
            link,
            last=told.last,
            rows=told.rows,
            now_s=wall_s,
            pace=state.pace,
            chance=now.chance,
            sent_at=told.sent_at,
        )
    elif isinstance(told, inputs.StreamRestarted):
        by = link.head - told.head
        state.reduction.steps = clock_steps.renumbered(state.reduction.steps, by)
        link = protocol.restarted(link, stream=told.stream, head=told.head, now_s=wall_s)
    state.link = link
    return state, effects


def _learn_clock(state: State, told: Input, now: Now) -> None:
    """Take what this input tells of the cloud's clock."""
    known, before = state.reduction, state.reduction.clock
    known.clock = _cloud_clock(state, told, now)
    sample = cloud_clock.newest(known.clock, before=before)
    if sample is not None:
        known.steps = clock_steps.measured(known.steps, sample)


def _cloud_clock(state: State, told: Input, now: Now) -> cloud_clock.CloudClock:
    """Return what is known of the cloud's clock after this input."""
    clock = state.reduction.clock
    if isinstance(told, inputs.Published) and not (told.ahead and told.last == 0):
        return cloud_clock.asked(clock, sent_at=told.sent_at)
    if isinstance(told, inputs.Connected):
        return cloud_clock.connected(clock)
    if isinstance(told, inputs.AckReceived) and told.ack.stream == state.link.stream:
        received_at = now.at if told.at is None else told.at
        return cloud_clock.answered(clock, cloud_at=told.ack.cloud_at, received_at=received_at)
    return clock


def _next_message(state: State, now: Now, *, news: bool) -> tuple[Effect, ...]:
    state.link, message = protocol.next_message(
        state.link, now_s=now.wall_s, pace=state.pace, chance=now.chance, news=news
    )
    return () if message is None else (message,)


def _shed(told: inputs.Committed, now: Now) -> tuple[Effect, ...]:
    """Say in the stream itself that unacknowledged rows were given up, and of what kinds."""
    if not told.shed_rows:
        return NONE
    said = {
        "kind": "shed",
        "count": told.shed_rows,
        "from_at": told.shed_from_at,
        "to_at": told.shed_to_at,
        **dict(told.shed_kinds),
    }
    return (inputs.Store(rows=(caps.report(said, at=now.at),)),)

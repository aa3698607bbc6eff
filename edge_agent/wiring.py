"""Put one agent together from its settings. The only place that names concrete parts."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

from edge_agent import clock_steps, core, protocol, reduction
from edge_agent.board import Board
from edge_agent.checkpoints import of_sources, recovered
from edge_agent.clock import Clock, clock_from
from edge_agent.config import Config
from edge_agent.forward import CloudLink
from edge_agent.gateway_keys import open_keys
from edge_agent.health import Health, Status
from edge_agent.keys import GatewayKeys
from edge_agent.lorawan_handover import handover
from edge_agent.outbox import Outbox, OutboxUnusable
from edge_agent.outbox_rescue import opened
from edge_agent.scan_source import NightlyScan
from edge_agent.settings_text import ConfigError
from edge_agent.shell import Agent, Log
from edge_agent.source_wiring import source_of
from edge_agent.sources.port import Inbox, Source

OUTBOX_FILE = "outbox.db"
LOCK_FILE = "agent.lock"
OURS_ALONE = 0o600


def locked(folder: Path) -> IO[bytes]:
    """Take the folder for this process, until the returned file is closed or the process ends.

    Two agents on one outbox would give one number to two rows. Raises OutboxUnusable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / LOCK_FILE).open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise OutboxUnusable(f"{folder}: another agent works on it") from None
    return lock


def open_outbox(config: Config, clock: Clock, log: Log = lambda event, **said: None) -> Outbox:
    """Open, make or rescue the outbox of a gateway. Raises OutboxUnusable or OSError."""
    config.state.mkdir(parents=True, exist_ok=True)
    path = config.state / OUTBOX_FILE
    for made in path.parent.glob(f"{OUTBOX_FILE}*"):
        made.chmod(OURS_ALONE)  # an agent before this one may have made it for all to read
    return opened(
        path,
        new_stream=lambda: os.urandom(16),
        now_us=clock.now_us(),
        limit=config.limit,
        log=log,
        ticks_us=clock.ticks_us,
    )


def clock_of(config: Config) -> Clock:
    """Return the gateway's clock. Raises ConfigError."""
    try:
        return clock_from(config.clock, offset_us=config.clock_offset_us)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def agent_of(
    config: Config,
    *,
    log: Log,
    with_sources: bool = True,
    instead: Callable[[Inbox, Clock], Source] | None = None,
    watcher: Callable[[Status], None] | None = None,
) -> Agent:
    """Return an agent that has recovered its memory; `instead`: its only source.

    watcher   is handed its status about once a second

    Raises ConfigError, KeyFileUnusable, OutboxUnusable.
    """
    clock = clock_of(config)
    keys = open_keys(config) if with_sources else GatewayKeys()  # to drain, nothing is opened
    log("keys", **keys.said())
    lock = locked(config.state)
    try:
        outbox = open_outbox(config, clock, log)
        memory = recovered(outbox, _policy(config, keys))
        memory.steps = _steps(memory.steps, outbox, clock)
        handed = handover(config, keys, of_sources(outbox))
    except BaseException:
        lock.close()
        raise
    inbox = Inbox()
    configured = config.sources if with_sources and instead is None else ()
    sources: tuple[Source, ...] = tuple(
        source_of(source, gateway=config.gateway, inbox=inbox, clock=clock, handover=handed)
        for source in configured
    )
    if instead is not None:
        sources = (instead(inbox, clock),)
    return Agent(
        gateway=config.gateway,
        state=core.State(reduction=memory, link=link_of(outbox), pace=config.pace),
        outbox=outbox,
        link=CloudLink(
            broker=config.broker, gateway=config.gateway, inbox=inbox, clock=clock, log=log
        ),
        sources=(*sources, *_scan(config, inbox, clock, log)) if configured else sources,
        health=Health(sources, Board(config.state), watcher, _settings(config)),
        inbox=inbox,
        clock=clock,
        log=log,
        lock=lock,
    )


def _steps(steps: clock_steps.Steps, outbox: Outbox, clock: Clock) -> clock_steps.Steps:
    """Return how the clock was set, as far as a new run of the agent can know."""
    now_at = clock.now_us()
    return clock_steps.begun(
        steps,
        life=clock.life(),
        ahead_us=now_at - clock.ticks_us(),
        head=outbox.opened_head,
        head_at=outbox.head_at,
        now_at=now_at,
    )


def _policy(config: Config, keys: GatewayKeys) -> reduction.Policy:
    return reduction.Policy(
        keys=keys.meters,
        only=config.meters,
        offset_us=config.meter_offset_us,
        offsets_us=config.meter_offsets_us,
        thresholds=config.thresholds,
    )


def _settings(config: Config) -> dict[str, int]:
    """Return what the cloud is told of how this gateway is set up."""
    return {
        "profile_lean": int(config.profile == "lean"),
        "outbox_limit_bytes": config.limit.bytes,
        "outbox_limit_days": round(config.limit.days),
    }


def _scan(config: Config, inbox: Inbox, clock: Clock, log: Log) -> tuple[Source, ...]:
    """Return what looks back over weeks each night."""
    outbox = config.state / OUTBOX_FILE
    return (NightlyScan(outbox=outbox, inbox=inbox, clock=clock, log=log),)


def link_of(outbox: Outbox) -> protocol.Link:
    """Return what a new run knows of its stream, before the cloud's first word."""
    return protocol.Link(
        stream=outbox.stream,
        first=outbox.first,
        head=outbox.head,
        opened=outbox.opened_head,
        acked=outbox.acked,
        sent=outbox.acked,
    )

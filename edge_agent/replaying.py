"""aquacis-edge replay: recorded lines through the same code as those of a radio.

The sources of the settings stay shut; all else is the agent as it runs: its outbox, its rules, its
cloud. It ends when every line is on disk, with `--drain` when the cloud has said that it holds all.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Final

from edge_agent.clock import Clock
from edge_agent.config import Config
from edge_agent.instants import SECOND_US
from edge_agent.shell import EXIT_OK, Agent, Log
from edge_agent.sources.port import Inbox, Source
from edge_agent.sources.replay import ReplayFeed
from edge_agent.sources.supervisor import Supervised
from edge_agent.wiring import agent_of

EXIT_NO_INPUT: Final = 66  # EX_NOINPUT
AS_FAST_AS_POSSIBLE: Final = "max"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments, but `--config`."""
    parser.add_argument("file", help="a file of recorded lines, or - for standard input")
    parser.add_argument(
        "--speed",
        type=speed,
        default=1.0,
        metavar="N|max",
        help="times as fast as recorded; max: as fast as possible; default 1",
    )
    parser.add_argument(
        "--rtl-zone-s",
        type=float,
        metavar="S",
        help="rtl-wmbus lines were heard at their own time, which is S seconds ahead of UTC; "
        "absent: they are heard now",
    )
    parser.add_argument(
        "--only-own", action="store_true", help="skip JSON lines that name another gateway"
    )
    parser.add_argument(
        "--drain",
        type=float,
        nargs="?",
        const=300.0,
        metavar="S",
        help="end when the cloud holds all, after at most S seconds (default 300)",
    )


def speed(said: str) -> float | None:
    """Read `--speed`. Raises ValueError."""
    if said == AS_FAST_AS_POSSIBLE:
        return None
    given = float(said)
    if not 0 < given < float("inf"):
        raise ValueError("speed: a number above 0, or max")
    return given


def replay(
    given: argparse.Namespace,
    config: Config,
    *,
    log: Log,
    stop_on_signals: Callable[[Callable[[], None]], None],
) -> int:
    """Play a recording to its end. Returns the exit code."""
    if given.file != "-" and not os.access(given.file, os.R_OK):
        log("recording_unreadable", file=given.file)
        return EXIT_NO_INPUT
    made: list[Supervised] = []

    def recording(inbox: Inbox, clock: Clock) -> Source:
        feed = ReplayFeed(
            path=given.file,
            clock=clock,
            speed=given.speed,
            rtl_zone_us=_micros(given.rtl_zone_s),
            only=config.gateway if given.only_own else None,
        )
        made.append(Supervised(feed, name="replay", inbox=inbox, again=False))
        return made[0]

    agent = agent_of(config, log=log, instead=recording)
    (source,) = made
    stopped = _stops(agent, stop_on_signals)
    code = agent.run(until=source.finished.is_set)
    if code != EXIT_OK or stopped():
        return code
    if source.figures()["source_replay_deaths"]:
        return EXIT_NO_INPUT
    if given.drain is None:
        return EXIT_OK
    rest = agent_of(config, log=log, with_sources=False)
    stop_on_signals(rest.stop)
    return rest.drain(given.drain)


def _stops(
    agent: Agent, stop_on_signals: Callable[[Callable[[], None]], None]
) -> Callable[[], bool]:
    """Stop the agent on a signal; the returned function says whether one came."""
    came: list[bool] = []

    def stop() -> None:
        came.append(True)
        agent.stop()

    stop_on_signals(stop)
    return lambda: bool(came)


def _micros(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * SECOND_US)

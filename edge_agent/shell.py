"""The agent's one loop: sources → core → outbox → cloud. Performs effects, reads the clocks.

Inputs are taken in groups: one transaction for at most `GROUP_INPUTS` inputs or `GROUP_S`, sooner
when the sources have nothing more at the moment. A source hears "it is on disk" only after that
commit. A commit that fails (full disk) is tried again with the same rows; meanwhile nothing is
taken, so the sources' own buffers fill instead of ours.
"""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import IO, Final

from decoders.uplink import RowFlag
from edge_agent import VERSION, clock_steps, core, inputs, protocol
from edge_agent.checkpoints import METER, Checkpoints
from edge_agent.clock import Clock
from edge_agent.forward import CloudLink, Echo, message_of
from edge_agent.health import Health
from edge_agent.inputs import Heard, Now
from edge_agent.masking import masked
from edge_agent.mqtt import SubscriptionRefused
from edge_agent.outbox import Draft, Outbox, Shed
from edge_agent.sources.port import Delivered, Inbox, Source

GROUP_INPUTS: Final = 500
GROUP_S: Final = 0.05
IDLE_S: Final = 0.004  # sources silent for this long: commit what there is
TICK_S: Final = 0.1
RETRY_S: Final = 1.0  # after a commit that failed
CATCH_UP_S: Final = 5.0  # at the end, for what the sources had read already
FAREWELL_S: Final = 2.0  # at the end, for the last acks
CLOCK_STEP_US: Final = 60_000_000  # less is slewing, or a process that was not scheduled
STEP_SHOWS_S: Final = 120.0  # after a step, frames from before it may come out of the queue
SILENCE_ATTEMPTS: Final = 3  # hellos; a broker drops what it forbids without a word
SAMPLING: Final = random.SystemRandom()

EXIT_OK: Final = 0
EXIT_TEMPORARY: Final = 75  # EX_TEMPFAIL: rows are left
EXIT_REFUSED: Final = 77  # EX_NOPERM: the broker does not let us read our topic

Log = Callable[..., None]


@dataclass
class Group:
    """What one group of inputs asks of the disk and of the sources."""

    rows: list[Draft] = field(default_factory=list)
    remember: set[str] = field(default_factory=set)
    memory: dict[str, bytes] = field(default_factory=dict)  # of sources
    layouts: list[bytes] = field(default_factory=list)
    forget: list[str] = field(default_factory=list)
    tokens: list[object] = field(default_factory=list)
    acknowledge: protocol.Acknowledge | None = None
    rejected: list[tuple[int, str]] = field(default_factory=list)
    give_up: list[protocol.GiveUp] = field(default_factory=list)
    heard: int = 0


class Agent:
    """One running gateway agent. `run` returns its exit code."""

    def __init__(
        self,
        *,
        gateway: str,
        state: core.State,
        outbox: Outbox,
        link: CloudLink,
        sources: tuple[Source, ...],
        inbox: Inbox,
        clock: Clock,
        log: Log,
        lock: IO[bytes] | None = None,
        health: Health | None = None,
    ) -> None:
        """`lock`: held open as long as the agent lives."""
        self._health = health or Health(sources)
        self._lock = lock
        self._gateway = gateway
        self._state = state
        self._outbox = outbox
        self._link = link
        self._sources = sources
        self._inbox = inbox
        self._clock = clock
        self._log = log
        self._echo = Echo()
        self._memory = Checkpoints()
        self._stopping = threading.Event()
        self._refused: SubscriptionRefused | None = None
        self._committed = 0
        self._told = -1  # value of `_committed` in the newest message
        self._until_s = float("inf")  # when commits that fail are given up
        steps = state.reduction.steps  # what an earlier run of this life took the clock for
        self._ahead_us = steps.ahead_us if steps.life else clock.now_us() - clock.ticks_us()
        self._step = (0, float("-inf"))  # the newest of this run: µs, when (monotonic)

    def stop(self) -> None:
        """Ask the loop to finish; safe in a signal handler."""
        self._stopping.set()

    def run(self, until: Callable[[], bool] = lambda: False) -> int:
        """Work until stopped or refused, or until `until` holds and all that came is on disk.

        Returns the exit code.
        """
        self._link.start()
        for source in self._sources:
            source.start()
        try:
            while not self._stopping.is_set() and self._refused is None:
                if until() and not len(self._inbox):
                    break
                self._turn(TICK_S)
        finally:
            self._finish()
        if self._refused is not None:
            self._log("subscription_refused", reason=str(self._refused))
            return EXIT_REFUSED
        return EXIT_OK

    def drain(self, timeout_s: float) -> int:
        """Send what is left, without sources, until the cloud has it all. Returns the exit code."""
        self._link.start()
        deadline_s = time.monotonic() + timeout_s
        while self._outbox.pending and not self._stopping.is_set() and self._refused is None:
            if time.monotonic() >= deadline_s:
                break
            self._turn(TICK_S)
        self._link.stop()
        pending = self._outbox.pending
        self._close()
        if self._refused is not None:
            self._log("subscription_refused", reason=str(self._refused))
            return EXIT_REFUSED
        return EXIT_TEMPORARY if pending else EXIT_OK

    def _close(self) -> None:
        self._outbox.close()
        if self._lock is not None:
            self._lock.close()

    def _turn(self, timeout_s: float) -> None:
        group = self._gather(timeout_s)
        self._watch_clock(group)
        self._commit(group)
        self._converse()
        self._report_health()

    def _gather(self, timeout_s: float) -> Group:
        """Take inputs until the group is full, old enough, or nothing more comes."""
        group = Group()
        given = self._inbox.get(timeout_s)
        until_s = time.monotonic() + GROUP_S
        now = self._now()
        taken = 0
        while given is not None:
            if self._watch_clock(group):
                now = self._now()
            self._take(given, now, group)
            taken += 1
            if taken >= GROUP_INPUTS or time.monotonic() >= until_s:
                break
            given = self._inbox.get(0) or self._inbox.get(IDLE_S)
        return group

    def _watch_clock(self, group: Group) -> bool:
        """Notice that the clock was set: it went otherwise than the one that nobody sets."""
        ahead_us = self._clock.now_us() - self._clock.ticks_us()
        step_us = ahead_us - self._ahead_us
        if abs(step_us) < CLOCK_STEP_US:
            return False
        self._ahead_us = ahead_us
        now = self._now()
        self._step = (step_us, now.wall_s)
        self._log("clock_stepped", by_us=step_us)
        first = self._outbox.head + len(group.rows) + 1
        told = inputs.ClockStepped(from_at=now.at - step_us, to_at=now.at, first=first)
        self._take(told, now, group)
        return True

    def _stamped(self, frame: Heard, now: Now) -> Heard:
        """Return a frame by the clock as it is: it may have waited while the clock was set."""
        step_us, since_s = self._step
        if now.wall_s - since_s > STEP_SHOWS_S or frame.flags & RowFlag.FOREIGN_CLOCK:
            return frame
        heard_at = clock_steps.restamped(frame.heard_at, now_at=now.at, by_us=step_us)
        return replace(frame, heard_at=heard_at)

    def _now(self) -> Now:
        return Now(at=self._clock.now_us(), wall_s=time.monotonic(), chance=SAMPLING.random())

    def _take(self, given: Delivered, now: Now, group: Group) -> None:
        if isinstance(given, SubscriptionRefused):
            self._refused = given
            return
        if isinstance(given, inputs.AckReceived):
            self._note_echo(given)
        elif isinstance(given, Heard | inputs.BadInput):
            group.heard += 1
            given = self._stamped(given, now) if isinstance(given, Heard) else given
        elif isinstance(given, inputs.SourceChanged):
            self._log(given.kind, source=given.source, reason=given.reason)
        for effect in self._stepped(given, now):
            self._plan(effect, group)

    def _stepped(self, given: inputs.Input, now: Now) -> tuple[core.Effect, ...]:
        """Let the core take an input; one that breaks it is reported, and its neighbours go on."""
        try:
            self._state, effects = core.step(self._state, given, now)
        except Exception as error:
            if not isinstance(given, Heard):
                raise
            self._log("frame_broke_us", error=masked(repr(error)), frame=given.frame.hex())
            bad = inputs.BadInput(
                source="core",
                code="internal",
                detail=type(error).__name__,
                given=given.frame,
                token=given.token,
            )
            self._state, effects = core.step(self._state, bad, now)
        return effects

    def _note_echo(self, given: inputs.AckReceived) -> None:
        same = given.ack.stream == self._outbox.stream
        self._health.acked(time.monotonic())
        if same and given.ack.cloud_at >= self._echo.cloud_at:
            self._echo = Echo(cloud_at=given.ack.cloud_at, ticks_us=self._clock.ticks_us())

    def _plan(self, effect: core.Effect, group: Group) -> None:
        if isinstance(effect, inputs.Store):
            group.rows += effect.rows
            group.remember.update(effect.remember)
            group.layouts += effect.layouts
        elif isinstance(effect, inputs.SourceMemory):
            group.memory[effect.name] = effect.packed
        elif isinstance(effect, inputs.Settle):
            group.tokens.append(effect.token)
        elif isinstance(effect, inputs.Forget):
            group.forget += effect.names
        elif isinstance(effect, protocol.Acknowledge):
            group.acknowledge = effect
            group.rejected += effect.rejected
        elif isinstance(effect, protocol.GiveUp):
            self._log("row_given_up", seq=effect.seq, code=effect.code)
            group.give_up.append(effect)
        elif isinstance(effect, protocol.RestartStream):
            self._restart_stream()
            group.acknowledge = None  # what is said of old numbers does not hold for the new ones
            group.rejected, group.give_up = [], []

    def _commit(self, group: Group) -> None:
        """Bring the group to disk, however long it takes, then tell the sources."""
        while not self._on_disk(group):
            if self._stopping.wait(RETRY_S) or time.monotonic() >= self._until_s:
                return
        if group.tokens:
            for source in self._sources:
                source.settle(group.tokens)
        self._committed += group.heard

    def _on_disk(self, group: Group) -> bool:
        try:
            told = group.rows or group.remember or group.layouts or group.memory
            if told or self._memory_is_due():
                self._append(group)
            if group.forget:
                self._outbox.forget([METER + name for name in group.forget])
                group.forget = []
            if group.acknowledge is not None:
                self._outbox.acknowledge(group.acknowledge.upto, group.rejected)
                group.acknowledge = None
            for row in group.give_up:
                self._outbox.give_up(row.seq, row.code)
            group.give_up = []
        except sqlite3.OperationalError as error:
            self._log("commit_failed", reason=str(error), rows=len(group.rows))
            return False
        return True

    def _memory_is_due(self) -> bool:
        return self._memory.are_due(self._state.reduction, now_s=time.monotonic())

    def _append(self, group: Group) -> None:
        """Commit the group's rows together with the memory that they led to."""
        checkpoints = self._memory.of(
            self._state.reduction, meters=group.remember, layouts=group.layouts
        )
        checkpoints |= group.memory
        shed = self._outbox.append(group.rows, checkpoints)
        self._memory.wrote(checkpoints)
        group.rows, group.layouts = [], []
        group.remember.clear()
        group.memory.clear()
        self._tell_committed(shed, group)

    def _tell_committed(self, shed: Shed | None, group: Group) -> None:
        told = inputs.Committed(
            first=self._outbox.first,
            head=self._outbox.head,
            shed_rows=shed.rows if shed else 0,
            shed_from_at=shed.from_at if shed else 0,
            shed_to_at=shed.to_at if shed else 0,
            shed_kinds=tuple(shed.kinds.items()) if shed else (),
        )
        self._state, effects = core.step(self._state, told, self._now())
        for effect in effects:
            self._plan(effect, group)
        if group.rows:  # the report of what was shed
            self._outbox.append(group.rows, {})
            group.rows = []
            self._tell_committed(None, group)

    def _restart_stream(self) -> None:
        self._outbox.restart_stream(os.urandom(16), now_us=self._clock.now_us())
        self._log("stream_restarted", stream=self._outbox.stream.hex(), rows=self._outbox.held)
        told = inputs.StreamRestarted(stream=self._outbox.stream, head=self._outbox.head)
        self._state, _ = core.step(self._state, told, self._now())

    def _converse(self) -> None:
        """Send all that may be sent now."""
        while True:
            news = self._committed != self._told
            told = inputs.Tick(news=news, free=self._link.is_free)
            self._state, effects = core.step(self._state, told, self._now())
            group = Group()
            asked = [effect for effect in effects if isinstance(effect, protocol.Publish)]
            for effect in effects:
                self._plan(effect, group)
            self._commit(group)
            if not asked:
                return
            for message in asked:
                self._publish(message)

    def _publish(self, asked: protocol.Publish) -> None:
        batch, told = message_of(
            self._outbox,
            asked,
            gateway=self._gateway,
            agent=VERSION,
            clock=self._clock,
            echo=self._echo,
            health=self.health(),
            traceparent=f"00-{os.urandom(16).hex()}-{os.urandom(8).hex()}-01",
            max_bytes=self._link.max_bytes,
            steps=self._state.reduction.steps,
        )
        if batch is not None:
            self._link.publish(batch)
            self._told = self._committed
        if not self._state.link.greeted and self._state.link.attempt == SILENCE_ATTEMPTS:
            self._log(
                "cloud_silent",
                hint="no answer to our hello: does the broker let this gateway publish on its "
                "topic, and does the cloud's intake run?",
            )
        self._state, _ = core.step(self._state, told, self._now())

    def health(self) -> dict[str, int]:
        """Return the figures that go to the log and with every message."""
        return self._health.of(
            self._state, self._outbox, committed=self._committed, inbox=len(self._inbox)
        )

    def _report_health(self) -> None:
        self._health.tell(self._state, self.health, at=self._clock.now_us(), log=self._log)

    def _finish(self) -> None:
        """Stop the sources, keep what they had read, give the last acks a moment."""
        for source in self._sources:
            source.stop()
        self._stopping.clear()  # so that a commit that fails is tried again, but not for ever
        self._until_s = time.monotonic() + CATCH_UP_S
        while len(self._inbox) and time.monotonic() < self._until_s:
            self._commit(self._gather(0))
        last = Group()
        self._take(inputs.Stopping(), self._now(), last)
        self._commit(last)
        self._inbox.close()
        end_s = time.monotonic() + FAREWELL_S
        connected = self._state.link.connected
        while connected and self._outbox.pending and time.monotonic() < end_s:
            self._converse()
            self._commit(self._gather(TICK_S))
        self._link.stop()
        self._log("stopped", **self.health())
        self._close()

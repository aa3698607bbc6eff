"""Keeps a source alive: whatever ends it is reported, and it is started again. One for all kinds.

A kind of source is a `Feed`: one blocking `run`. It returns when nothing more will come, and
raises when it died: the device is gone, the broker away or unwilling, or a fault of ours. Between
two starts the supervisor waits, longer each time and never quite as long as its neighbours, so
that a broker that comes back is not met by all its gateways at once. Each source has a thread of
its own: one that dies or hangs holds up no other.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final, Protocol, runtime_checkable

from decoders.value import value
from edge_agent.inputs import BadInput, Heard, SourceChanged, SourceMemory
from edge_agent.masking import without_keys
from edge_agent.sources.port import Inbox

BAD_BYTES: Final = 1024  # of what cannot be read, kept for its report
MASKED_BYTES: Final = 16_384  # of it, looked through for keys before it is cut; as long as a line
STOP_S: Final = 2.0  # then a thread that hangs is left behind
CHANCE: Final = random.SystemRandom()


@value
class Backoff:
    """How long to wait before start n + 1: first_s · 2ⁿ, at most most_s, times ½ … 1 by chance.

    steady_s   a source that was up for so long begins with short waits again
    """

    first_s: float = 1.0
    most_s: float = 30.0
    steady_s: float = 30.0

    def wait_s(self, deaths: int, chance: float) -> float:
        """Return the wait after so many deaths in a row. `chance` [0, 1).

        >>> [Backoff().wait_s(deaths, 0.0) for deaths in (1, 2, 3, 60)]
        [0.5, 1.0, 2.0, 15.0]
        """
        whole_s = min(self.most_s, self.first_s * 2.0 ** min(deaths - 1, 30))
        return whole_s * (0.5 + chance / 2)


class SourceDied(Exception):
    """A source cannot go on. Says why, for people."""


class Hearing:
    """What a feed has to go by: where its inputs go, and when it must end."""

    def __init__(self, name: str, inbox: Inbox) -> None:
        self.name = name
        self.stopping = threading.Event()
        self.heard = 0
        self.bad: dict[str, int] = {}
        self.up_since_s: float | None = None
        self._inbox = inbox

    def put(self, frame: Heard) -> None:
        """Hand over a frame; waits while the agent is behind."""
        self.heard += 1
        self._inbox.put(frame)

    def remember(self, memory: SourceMemory) -> None:
        """Have something written that a restart must not forget, after what was put before."""
        self._inbox.put(memory)

    def put_bad(self, code: str, detail: str, given: bytes, token: object = None) -> None:
        """Report what is no frame; its neighbours go through."""
        self.bad[code] = self.bad.get(code, 0) + 1
        kept = without_keys(given[:MASKED_BYTES])[:BAD_BYTES]
        said = detail.encode("utf-8", "replace")[:BAD_BYTES].decode("utf-8", "ignore")
        self._inbox.put(BadInput(source=self.name, code=code, detail=said, given=kept, token=token))

    def up(self, reason: str) -> None:
        """Say that the source works from now on."""
        if self.up_since_s is None:
            self.up_since_s = time.monotonic()
            self.say("source_up", reason)

    def say(self, kind: str, reason: str) -> None:
        self._inbox.put_now(SourceChanged(source=self.name, kind=kind, reason=reason))


class Feed(Protocol):
    """One kind of source. `where`: the device, file or topic, for people."""

    where: str

    def run(self, hearing: Hearing) -> None:
        """Work until `hearing.stopping` is set (notice it within a second) or nothing more comes.

        Call `hearing.up` once it works. Raises SourceDied, or anything else, when it cannot go on;
        what it holds open is closed by then.
        """

    def settle(self, tokens: list[object]) -> None:
        """Take back the tokens of inputs that are on disk now; from another thread."""


@runtime_checkable
class Counting(Protocol):
    """A feed with figures of its own for the health, each named after its kind."""

    def figures(self) -> Mapping[str, int]: ...


class Supervised:
    """A source that is started again whenever it dies. `sources.port.Source` for the agent."""

    def __init__(
        self,
        feed: Feed,
        *,
        name: str,
        inbox: Inbox,
        backoff: Backoff | None = None,
        chance: Callable[[], float] = CHANCE.random,
        again: bool = True,
    ) -> None:
        """`again`: start it again when it died; else it has finished then."""
        self.name = name
        self._again = again
        self.finished = threading.Event()
        self._feed = feed
        self._backoff = backoff or Backoff()
        self._chance = chance
        self._hearing = Hearing(name, inbox)
        self._deaths = 0  # in a row
        self._deaths_ever = 0
        self._told = ""  # the reason of the newest source_down; "" = it is not down
        self._thread = threading.Thread(target=self._work, name=f"source-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def settle(self, tokens: list[object]) -> None:
        self._feed.settle(tokens)

    def stop(self) -> None:
        self._hearing.stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=STOP_S)

    def figures(self) -> dict[str, int]:
        """Return this source's counts since the process began, for the health."""
        said = {
            "heard": self._hearing.heard,
            "bad": sum(self._hearing.bad.values()),
            "deaths": self._deaths_ever,
            "up": int(self._hearing.up_since_s is not None),
            **{f"bad_{code}": count for code, count in list(self._hearing.bad.items())},
        }
        own = self._feed.figures() if isinstance(self._feed, Counting) else {}
        return {**{f"source_{self.name}_{what}": count for what, count in said.items()}, **own}

    def _work(self) -> None:
        stopping = self._hearing.stopping
        while not stopping.is_set():
            try:
                self._feed.run(self._hearing)
            except Exception as death:  # whatever it was, it must not end the source for good
                self._died(reason_of(death))
                if not self._again:
                    self.finished.set()
                    return
                stopping.wait(self._backoff.wait_s(self._deaths, self._chance()))
                continue
            if not stopping.is_set():
                self._hearing.say("source_finished", self._feed.where)
                self._hearing.up_since_s = None
                self.finished.set()
            return

    def _died(self, reason: str) -> None:
        """Count a death; report the first of an outage, and each new reason."""
        since_s, self._hearing.up_since_s = self._hearing.up_since_s, None
        was_up = since_s is not None
        if since_s is not None and time.monotonic() - since_s >= self._backoff.steady_s:
            self._deaths = 0
        self._deaths += 1
        self._deaths_ever += 1
        if (was_up or reason != self._told) and not self._hearing.stopping.is_set():
            self._told = reason
            self._hearing.say("source_down", reason)


def reason_of(death: Exception) -> str:
    """Say for people what ended a source."""
    if isinstance(death, SourceDied):
        return str(death)
    if isinstance(death, OSError) and death.strerror:
        return f"{death.filename}: {death.strerror}" if death.filename else death.strerror
    return f"{type(death).__name__}: {death}"

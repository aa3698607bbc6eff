"""Whatever ends a source is reported, and it is started again; its neighbours never notice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from decoders.uplink import RowKind
from edge_agent.inputs import BadInput, Heard, SourceChanged
from edge_agent.sources.port import Delivered, Inbox
from edge_agent.sources.supervisor import Backoff, Feed, Hearing, SourceDied, Supervised

QUICK = Backoff(first_s=0.01, most_s=0.04, steady_s=0.2)
FRAME = Heard(kind=RowKind.WMBUS, frame=b"\x44", heard_at=1)


class Scripted:
    """Does one act at each start; the last one again and again."""

    def __init__(self, *acts: Callable[[Hearing], None]) -> None:
        self.where = "script"
        self.acts = acts
        self.starts = 0
        self.settled: list[object] = []

    def run(self, hearing: Hearing) -> None:
        act = self.acts[min(self.starts, len(self.acts) - 1)]
        self.starts += 1
        act(hearing)

    def settle(self, tokens: list[object]) -> None:
        self.settled += tokens


def works(hearing: Hearing) -> None:
    hearing.up("works")
    hearing.put(FRAME)
    hearing.stopping.wait(60)


def ends(hearing: Hearing) -> None:
    hearing.up("works")
    hearing.put(FRAME)


def dies(reason: str = "unplugged") -> Callable[[Hearing], None]:
    def act(_hearing: Hearing) -> None:
        raise SourceDied(reason)

    return act


def works_then_dies(hearing: Hearing) -> None:
    hearing.up("works")
    hearing.put(FRAME)
    raise ZeroDivisionError("a bug")


def misses_a_file(_hearing: Hearing) -> None:
    open("/no/such/device")  # noqa: SIM115  # it is not there


def supervised(feed: Feed, inbox: Inbox, backoff: Backoff = QUICK) -> Supervised:
    return Supervised(feed, name="radio", inbox=inbox, backoff=backoff)


def heard(inbox: Inbox, until: Callable[[list[Delivered]], bool]) -> list[Delivered]:
    got: list[Delivered] = []
    end = time.monotonic() + 10
    while not until(got) and time.monotonic() < end:
        given = inbox.get(0.05)
        if given is not None:
            got.append(given)
    assert until(got), got
    return got


def said(got: list[Delivered]) -> list[tuple[str, str]]:
    return [(given.kind, given.reason) for given in got if isinstance(given, SourceChanged)]


def test_a_source_that_dies_is_reported_and_started_again() -> None:
    inbox = Inbox()
    source = supervised(Scripted(works_then_dies, works), inbox)
    source.start()

    got = heard(inbox, lambda got: sum(given is FRAME for given in got) == 2)
    source.stop()

    assert said(got) == [
        ("source_up", "works"),
        ("source_down", "ZeroDivisionError: a bug"),
        ("source_up", "works"),
    ]
    assert source.figures() == {
        "source_radio_heard": 2,
        "source_radio_bad": 0,
        "source_radio_deaths": 1,
        "source_radio_up": 1,
    }


def test_an_outage_is_reported_once_and_again_when_its_reason_changes() -> None:
    inbox = Inbox()
    feed = Scripted(dies(), dies(), dies(), misses_a_file, misses_a_file, works)
    source = supervised(feed, inbox)
    source.start()

    got = heard(inbox, lambda got: any(given is FRAME for given in got))
    source.stop()

    assert said(got) == [
        ("source_down", "unplugged"),
        ("source_down", "/no/such/device: No such file or directory"),
        ("source_up", "works"),
    ]
    assert feed.starts == 6


def test_a_source_with_nothing_more_to_say_is_finished_and_not_started_again() -> None:
    inbox = Inbox()
    feed = Scripted(ends)
    source = supervised(feed, inbox)
    source.start()

    got = heard(inbox, lambda got: len(said(got)) == 2)

    assert said(got) == [("source_up", "works"), ("source_finished", "script")]
    assert source.finished.wait(5)
    assert feed.starts == 1
    assert source.figures()["source_radio_up"] == 0


def test_a_source_that_hangs_or_dies_holds_up_no_other() -> None:
    inbox = Inbox()
    hanging = threading.Event()

    def hangs(_hearing: Hearing) -> None:
        hanging.wait(60)

    sources = [
        supervised(Scripted(dies()), inbox, Backoff(first_s=0.001, most_s=0.001)),
        supervised(Scripted(hangs), inbox),
        supervised(Scripted(works), inbox),
    ]
    for source in sources:
        source.start()

    got = heard(inbox, lambda got: any(given is FRAME for given in got))

    assert any(given is FRAME for given in got)
    hanging.set()
    for source in sources:
        source.stop()


def test_stopping_ends_the_wait_for_the_next_start_at_once() -> None:
    inbox = Inbox()
    source = supervised(Scripted(dies()), inbox, Backoff(first_s=60, most_s=60))
    source.start()
    heard(inbox, lambda got: len(said(got)) == 1)

    began_s = time.monotonic()
    source.stop()

    assert time.monotonic() - began_s < 1


def test_a_source_that_was_up_for_long_begins_with_short_waits_again() -> None:
    waits: list[int] = []

    class Noting(Backoff):
        def wait_s(self, deaths: int, chance: float) -> float:
            waits.append(deaths)
            return 0.0

    def lives_long(hearing: Hearing) -> None:
        hearing.up("works")
        time.sleep(0.06)
        raise SourceDied("unplugged")

    inbox = Inbox()
    source = supervised(
        Scripted(dies(), dies(), lives_long, dies(), works), inbox, Noting(steady_s=0.05)
    )
    source.start()
    heard(inbox, lambda got: any(given is FRAME for given in got))
    source.stop()

    assert waits == [1, 2, 1, 2]


def test_bad_input_is_counted_and_cut_and_tokens_go_back_to_their_source() -> None:
    def mumbles(hearing: Hearing) -> None:
        hearing.put_bad("checksum", "wrong", bytes(5000), "t")

    inbox = Inbox()
    feed = Scripted(mumbles)
    source = supervised(feed, inbox)
    source.start()
    got = heard(inbox, lambda got: len(said(got)) == 1)
    source.settle(["t"])

    (bad,) = [given for given in got if isinstance(given, BadInput)]
    assert (bad.source, bad.code, len(bad.given), bad.token) == ("radio", "checksum", 1024, "t")
    assert source.figures()["source_radio_bad"] == 1
    assert source.figures()["source_radio_bad_checksum"] == 1
    assert feed.settled == ["t"]


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_waits_grow_to_their_limit_and_are_never_zero(deaths: int, chance: float) -> None:
    backoff = Backoff()

    wait_s = backoff.wait_s(deaths, chance)

    assert 0.5 <= wait_s <= 30
    assert backoff.wait_s(deaths, 0) <= wait_s <= 2 * backoff.wait_s(deaths, 0)

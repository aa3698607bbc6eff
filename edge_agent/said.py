"""Which message an answer of the cloud belongs to, as far as that can be known. Pure.

An answer names the message it answers by its `sent`. A cloud that does not say it yet answers in
the order of the messages, but slowly, or not at all: then as many refusals are passed over as
there may be answers to other messages on their way.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from decoders.value import value

COPIES: Final = 16  # of one message whose answers are still recognized
MOST_OWED: Final = 16  # answers waited for; a bad row must be found although many were lost


@value
class Said:
    """The newest message with rows in order.

    rows, last   how many rows it has, and the number of the last of them
    at           when it was sent (µs, as in the message), and copies of it
    hello_at     when the newest hello was sent, None where it was before this message
    owed         answers that may still come, to messages that are not waited for any more
    doubt        refusals that may belong to others than this message
    """

    rows: int = 0
    last: int = 0
    at: tuple[int, ...] = ()
    hello_at: int | None = None
    owed: int = 0
    doubt: int = 0


def sent(said: Said, *, rows: int, last: int, sent_at: int, unanswered: int) -> Said:
    """A message went out; `unanswered` others before it wait for an answer."""
    if not last:
        return replace(said, hello_at=sent_at)
    if (rows, last) == (said.rows, said.last):
        return replace(said, at=(*said.at, sent_at)[-COPIES:], hello_at=None)
    doubt = min(MOST_OWED, said.owed + unanswered)
    return replace(said, rows=rows, last=last, at=(sent_at,), hello_at=None, doubt=doubt)


def waived(said: Said, unanswered: int) -> Said:
    """So many answers are not waited for any more; they may come all the same."""
    return replace(said, owed=min(MOST_OWED, said.owed + unanswered))

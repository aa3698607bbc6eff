"""The marker for real programs skips, and names what is missing."""

from __future__ import annotations

import pytest

from tests.real_parts import PROGRAMS, missing


def test_a_part_that_is_not_there_is_named() -> None:
    reason = missing("no-such-broker", {"no-such-broker": "/usr/sbin/no-such-broker"})

    assert reason is not None
    assert "no-such-broker" in reason
    assert "apt-get install" in reason


def test_a_part_that_is_there_is_used() -> None:
    assert missing("sh", {"sh": "/bin/sh"}) is None


def test_a_misspelt_part_is_an_error_and_no_skip() -> None:
    with pytest.raises(KeyError):
        missing("mosquito", PROGRAMS)

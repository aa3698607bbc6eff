from __future__ import annotations

from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.instants import BadInstant, iso, micros


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-24T08:35:52.282480+00:00", 1_795_509_352_282_480),
        ("2026-11-24T08:35:52.283429466+00:00", 1_795_509_352_283_429),
        ("2026-11-24T08:35:52Z", 1_795_509_352_000_000),
        ("2026-11-24 08:35:52", 1_795_509_352_000_000),
        ("2026-11-24T02:35-06:00", 1_795_509_300_000_000),
        ("2026-11-24T14:05:52.5+0530", 1_795_509_352_500_000),
    ],
)
def test_the_forms_that_servers_and_people_write(text: str, expected: int) -> None:
    assert micros(text) == expected


@pytest.mark.parametrize(
    "wrong",
    ["", "yesterday", "2026-13-01T00:00Z", "2026-02-30T00:00Z", None, True, 1.5, -1, 1 << 70],
)
def test_what_is_no_instant_is_refused(wrong: object) -> None:
    with pytest.raises(BadInstant):
        micros(wrong)


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2200, 1, 1)))  # noqa: DTZ001
def test_every_microsecond_comes_back(moment: datetime) -> None:
    at = micros(moment.isoformat())

    assert (
        at == round(moment.replace(tzinfo=timezone.utc).timestamp() * 1e6)
        or abs(at / 1e6 - moment.replace(tzinfo=timezone.utc).timestamp()) < 1e-5
    )
    assert iso(at)[:19] == moment.isoformat()[:19]

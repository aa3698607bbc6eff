"""Dead letters: found, counted, closed."""

from __future__ import annotations

from uuid import UUID

import pytest

from cloud.kernel import deadletter
from cloud.kernel.blobs import BlobMissing
from cloud.kernel.db import Database
from cloud.kernel.deadletter import NoSuchDeadLetter, code_of
from cloud.kernel.events import EventType, json_event


class Refused(ValueError):
    code = "meter_unknown"


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (Refused(), "meter_unknown"),
        (ValueError("any"), "value_error"),
        (BlobMissing("ab"), "blob_missing"),
        (KeyError(1), "key_error"),
    ],
)
def test_a_failure_has_a_stable_code(failure: Exception, code: str) -> None:
    assert code_of(failure) == code


def bury(database: Database, n: int, *, code: str = "refused", reason: str = "why") -> int:
    event = json_event(
        EventType(name="thing.happened", version=1),
        {"n": n},
        id=UUID(int=n),
        source="metering",
        time=1,
        key=n,
    )
    with database.connect("operations") as connection:
        return deadletter.record_event(
            connection, event, subscription="any", code=code, reason=reason, attempts=5
        )


def test_dead_letters_are_found_by_state_and_code_page_by_page(database: Database) -> None:
    numbers = [bury(database, n, code="odd" if n % 2 else "even") for n in range(6)]
    with database.connect("operations") as connection:
        deadletter.dismiss(connection, numbers[1])

        def found(**wanted: object) -> list[int]:
            return [each.id for each in deadletter.find(connection, **wanted)]  # type: ignore[arg-type]

        assert found() == [numbers[n] for n in (0, 2, 3, 4, 5)]
        assert found(code="odd") == [numbers[3], numbers[5]]
        assert found(state="dismissed") == [numbers[1]]
        assert found(state=None, limit=2) == numbers[:2]
        assert found(state=None, after=numbers[3], limit=2) == numbers[4:]


def test_a_reason_is_kept_short_and_storable(database: Database) -> None:
    number = bury(database, 1, reason="\0" + "x" * 10_000 + "the end")

    with database.connect("operations") as connection:
        reason = deadletter.get(connection, number).reason

    assert len(reason) == deadletter.REASON_CHARACTERS_MAX
    assert reason.endswith("the end")


def test_dismissing_what_is_not_there_says_so(database: Database) -> None:
    with (
        database.connect("operations") as connection,
        pytest.raises(NoSuchDeadLetter, match="no dead letter 7"),
    ):
        deadletter.dismiss(connection, 7)

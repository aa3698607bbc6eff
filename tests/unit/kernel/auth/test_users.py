"""Who may sign in: passwords, and the lock after failed tries."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from argon2 import PasswordHasher

from cloud.kernel import auth
from cloud.kernel.auth import passwords, users
from cloud.kernel.auth.passwords import UserInvalid
from cloud.kernel.auth.principal import Role
from cloud.kernel.auth.users import SignInRefused, User
from cloud.kernel.db import Database

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
PASSWORD = "agua-de-la-llave-7"
MINUTE = timedelta(minutes=1)
REAL = passwords._hasher
WEAK = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)

SignIn = Callable[..., User]


@pytest.fixture(autouse=True)
def _cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash in a millisecond: these tests try hundreds of passwords."""
    monkeypatch.setattr(passwords, "_hasher", WEAK)


@pytest.fixture
def database(module_database: Database) -> Database:
    """The module's database without people: quicker than a fresh one for each test."""
    with module_database.connect("kernel") as connection:
        connection.execute("TRUNCATE users, login_tries CASCADE")
    return module_database


@pytest.fixture
def sign_in(database: Database) -> SignIn:
    auth.ensure_user(database, "ana", [Role.CLERK], ["queretaro"], PASSWORD)

    def signed_in(name: str = "ana", password: str = PASSWORD, at: datetime = NOW) -> User:
        return users.sign_in(
            lambda: database.connect("kernel"), name=name, password=password, now=at
        )

    return signed_in


def fail(sign_in: SignIn, times: int, *, name: str = "ana", at: datetime = NOW) -> None:
    for _ in range(times):
        with pytest.raises(SignInRefused) as refused:
            sign_in(name, "not-the-password", at)
        assert refused.value.locked_until is None


def test_name_and_password_open(sign_in: SignIn) -> None:
    user = sign_in()

    assert (user.name, user.roles, user.administrations) == ("ana", ("clerk",), ("queretaro",))
    assert sign_in("  ANA ").user_id == user.user_id  # as people type it on a phone


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("ana", "wrong"),
        ("ana", ""),
        ("ana", PASSWORD + " "),
        ("ana", "x" * 5_000),
        ("eva", PASSWORD),
        ("ana\0", PASSWORD),
        ("' OR true --", PASSWORD),
    ],
)
def test_anything_else_does_not_and_looks_the_same(
    sign_in: SignIn, name: str, password: str
) -> None:
    with pytest.raises(SignInRefused, match="wrong name or password"):
        sign_in(name, password)


def test_the_password_is_stored_as_argon2id_alone(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passwords, "_hasher", REAL)
    auth.ensure_user(database, "ana", [Role.CLERK], ["queretaro"], PASSWORD)

    with database.connect("kernel") as connection:
        (row,) = connection.execute("SELECT u::text, password_hash FROM users u").fetchall()

    assert str(row[1]).startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert PASSWORD not in str(row[0])


def test_five_failures_lock_also_the_right_password(sign_in: SignIn) -> None:
    fail(sign_in, 5)

    with pytest.raises(SignInRefused) as refused:
        sign_in()

    assert refused.value.locked_until == NOW + MINUTE


def test_the_lock_opens_and_a_success_forgets_the_failures(sign_in: SignIn) -> None:
    fail(sign_in, 5)

    sign_in(at=NOW + MINUTE)

    fail(sign_in, 4, at=NOW + MINUTE)
    sign_in(at=NOW + MINUTE)


def test_the_fifth_try_may_still_be_the_right_one(sign_in: SignIn) -> None:
    fail(sign_in, 4)

    sign_in()


def test_each_further_failure_doubles_the_lock_up_to_a_quarter_of_an_hour(
    sign_in: SignIn,
) -> None:
    fail(sign_in, 5)
    at, waits = NOW, []
    for _ in range(6):
        with pytest.raises(SignInRefused) as locked:
            sign_in(at=at)
        assert locked.value.locked_until is not None
        waits.append((locked.value.locked_until - at) / MINUTE)
        at = locked.value.locked_until
        fail(sign_in, 1, at=at)

    assert waits == [1, 2, 4, 8, 15, 15]


def test_tries_while_locked_do_not_lock_for_longer(sign_in: SignIn) -> None:
    fail(sign_in, 5)
    for second in range(30):
        with pytest.raises(SignInRefused):
            sign_in(at=NOW + timedelta(seconds=second))

    sign_in(at=NOW + MINUTE)


def test_failures_of_an_hour_ago_do_not_count(sign_in: SignIn) -> None:
    fail(sign_in, 4)

    fail(sign_in, 4, at=NOW + timedelta(hours=1, seconds=1))


def test_an_unknown_name_locks_just_so_and_does_not_tell(sign_in: SignIn) -> None:
    fail(sign_in, 5, name="eva")

    with pytest.raises(SignInRefused) as refused:
        sign_in("eva")

    assert refused.value.locked_until == NOW + MINUTE
    sign_in()  # one name's lock is nobody else's


def test_tries_in_parallel_are_counted_each(sign_in: SignIn) -> None:
    def attempt(_: int) -> bool:
        try:
            sign_in("ana", "not-the-password")
        except SignInRefused as refused:
            return refused.locked_until is None
        return False

    with ThreadPoolExecutor(8) as threads:
        looked_at = sum(threads.map(attempt, range(16)))

    assert looked_at == users.TRIES


def test_a_new_password_lifts_the_lock_and_replaces_the_old(
    sign_in: SignIn, database: Database
) -> None:
    fail(sign_in, 5)

    with database.connect("kernel") as connection:
        users.set_password(connection, name="ana", password="otra-clave-larga-9", now=NOW)

    sign_in(password="otra-clave-larga-9")
    with pytest.raises(SignInRefused):
        sign_in()


def test_ensuring_a_user_twice_keeps_who_they_are(sign_in: SignIn, database: Database) -> None:
    before = sign_in()

    auth.ensure_user(database, "ana", [Role.NETWORK, Role.ADMIN], ["*"], "otra-clave-larga-9")

    after = sign_in(password="otra-clave-larga-9")
    assert after.user_id == before.user_id
    assert (after.roles, after.administrations) == (("admin", "network"), ("*",))


@pytest.mark.parametrize("name", ["", "Ana", "ana maría", "../ana", "-ana", "a" * 65, "ana\n"])
def test_a_name_that_is_none_is_refused(database: Database, name: str) -> None:
    with pytest.raises(UserInvalid, match="minúsculas"):
        auth.ensure_user(database, name, [Role.CLERK], [], PASSWORD)


@pytest.mark.parametrize("password", ["", "short", "x" * 257, "aaaaaaaaaaaaaaaa"])
def test_a_weak_password_is_refused(database: Database, password: str) -> None:
    with pytest.raises(UserInvalid, match="contraseña"):
        auth.ensure_user(database, "ana", [Role.CLERK], [], password)


def test_a_role_that_does_not_exist_is_refused(database: Database) -> None:
    roles: Any = ["emperor"]
    with pytest.raises(ValueError, match="emperor"):
        auth.ensure_user(database, "ana", roles, [], PASSWORD)


def test_a_password_of_somebody_who_is_not_there_cannot_change(database: Database) -> None:
    with database.connect("kernel") as connection, pytest.raises(UserInvalid, match="no hay"):
        users.set_password(connection, name="eva", password=PASSWORD, now=NOW)


def test_old_tries_are_forgotten(sign_in: SignIn, database: Database) -> None:
    fail(sign_in, 1)

    with database.connect("kernel") as connection:
        users.purge_tries(connection, NOW + timedelta(hours=2))
        assert connection.execute("SELECT FROM login_tries").fetchall() == []


def test_a_hash_of_weaker_days_is_made_anew_at_sign_in(
    sign_in: SignIn, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passwords, "_hasher", REAL)

    sign_in()

    with database.connect("kernel") as connection:
        ((stored,),) = connection.execute("SELECT password_hash FROM users").fetchall()
    assert not passwords.outdated(str(stored))

"""Passwords: what is acceptable, and argon2id, a few at a time."""

from __future__ import annotations

import secrets
import threading
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

PASSWORD_CHARACTERS_MIN = 12  # NIST SP 800-63B-4 asks 15 alone, 8 with a second factor
PASSWORD_CHARACTERS_MAX = 256  # hashing a megabyte is an attack
DIFFERENT_CHARACTERS_MIN = 4
VERIFIES_AT_ONCE = 2  # each takes 64 MiB
VERIFY_WAIT_S = 10.0

_hasher = PasswordHasher()  # argon2id, 64 MiB, 3 passes, 4 lanes: RFC 9106, second choice
_verifying = threading.BoundedSemaphore(VERIFIES_AT_ONCE)


class UserInvalid(ValueError):
    """A user cannot be stored so; the message is Spanish, for who types the command."""


class TooBusy(Exception):
    """More people are signing in than this process can check."""


def check_password(password: str) -> None:
    """Raise `UserInvalid` for a password nobody should have."""
    if not PASSWORD_CHARACTERS_MIN <= len(password) <= PASSWORD_CHARACTERS_MAX:
        raise UserInvalid(
            f"la contraseña debe tener de {PASSWORD_CHARACTERS_MIN} a "
            f"{PASSWORD_CHARACTERS_MAX} caracteres"
        )
    if len(set(password)) < DIFFERENT_CHARACTERS_MIN:
        raise UserInvalid("la contraseña repite casi siempre el mismo carácter")


def hashed(password: str) -> str:
    with _Turn():
        return _hasher.hash(password)


def verified(stored: str, password: str) -> bool:
    """Say whether `password` is the one of the hash. Raises `TooBusy`."""
    if len(password) > PASSWORD_CHARACTERS_MAX:
        return False
    with _Turn():
        try:
            return _hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False


@cache
def hash_of_nobody() -> str:
    """Return a hash that no password opens: checking an unknown name takes as long as a known."""
    return hashed(secrets.token_urlsafe())


def outdated(stored: str) -> bool:
    """Say whether a hash was made with parameters weaker than today's."""
    return _hasher.check_needs_rehash(stored)


class _Turn:
    """Wait for one of the few places in which passwords are hashed."""

    def __enter__(self) -> None:
        if not _verifying.acquire(timeout=VERIFY_WAIT_S):
            raise TooBusy

    def __exit__(self, *_: object) -> None:
        _verifying.release()

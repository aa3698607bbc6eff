"""Who acts: a subject, what they may do, and for which administrations."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from decoders.value import value

ALL_ADMINISTRATIONS = "*"


class Role(StrEnum):
    """What a person or machine may do; the words that stand in tokens."""

    CITIZEN = "citizen"  # their own household
    FIELD = "field"  # a crew: meters and alerts
    CLERK = "clerk"  # a counter: meters and readings
    SUPERVISOR = "supervisor"  # a counter's chief, and the pipeline
    NETWORK = "network"  # gateways, dead letters, the pipeline
    ADMIN = "admin"
    GATEWAY = "gateway"  # a machine: no route of ours lets it read


@value
class Principal:
    """The authenticated caller of one request."""

    subject: str  # stable at the issuer; never a name
    roles: frozenset[Role]
    administrations: tuple[str, ...]  # codes; "*" is already expanded to those configured
    name: str | None = None  # to greet, never to decide

    def sees(self, administration: str) -> bool:
        """Say whether rows of `administration` exist for this caller."""
        return administration in self.administrations

    def has_any(self, roles: Iterable[Role]) -> bool:
        return not self.roles.isdisjoint(roles)


def granted(claimed: Iterable[str], configured: tuple[str, ...]) -> tuple[str, ...]:
    """Return the configured administrations among those a token claims."""
    claims = frozenset(claimed)
    if ALL_ADMINISTRATIONS in claims:
        return configured
    return tuple(code for code in configured if code in claims)


def known_roles(claimed: Iterable[str]) -> frozenset[Role]:
    """Return our roles among those claimed: an issuer of a whole company knows many others."""
    ours = {role.value: role for role in Role}
    return frozenset(ours[name] for name in claimed if name in ours)

"""URLs among the settings: what in them is secret, and whether what they name is encrypted."""

from __future__ import annotations

import re
from ipaddress import ip_address
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict

from decoders.value import value

MASK = "***"
BROKER_FORM = "mqtt://servidor:puerto o mqtts://servidor:puerto"
ENCRYPTED = frozenset({"require", "verify-ca", "verify-full"})  # libpq's sslmode; others fall back
_SECRET = re.compile(r"(?i)pass|secret|token")  # names of a query's secrets


@value
class BrokerAddress:
    """Where the broker is, without the credentials that its URL carried."""

    url: str
    user: str | None
    password: str | None


def broker_address(url: str) -> BrokerAddress:
    """Take a broker's URL apart. Raises ValueError, which shows nothing of it."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"mqtt", "mqtts"} and parts.hostname and parts.port != 0
    except ValueError:  # a port that is none, a host that is none
        raise ValueError(BROKER_FORM) from None
    if not usable or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError(BROKER_FORM)
    host = parts.netloc.rpartition("@")[2]
    return BrokerAddress(
        url=f"{parts.scheme}://{host}",
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
    )


def without_password(url: str) -> str:
    """Return `url` with its passwords masked: before the host and in the query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return MASK
    netloc, query = parts.netloc, parts.query
    if parts.password is not None:
        netloc = f"{parts.username or ''}:{MASK}@{netloc.rpartition('@')[2]}"
    pairs = parse_qsl(query, keep_blank_values=True)
    if any(_SECRET.search(name) for name, _ in pairs):
        kept = [(name, MASK if _SECRET.search(name) else text) for name, text in pairs]
        query = urlencode(kept, safe="*/:")
    return urlunsplit(parts._replace(netloc=netloc, query=query))


def passwords_in(url: str) -> tuple[str, ...]:
    """Return the passwords that `url`, or a libpq connection string, carries: raw and decoded."""
    found: set[str] = set()
    try:
        parts = urlsplit(url)
        found.add(parts.password or "")
        found |= {text for name, text in parse_qsl(parts.query) if _SECRET.search(name)}
    except ValueError:
        pass
    if is_database_url(url):
        found.add(str(conninfo_to_dict(url).get("password") or ""))
    found |= {unquote(text) for text in found}
    return tuple(sorted(found - {""}))


def is_database_url(url: str) -> bool:
    """Say whether libpq understands `url`."""
    try:
        conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        return False
    return True


def database_is_plain(url: str) -> bool:
    """Say whether the connection may leave this machine without TLS.

    What `url` does not say, libpq takes from its own variables (PGHOST, PGSSLMODE), as it will
    when it connects. A service file may name any host.
    """
    told = {
        option.keyword.decode(): option.val.decode()
        for option in pq.Conninfo.get_defaults()
        if option.val
    }
    told |= {name: str(text) for name, text in conninfo_to_dict(url).items() if text is not None}
    if told.get("sslmode") in ENCRYPTED:
        return False
    hosts = [*told.get("host", "").split(","), *told.get("hostaddr", "").split(",")]
    return "service" in told or not all(_is_here(host) for host in hosts)


def _is_here(host: str) -> bool:
    """Say whether `host` is this machine: its loopback, or a socket in a folder."""
    if host in {"", "localhost"} or host.startswith(("/", "@")):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False

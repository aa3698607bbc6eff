"""`up --input FILE`: telegrams of yours instead of a city.

JSON lines: `telegram_hex`, `key_hex`, `prior_telegrams_hex`, `already_decrypted`, or `payload_hex`,
`fport`, `dev_eui`, `f_cnt`, and in both cases `heard_at`, `gateway`. Each gateway named gets an
agent of its own that reads its lines; lines that name none, or cannot be read, go to one agent
more, so that what is wrong with them is reported like everything else. Keys go to the cloud too.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

from cloud.metering.registry import NewMeter
from decoders.ids import MeterId
from decoders.uplink import MAX_GATEWAY_CHARACTERS
from decoders.value import value
from field_sim.broker import CITY, CLOUD
from field_sim.sandbox import ADMINISTRATION, Agent, UpFailed
from field_sim.texts import replace_text

NO_GATEWAY = "entrada"
WIRE_ADDRESS = slice(2, 10)  # of a wM-Bus frame: after L and C
KEY_BYTES = 16


@value
class Telegram:
    """One line, as far as it matters here: whose it is, and a key that came with it.

    named   the gateway's name in the line; None where it has none
    """

    gateway: str
    text: str
    key: NewMeter | None
    named: str | None = None


def read_lines(path: Path) -> list[str]:
    """Read the file, or standard input for "-". Raises UpFailed."""
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no es texto UTF-8"
        raise UpFailed("input_unreadable", f"no se puede leer {path}: {reason}") from error
    return [line for line in text.splitlines() if line.strip()]


def understood(line: str) -> Telegram:
    """Find out whose line it is. Never raises: what is wrong with it, its agent reports."""
    try:
        said = json.loads(line)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        return Telegram(gateway=NO_GATEWAY, text=line, key=None)
    named = str(said["gateway"]) if said.get("gateway") else None
    gateway = NO_GATEWAY if named is None else gateway_id(named)
    # the agent takes only lines that name it, so the name it got is the name in its line
    told = json.dumps({**said, "gateway": gateway}, ensure_ascii=False)
    return Telegram(gateway=gateway, text=told, key=_key(said), named=named)


def gateway_id(name: str) -> str:
    """Return `name` as a gateway's id: a-z, 0-9 and hyphen, at most 32 characters.

    One that is an account of ours at the broker is given another name: `cloud`, `gateway-cloud`.
    """
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if plain in {CLOUD, CITY}:
        plain = f"gateway-{plain}"
    return plain[:MAX_GATEWAY_CHARACTERS].strip("-") or NO_GATEWAY


def _key(said: dict[str, object]) -> NewMeter | None:
    try:
        frame = bytes.fromhex(str(said["telegram_hex"]))
        key = bytes.fromhex(str(said["key_hex"]))
        meter = MeterId.from_wire(frame[WIRE_ADDRESS])
    except (KeyError, ValueError, AssertionError):
        return None
    if len(key) != KEY_BYTES:
        return None
    return NewMeter(name=str(meter), administration=ADMINISTRATION, key=key)


def agents_for(state: Path, telegrams: Iterable[Telegram]) -> list[Agent]:
    """Write each gateway's lines into a file of its own and describe its agent."""
    lines: dict[str, list[str]] = {}
    for telegram in telegrams:
        lines.setdefault(telegram.gateway, []).append(telegram.text)
    agents = []
    for gateway, own in lines.items():
        path = state / "agents" / gateway / "input.jsonl"
        replace_text(path, "\n".join(own) + "\n")  # it holds keys
        agents.append(
            Agent(
                gateway=gateway,
                name=gateway,
                application=str(uuid5(NAMESPACE_URL, f"aquacis:input:{gateway}")),
                sources=({"kind": "lines", "path": str(path)},),
                keys={},
            )
        )
    return agents


def keys_of(telegrams: Iterable[Telegram]) -> list[NewMeter]:
    """Return the meters that came with a key, each once for each key, in the file's order."""
    seen: dict[tuple[str, bytes | None], NewMeter] = {}
    for telegram in telegrams:
        if telegram.key is not None:
            seen.setdefault((telegram.key.name, telegram.key.key), telegram.key)
    return list(seen.values())

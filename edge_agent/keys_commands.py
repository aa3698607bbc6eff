"""`aquacis-edge keys import | rotate | list`: what is in the sealed key file, changed as a whole.

Each command reads the whole file, makes the new one beside it and renames: a power cut leaves the
old file or the new one. Nothing is taken in part: one line that cannot be taken refuses them all.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, TextIO

from edge_agent.config import Config
from edge_agent.gateway_keys import a_private_key, keys_path, open_file, own_private_key
from edge_agent.keys import (
    MAX_VERSIONS,
    Given,
    KeyFileUnusable,
    LorawanKeys,
    address_of,
    dev_eui_of,
    given_by,
    read_lines,
)
from edge_agent.keys_sealed import alone, is_sealed, read_sealed, sealed, write_sealed

EXIT_OK: Final = 0
STANDARD_INPUT: Final = "-"
NAMED: Final = 5  # meters that a refusal names

Answer = Callable[[argparse.Namespace, Config], int]

HELP: Final = """\
  keys import FILE --assigned LIST   take keys (JSON lines, mode 0600) of the meters that LIST names
  keys rotate [FILE]                 seal anew; with FILE, add the new versions of meters' keys
  keys rotate --to-key NEW           let the file open with a new private key too, then install NEW
                                     as key_file, then `keys rotate`: from then on with NEW alone
  keys rotate --from-key OLD         the private key was replaced already: open with OLD once more
  keys list                          meters and versions, never a key
"""


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Register import, rotate and list; each gets `answer`: (arguments, config) → exit code."""
    parser.epilog = HELP
    commands = parser.add_subparsers(required=True, metavar="WHAT")
    importing = commands.add_parser("import", help="take keys from JSON lines, mode 0600")
    importing.add_argument("file", type=Path, metavar="FILE", help="or - for standard input")
    importing.add_argument(
        "--assigned",
        type=Path,
        metavar="LIST",
        help="one meter a line: from now on this gateway's meters; keys of others are dropped",
    )
    importing.add_argument(
        "--assign-all", action="store_true", help="every meter in FILE is this gateway's"
    )
    importing.add_argument(
        "--skip-foreign", action="store_true", help="leave out other gateways' meters in FILE"
    )
    importing.add_argument(
        "--replace", action="store_true", help="a key may take the place of one of its version"
    )
    importing.set_defaults(answer=import_keys)
    rotating = commands.add_parser("rotate", help="seal anew, with new keys or a new private key")
    rotating.add_argument("file", type=Path, nargs="?", metavar="FILE")
    which = rotating.add_mutually_exclusive_group()
    which.add_argument("--to-key", type=Path, metavar="PEM", help="let this private key open too")
    which.add_argument("--from-key", type=Path, metavar="PEM", help="the one that opens it so far")
    rotating.add_argument(
        "--drop-older", action="store_true", help="keep the newest version of each key alone"
    )
    rotating.set_defaults(answer=rotate_keys)
    listing = commands.add_parser("list", help="meters and versions, never a key")
    listing.add_argument("--json", action="store_true", help="as one JSON object on stdout")
    listing.set_defaults(answer=list_keys)
    for each in (importing, rotating, listing):
        each.add_argument("--config", required=True, metavar="FILE", help="settings, JSON")


def import_keys(given: argparse.Namespace, config: Config) -> int:
    """Take keys from JSON lines. Raises KeyFileUnusable or OSError."""
    path, private_key = keys_path(config), own_private_key(config)
    lines = _lines(given.file, newer={})
    with alone(path):
        before = _before(path, given.file, config)
        assigned = before.assigned
        if given.assigned is not None:
            assigned = _names(given.assigned)
        if given.assign_all:
            assigned |= lines.names
        allowed = _allowed(assigned, config)
        foreign = lines.names - allowed
        if foreign and not given.skip_foreign:
            raise KeyFileUnusable(
                "keys_not_assigned",
                f"{given.file}: {_some(foreign)} not assigned to gateway {config.gateway}; "
                "--assigned LIST says what is, --skip-foreign leaves the others out",
            )
        kept = replace(before, assigned=assigned).only(assigned)
        merged = merge(kept, lines.only(allowed), may_replace=given.replace)
        write_sealed(path, sealed(merged, gateway=config.gateway, private_keys=[private_key]))
    _say(
        f"{len(lines.names - foreign)} meters' keys taken, {len(foreign)} of other gateways left "
        f"out, {len(before.names - merged.names)} dropped; the file holds {len(merged.names)}"
    )
    return EXIT_OK


def rotate_keys(given: argparse.Namespace, config: Config) -> int:
    """Seal anew. Raises KeyFileUnusable or OSError."""
    path, private_key = keys_path(config), own_private_key(config)
    opener = private_key if given.from_key is None else a_private_key(given.from_key)
    private_keys = [private_key]
    if given.to_key is not None:
        new = a_private_key(given.to_key)
        private_keys += [new] if new.name != private_key.name else []
    with alone(path):
        content = open_file(config, private_key=opener)
        if given.file is not None:
            content = _with_new_versions(content, given.file, config)
        if given.drop_older:
            content = replace(
                content, meters={n: {max(k): k[max(k)]} for n, k in content.meters.items()}
            )
        write_sealed(path, sealed(content, gateway=config.gateway, private_keys=private_keys))
    _say(f"sealed anew for private key {' and '.join(key.name for key in private_keys)}")
    if len(private_keys) > 1:
        _say("install the new private key and its certificate, then run `keys rotate` once more")
    return EXIT_OK


def list_keys(given: argparse.Namespace, config: Config, *, out: TextIO | None = None) -> int:
    """Print what the file holds, never a key. Raises KeyFileUnusable."""
    path = keys_path(config)
    file = read_sealed(path)
    content = open_file(config)
    said = listed(content)
    if given.json:
        head = {"gateway": file.gateway, "private_keys": list(file.private_keys)}
        print(json.dumps({**head, "meters": said}), file=out)
        return EXIT_OK
    print(
        f"gateway {file.gateway}, opens with private key {' or '.join(file.private_keys)}", file=out
    )
    for meter in said:
        print(f"{meter['meter']:<18} {meter['kind']:<8} {_held(meter)}", file=out)
    return EXIT_OK


def listed(content: Given) -> list[dict[str, object]]:
    """Return one line for each meter that is assigned: which keys there are of it."""
    said: list[dict[str, object]] = []
    for name in sorted(content.assigned | content.names):
        lorawan = content.lorawan.get(name)
        versions = sorted(content.meters.get(name, {}), reverse=True)
        kind = "lorawan" if lorawan or len(name) == 16 else "wmbus"
        said.append({"meter": name, "kind": kind, "versions": versions, **_parts(lorawan)})
    return said


def merge(before: Given, lines: Given, *, may_replace: bool = False) -> Given:
    """Add keys to those that are there, the newest MAX_VERSIONS of each meter.

    LoRaWAN: what a line gives takes the place of what was there, field by field.
    Raises KeyFileUnusable where another key has a version already.
    """
    meters = {name: dict(keys) for name, keys in before.meters.items()}
    for name, given in lines.meters.items():
        keys = meters.setdefault(name, {})
        taken = [v for v, key in given.items() if keys.get(v, key) != key]
        if taken and not may_replace:
            raise KeyFileUnusable(
                "keys_version_taken",
                f"another key has version {taken[0]} of {name}: give the new one its own version, "
                "or --replace",
            )
        keys.update(given)
        meters[name] = {v: keys[v] for v in sorted(keys, reverse=True)[:MAX_VERSIONS]}
    lorawan = dict(before.lorawan)
    for name, said in lines.lorawan.items():
        known = lorawan.get(name)
        lorawan[name] = said if known is None else _over(known, said)
    return replace(before, meters=meters, lorawan=lorawan)


def _over(before: LorawanKeys, given: LorawanKeys) -> LorawanKeys:
    """Return `before` with all that `given` says. A new session does not keep parts of the old."""
    said = {name: getattr(given, name) for name in LorawanKeys.__dataclass_fields__}
    if given.dev_addr is None:
        return replace(before, **{n: v for n, v in said.items() if v is not None})
    return replace(
        given,
        app_key=given.app_key or before.app_key,
        nwk_key=given.nwk_key or before.nwk_key,
    )


def _before(path: Path, importing: Path, config: Config) -> Given:
    """Return what the file holds so far: nothing where there is none, or where it is imported."""
    if not path.exists():
        return Given()
    if not is_sealed(path):
        if path.resolve() == importing.resolve():
            return Given()  # the plain file of old times is sealed in its own place
        raise KeyFileUnusable(
            "keys_not_sealed", f"{path}: a plain key file is there; import it first, as FILE"
        )
    return open_file(config)


def _lines(file: Path, *, newer: Mapping[str, int]) -> Given:
    """Read a file of lines, or standard input where it is "-"; so keys need never be on a disk."""
    if str(file) == STANDARD_INPUT:
        return given_by(sys.stdin.read(), STANDARD_INPUT, newer=newer)
    return read_lines(file, newer=newer)


def _with_new_versions(content: Given, file: Path, config: Config) -> Given:
    """Add a file's keys; a line without a version is the next one of its meter."""
    newer = {name: max(keys) + 1 for name, keys in content.meters.items()}
    lines = _lines(file, newer=newer)
    foreign = lines.names - _allowed(content.assigned, config)
    if foreign:
        raise KeyFileUnusable(
            "keys_not_assigned", f"{file}: {_some(foreign)} not assigned to {config.gateway}"
        )
    return merge(content, lines)


def _allowed(assigned: frozenset[str], config: Config) -> frozenset[str]:
    """Return the meters whose keys may be here: the list in the file, and the setting `meters`."""
    return assigned if config.meters is None else assigned & config.meters


def _names(path: Path) -> frozenset[str]:
    """Read one natural id a line; # begins a comment. Raises KeyFileUnusable."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileUnusable("keys_unreadable", f"{path}: {type(error).__name__}") from None
    named = [line.partition("#")[0].strip().upper() for line in lines]
    for number, name in enumerate(named, start=1):
        if name and not _is_a_meter(name):
            raise KeyFileUnusable("keys_malformed", f"{path}:{number}: no meter is named like this")
    return frozenset(name for name in named if name)


def _is_a_meter(name: str) -> bool:
    for read in (address_of, dev_eui_of):
        try:
            read(name)
        except ValueError:
            continue
        return True
    return False


def _some(names: Iterable[str]) -> str:
    every = sorted(names)
    more = f" and {len(every) - NAMED} more are" if len(every) > NAMED else " is"
    return ", ".join(every[:NAMED]) + more


def _parts(lorawan: LorawanKeys | None) -> Mapping[str, object]:
    if lorawan is None:
        return {}
    root = lorawan.app_key or lorawan.nwk_key
    return {"root": root is not None, "session": lorawan.dev_addr is not None}


def _held(meter: Mapping[str, object]) -> str:
    versions = meter["versions"]
    assert isinstance(versions, Sequence)
    parts = [f"version {', '.join(map(str, versions))}"] if versions else []
    parts += [part for part in ("root", "session") if meter.get(part)]
    return " + ".join(parts) or "no key"


def _say(said: str) -> None:
    print(said, file=sys.stderr)

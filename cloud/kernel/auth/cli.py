"""`aquacis users …` and `aquacis keys …`: people and keys of the local issuer."""

from __future__ import annotations

import argparse
import getpass
import json
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from cloud.kernel import console
from cloud.kernel.auth import users
from cloud.kernel.auth.issuer import Issuer
from cloud.kernel.auth.keys import LocalKeys, rewrap_keys
from cloud.kernel.auth.passwords import UserInvalid
from cloud.kernel.auth.principal import ALL_ADMINISTRATIONS, Role
from cloud.kernel.clock import SystemClock
from cloud.kernel.config import Settings
from cloud.kernel.db import KERNEL, Connection, Database
from cloud.kernel.keyvault import open_vault
from cloud.kernel.platform import Platform, open_server

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

HOW_TO_GIVE_IT = (
    "the password is asked for; --password-stdin reads one line, --generate makes one and prints it"
)


def add_commands(commands: Commands) -> None:
    """Register `users` and `keys`."""
    actions = _group(commands, "users", "people who may sign in at the local issuer")
    add = actions.add_parser("add", help="add a person, or replace one", description=HOW_TO_GIVE_IT)
    add.add_argument("name", help="lower case, digits, dot, hyphen")
    roles = [role.value for role in Role]
    add.add_argument("--role", action="append", required=True, choices=roles, help="repeatable")
    add.add_argument(
        "--administration",
        action="append",
        default=[],
        help=f"code, repeatable; {ALL_ADMINISTRATIONS} for all",
    )
    _password_options(add)
    add.set_defaults(run=add_user)
    actions.add_parser("list", help="list people").set_defaults(run=list_users)
    change = actions.add_parser(
        "set-password", help="change a password; ends their sessions", description=HOW_TO_GIVE_IT
    )
    change.add_argument("name")
    _password_options(change)
    change.set_defaults(run=set_password)
    token = actions.add_parser(
        "token",
        help="print an access token (10 minutes), for scripts on this machine",
        description='curl -H "Authorization: Bearer $(aquacis users token operador)" URL',
    )
    token.add_argument("name")
    token.set_defaults(run=print_token)
    keys = _group(commands, "keys", "keys that sign tokens and keys that seal keys")
    signing = keys.add_parser("rotate-signing", help="sign tokens with a new key from now on")
    signing.set_defaults(run=rotate_signing)
    sealing = keys.add_parser(
        "rotate-sealing", help="seal with a new key; signing keys and meters' keys are sealed again"
    )
    sealing.set_defaults(run=rotate_sealing)


def add_user(arguments: argparse.Namespace) -> int:
    settings = console.settings()
    for code in arguments.administration:
        if code not in {*settings.administration_codes, ALL_ADMINISTRATIONS}:
            raise console.CommandFailed(
                f"no hay administración {code!r}; hay {', '.join(settings.administration_codes)}",
                code="administration_unknown",
            )
    password = _password(arguments)
    with _kernel(settings) as connection, _refusals():
        users.put_user(
            connection,
            name=arguments.name,
            roles=[Role(name) for name in arguments.role],
            administrations=arguments.administration,
            password=password,
            now=SystemClock().now(),
        )
    _tell(arguments, password)
    return 0


def list_users(arguments: argparse.Namespace) -> int:
    with _kernel(console.settings()) as connection:
        found = users.all_users(connection)
    rows = [
        {
            "name": user.name,
            "roles": list(user.roles),
            "administrations": list(user.administrations),
            "subject": str(user.user_id),
        }
        for user in found
    ]
    console.answer(arguments, rows)
    return 0


def set_password(arguments: argparse.Namespace) -> int:
    password = _password(arguments)
    with _kernel(console.settings()) as connection, _refusals():
        users.set_password(
            connection, name=arguments.name, password=password, now=SystemClock().now()
        )
    _tell(arguments, password)
    return 0


def print_token(arguments: argparse.Namespace) -> int:
    settings = _as_served(console.settings())
    with _database(settings) as database:
        with database.connect("kernel") as connection:
            user = users.user_named(connection, arguments.name)
        if user is None:
            raise console.CommandFailed(f"no hay usuario {arguments.name!r}", code="user_unknown")
        token = _issuer(settings, database).access_token(user)
    console.answer(arguments, {"access_token": token} if arguments.json else token)
    return 0


def rotate_signing(arguments: argparse.Namespace) -> int:
    settings = console.settings()
    with _database(settings) as database:
        kid = _issuer(settings, database).keys.rotate()
    console.answer(arguments, {"kid": kid})
    return 0


def rotate_sealing(arguments: argparse.Namespace) -> int:
    """Seal with a new key; seal again what is sealed, here and in the contexts (`seal_again`).

    Stopped half-way, nothing is lost: the old key still opens, and asking again seals the rest.
    """
    platform: Platform = arguments.open_platform()
    try:
        version = platform.vault.rotate()
        with platform.pool("kernel").connection() as connection:
            sealed = {"signing_keys": rewrap_keys(connection, platform.vault)}
        for name, seal_again in arguments.seal_again.items():
            sealed[name] = seal_again(platform)
    finally:
        platform.close()
    console.answer(arguments, {"version": version, **sealed})
    return 0


def _group(commands: Commands, name: str, help_text: str) -> Commands:
    parser = commands.add_parser(name, help=help_text, description=help_text)
    return parser.add_subparsers(metavar="ACTION", required=True)


def _password_options(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--password-stdin", action="store_true", help="read one line of stdin")
    source.add_argument("--generate", action="store_true", help="make one and print it once")


def _password(arguments: argparse.Namespace) -> str:
    """Return the password; never from an argument, where every process could read it."""
    if arguments.generate:
        return secrets.token_urlsafe(18)
    if arguments.password_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise console.CommandFailed(
            "no hay terminal para pedir la contraseña; use --password-stdin o --generate",
            code="password_missing",
            exit_code=console.USAGE,
        )
    password = getpass.getpass("Contraseña: ")
    if getpass.getpass("Otra vez: ") != password:
        raise console.CommandFailed("las contraseñas no coinciden", code="password_differs")
    return password


def _tell(arguments: argparse.Namespace, password: str) -> None:
    told = {"name": arguments.name}
    if arguments.generate:
        told["password"] = password
    console.answer(arguments, told)


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except UserInvalid as invalid:
        raise console.CommandFailed(str(invalid), code="user_invalid") from None


@contextmanager
def _database(settings: Settings) -> Iterator[Database]:
    """Open the database of our own issuer; there is nothing of it when the issuer is another."""
    if not settings.local_issuer:
        raise console.CommandFailed(
            f"los usuarios y las llaves son de {settings.issuer}", code="issuer_elsewhere"
        )
    with open_server(settings) as server:
        database = Database(server.dsn(), server.passwords_path)
        database.migrate([KERNEL])
        yield database


@contextmanager
def _kernel(settings: Settings) -> Iterator[Connection]:
    with _database(settings) as database, database.connect("kernel") as connection:
        yield connection


def _issuer(settings: Settings, database: Database) -> Issuer:
    wall = SystemClock()
    keys = LocalKeys(
        lambda: database.connect("kernel"), open_vault(settings), wall.now, time.monotonic
    )
    return Issuer(
        settings=settings, keys=keys, connect=lambda: database.connect("kernel"), wall=wall
    )


def _as_served(settings: Settings) -> Settings:
    """Return the settings with the port of the running `aquacis serve`: `iss` names it."""
    path = settings.state / "endpoints.json"
    if settings.public_url is not None or settings.http_port != 0:
        return settings
    try:
        return replace(settings, public_url=json.loads(path.read_text())["url"])
    except (OSError, ValueError, KeyError):
        raise console.CommandFailed(
            "aquacis serve no está en marcha: no se sabe qué emisor firmar", code="not_serving"
        ) from None

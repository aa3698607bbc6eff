"""One frozen `Settings` per process, read once, printed with secrets masked.

Every field is documented where it stands; `AQUACIS_<FIELD>` sets it, `AQUACIS_CONFIG` names a
TOML file that may set it too (the environment wins). Without it, `<state>/up.toml` is read, in
which `up` leaves its settings for commands beside it. Administrations and gateways come from
the TOML file or, as JSON, from the environment.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from cloud.kernel.state import state_folder
from cloud.kernel.urls import (
    MASK,
    broker_address,
    database_is_plain,
    is_database_url,
    passwords_in,
    without_password,
)
from decoders.value import value

__all__ = [
    "Administration",
    "ConfigurationInvalid",
    "GatewayConfig",
    "Settings",
    "load",
    "state_folder",
    "without_password",
]

PREFIX = "AQUACIS_"
UP_FILE = "up.toml"  # in the state folder; written by the sandbox
EXIT_CONFIG = 78  # EX_CONFIG of sysexits.h: the configuration does not allow to start
CST_OFFSET_S = -6 * 3600  # Querétaro keeps UTC−6 all year (DOF 2022-10-28)

Environment = Literal["development", "production"]


class ConfigurationInvalid(Exception):
    """The settings cannot be used; the message has one line for each reason, in Spanish."""

    def __init__(self, reasons: list[str]) -> None:
        super().__init__("\n".join(reasons))
        self.reasons = tuple(reasons)


@value
class Administration:
    """A part of the utility with its own meters and people (Aquasis: explotación)."""

    code: str  # lower-case, stable: it stands in tokens and rows
    name: str
    meter_clock_offset_s: int = CST_OFFSET_S  # what the meters' own clocks show, minus UTC


@value
class GatewayConfig:
    """A gateway that may send."""

    id: str
    administration: str
    name: str = ""
    expected_per_hour: int | None = None  # frames; None: learn it from the last days


QUERETARO = Administration(code="queretaro", name="Querétaro")


def secret() -> Any:  # noqa: ANN401  what `field` is declared to return
    """Declare a setting that is never shown: not in logs, not in a traceback's repr."""
    return field(default=None, repr=False, metadata={"secret": True})


@value
class Settings:
    """What one process was told. Instances are complete: no default is filled in later."""

    state: Path
    env: Environment = "development"
    database_url: str | None = secret()
    broker_url: str = "mqtt://127.0.0.1:1883"
    broker_user: str | None = None
    broker_password: str | None = secret()
    broker_embedded: bool = False  # the broker is the one that `up` starts
    http_host: str = "127.0.0.1"
    http_port: int = 0  # 0: a free one, written to endpoints.json
    public_url: str | None = None  # what browsers see; None: http://<host>:<port>
    trusted_proxies: str = "127.0.0.1"  # whose X-Forwarded-* headers are believed
    issuer: str | None = None  # None: the local issuer
    audience: str = "aquacis-api"  # `aud` that an access token must carry
    roles_claim: str = "roles"  # dotted path; Keycloak: realm_access.roles
    administrations_claim: str = "administrations"
    kek_file: Path | None = None  # None: <state>/keys/kek.json
    metrics_token: str | None = secret()
    clock: str = "system"  # or file:<path>, which field_sim writes
    unknown_meters: str = "provisional"  # a meter nobody declared is made; refuse: a dead letter
    administrations: tuple[Administration, ...] = (QUERETARO,)
    gateways: tuple[GatewayConfig, ...] = ()

    @property
    def base_url(self) -> str:
        """Return the URL that browsers and tokens use, without a final slash."""
        if self.public_url is not None:
            return self.public_url.rstrip("/")
        host = f"[{self.http_host}]" if ":" in self.http_host else self.http_host
        return f"http://{host}:{self.http_port}"

    @property
    def local_issuer(self) -> bool:
        """Say whether we are the identity provider ourselves."""
        return self.issuer is None

    @property
    def administration_codes(self) -> tuple[str, ...]:
        return tuple(one.code for one in self.administrations)


def load(root: Path, environ: Mapping[str, str] = MappingProxyType(os.environ)) -> Settings:
    """Read the settings. Raises `ConfigurationInvalid` with every reason at once."""
    state = Path(environ.get(PREFIX + "STATE") or state_folder(root))
    given = _from_toml(environ.get(PREFIX + "CONFIG") or _file_of_up(state))
    reasons: list[str] = []
    for each in fields(Settings):
        name = PREFIX + each.name.upper()
        if name in environ:
            given[each.name] = environ[name]
    given["state"] = state
    known = {each.name: str(each.type) for each in fields(Settings)}
    reasons += [f"{name}: no existe ese ajuste" for name in given if name not in known]
    values: dict[str, Any] = {}
    for name in given.keys() & known.keys():
        try:
            values[name] = _parsed(name, known[name], given[name])
        except (ValueError, TypeError, KeyError) as error:
            reasons.append(f"{PREFIX}{name.upper()}: {error}")
    reasons += _take_broker_apart(values)
    if reasons:
        raise ConfigurationInvalid(sorted(reasons))
    settings = Settings(**values)
    if faults := _faults(settings):
        raise ConfigurationInvalid(faults)
    return settings


def _take_broker_apart(values: dict[str, Any]) -> list[str]:
    """Move credentials out of the broker's URL to their own settings; return what is wrong."""
    if "broker_url" not in values:
        return []
    try:
        address = broker_address(values["broker_url"])
    except ValueError as error:
        return [f"{PREFIX}BROKER_URL: {error}"]
    reasons = []
    for name, text in (("broker_user", address.user), ("broker_password", address.password)):
        if text is not None and values.get(name) not in {None, text}:
            reasons.append(f"{PREFIX}{name.upper()}: no es lo que dice {PREFIX}BROKER_URL")
        values[name] = text or values.get(name)
    values["broker_url"] = address.url
    return reasons


@value
class SandboxPart:
    """A part that is fit for a laptop only; what people read is Spanish."""

    code: str
    what: str
    instead: str  # what to set


def sandbox_parts(settings: Settings) -> tuple[SandboxPart, ...]:
    """Return every sandbox part that these settings would start with."""
    issuer, database = settings.issuer, settings.database_url
    plain_broker = settings.broker_embedded or urlsplit(settings.broker_url).scheme != "mqtts"
    judged = (
        (issuer is None, _LOCAL_ISSUER),
        (issuer is not None and not issuer.startswith("https://"), _PLAIN_ISSUER),
        (plain_broker, _PLAIN_BROKER),
        (database is None, _EMBEDDED_DATABASE),
        (database is not None and database_is_plain(database), _PLAIN_DATABASE),
        (settings.kek_file is None, _INVENTED_KEY),
        (settings.clock != "system", _SIMULATED_CLOCK),
        (not settings.base_url.startswith("https://"), _PLAIN_HTTP),
    )
    return tuple(part for found, part in judged if found)


_LOCAL_ISSUER = SandboxPart(
    code="local_issuer",
    what="emisor OIDC local",
    instead="apunte AQUACIS_ISSUER a su proveedor de identidad",
)
_PLAIN_ISSUER = SandboxPart(
    code="plain_issuer",
    what="proveedor de identidad sin cifrar",
    instead="ponga en AQUACIS_ISSUER una dirección https://",
)
_PLAIN_BROKER = SandboxPart(
    code="plain_broker",
    what="broker MQTT incluido o sin cifrar",
    instead="ponga AQUACIS_BROKER_URL=mqtts://servidor:puerto",
)
_EMBEDDED_DATABASE = SandboxPart(
    code="embedded_database",
    what="PostgreSQL incluido",
    instead="apunte AQUACIS_DATABASE_URL a su servidor",
)
_PLAIN_DATABASE = SandboxPart(
    code="plain_database",
    what="base de datos en otra máquina sin exigir TLS",
    instead="agregue sslmode=verify-full a AQUACIS_DATABASE_URL (al menos require)",
)
_INVENTED_KEY = SandboxPart(
    code="invented_key",
    what="llave de cifrado de llaves creada en el primer arranque",
    instead="apunte AQUACIS_KEK_FILE a un archivo que usted resguarde",
)
_SIMULATED_CLOCK = SandboxPart(
    code="simulated_clock", what="reloj simulado", instead="quite AQUACIS_CLOCK"
)
_PLAIN_HTTP = SandboxPart(
    code="plain_http",
    what="HTTP sin cifrar",
    instead="ponga en AQUACIS_PUBLIC_URL la dirección https:// que la gente usa",
)


def refuse_sandbox(settings: Settings) -> None:
    """Raise `ConfigurationInvalid` when production would run on a sandbox part."""
    if settings.env != "production":
        return
    if parts := sandbox_parts(settings):
        raise ConfigurationInvalid(
            [
                f"en producción no se admite esta parte de prueba: {part.what} ({part.code}): "
                f"{part.instead}"
                for part in parts
            ]
        )


def shown(settings: Settings) -> dict[str, Any]:
    """Return the settings for a log or a person: JSON types, secrets masked."""
    answer: dict[str, Any] = {}
    for each in fields(settings):
        held = getattr(settings, each.name)
        if isinstance(held, str) and "://" in held:
            held = without_password(held)
        elif held is not None and each.metadata.get("secret"):
            held = MASK
        answer[each.name] = _jsonable(held)
    answer["sandbox_parts"] = [part.code for part in sandbox_parts(settings)]
    return answer


def secrets_of(settings: Settings) -> tuple[str, ...]:
    """Return the strings that no log may ever hold."""
    told = {each: getattr(settings, each.name) for each in fields(settings)}
    held = [text for each, text in told.items() if each.metadata.get("secret") and text]
    urls = [text for text in told.values() if isinstance(text, str) and "://" in text]
    if settings.database_url is not None:
        urls.append(settings.database_url)  # libpq has a form that is no URL
    passwords = [password for url in urls for password in passwords_in(url)]
    return tuple(dict.fromkeys([*held, *passwords]))


def _file_of_up(state: Path) -> str | None:
    path = state / UP_FILE
    try:
        return str(path) if path.is_file() else None
    except OSError:  # a folder that is not ours to look into
        return None


def _from_toml(path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationInvalid([f"AQUACIS_CONFIG: {path}: {error}"]) from error


def _parsed(name: str, declared: str, given: Any) -> Any:  # noqa: ANN401  text or TOML value
    if name == "administrations":
        return tuple(Administration(code=code, **rest) for code, rest in _tables(given).items())
    if name == "gateways":
        return tuple(GatewayConfig(id=code, **rest) for code, rest in _tables(given).items())
    if declared.startswith("Path"):
        return Path(given).resolve()
    if declared.startswith("int"):
        return _whole(given)
    if declared.startswith("bool"):
        return _truth(given)
    if name == "env" and given not in {"development", "production"}:
        raise ValueError(f"development o production, no {given!r}")
    if not isinstance(given, str):
        raise TypeError(f"texto, no {given!r}")
    return given or None if "None" in declared else given


def _tables(given: Any) -> dict[str, dict[str, Any]]:  # noqa: ANN401  text or TOML value
    """Return {code: fields} from TOML tables or the same as JSON in one variable."""
    read = json.loads(given) if isinstance(given, str) else given
    if not isinstance(read, dict) or not all(isinstance(one, dict) for one in read.values()):
        raise TypeError('una tabla para cada uno, como {"código": {"name": "…"}}')
    return cast(dict[str, dict[str, Any]], read)


def _whole(given: Any) -> int:  # noqa: ANN401  text or TOML value
    try:
        return int(given)
    except ValueError:
        raise ValueError(f"un número entero, no {given!r}") from None


def _truth(given: Any) -> bool:  # noqa: ANN401  text or TOML value
    if isinstance(given, bool):
        return given
    if given.lower() in {"1", "true", "yes"}:
        return True
    if given.lower() in {"0", "false", "no", ""}:
        return False
    raise ValueError(f"true o false, no {given!r}")


def _faults(settings: Settings) -> list[str]:
    codes = set(settings.administration_codes)
    reasons = [
        f"gateway {gateway.id}: la administración {gateway.administration} no está configurada"
        for gateway in settings.gateways
        if gateway.administration not in codes
    ]
    if not codes:
        reasons.append("administrations: al menos una")
    if "*" in codes:
        reasons.append("administrations: * significa todas y no puede ser un código")
    if not 0 <= settings.http_port <= 65535:
        reasons.append(f"AQUACIS_HTTP_PORT: {settings.http_port} no es un puerto")
    if settings.env not in {"development", "production"}:
        reasons.append(f"AQUACIS_ENV: {settings.env!r}")
    if settings.clock != "system" and not settings.clock.startswith("file:"):
        reasons.append(f"AQUACIS_CLOCK: system o file:<ruta>, no {settings.clock!r}")
    if settings.unknown_meters not in {"provisional", "refuse"}:
        reasons.append(
            f"AQUACIS_UNKNOWN_METERS: provisional o refuse, no {settings.unknown_meters!r}"
        )
    if settings.issuer is not None and not settings.issuer.startswith(("https://", "http://")):
        reasons.append(f"AQUACIS_ISSUER: una URL, no {without_password(settings.issuer)!r}")
    if settings.database_url is not None and not is_database_url(settings.database_url):
        reasons.append("AQUACIS_DATABASE_URL: postgresql://usuario:contraseña@servidor/base")
    return reasons


def _jsonable(held: Any) -> Any:  # noqa: ANN401  any field of Settings
    if isinstance(held, Path):
        return str(held)
    if isinstance(held, tuple):
        return [_jsonable(one) for one in held]
    if isinstance(held, Administration | GatewayConfig):
        return {each.name: getattr(held, each.name) for each in fields(held)}
    return held

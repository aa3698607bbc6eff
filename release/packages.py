"""The `.pyz` in the packages that gateways take: MultiTech's app, Kerlink's .ipk, a systemd box.

Sources: multitech.net "Creating a Custom Application" (manifest.json, Install, Start, status.json);
opkg's package is Debian's of the first kind, an ar of debian-binary, control.tar.gz and
data.tar.gz (deb(5)). Every package starts the agent as a user of its own, never as root.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from edge_agent import VERSION
from release.archives import PROGRAM, TEXT, File, ar, tar_gz
from release.pyz import NAME

FILES: Final = Path(__file__).with_name("files")
APP: Final = "aquacis-edge"
DESCRIPTION: Final = "AquaCIS gateway agent: hears water meters, finds leaks, loses nothing"
MAINTAINER: Final = "AquaCIS maintainers <maintainers@aquacis.invalid>"
KERLINK_HOME: Final = "user/aquacis-edge"  # /user survives a firmware update
KERLINK_ARCHITECTURES: Final = ("klkgw", "armv7ahf-neon")
REVISION: Final = "r1"
SYSTEMD_HOME: Final = "/opt/aquacis-edge"


def packages(agent: bytes) -> dict[str, bytes]:
    """Return the packages of the `.pyz` `agent`, by file name."""
    kerlink = {kerlink_name(arch): kerlink_ipk(agent, arch) for arch in KERLINK_ARCHITECTURES}
    return {
        f"{APP}-{VERSION}-multitech.tar.gz": multitech_app(agent),
        f"{APP}-{VERSION}-systemd.tar.gz": systemd_files(agent),
        **kerlink,
    }


def multitech_app(agent: bytes) -> bytes:
    """Return the archive that app-manager installs, on mLinux 7 (Python 3.10)."""
    manifest = {
        "AppName": APP,
        "AppVersion": VERSION,
        "AppDescription": DESCRIPTION,
        "AppVersionNotes": "Needs mLinux 7 (Python 3.10) and its python3-sqlite3",
        "PersistentStorage": True,  # /var/persistent: the outbox outlives a reset of the settings
    }
    return tar_gz(
        {
            "manifest.json": File(content=_json(manifest)),
            "status.json": File(content=_json({"pid": 0, "AppInfo": "not started yet"})),
            "Install": _file("multitech-Install", mode=PROGRAM),
            "Start": _file("multitech-Start", mode=PROGRAM),
            "control.sh": _file("control.sh", mode=PROGRAM),
            NAME: File(content=agent, mode=PROGRAM),
            "config/gateway.json.example": _file(
                "gateway.json",
                CONFIG="/var/persistent/aquacis-edge/config",
                STATE="/var/persistent/aquacis-edge/state",
            ),
            "provisioning/p_manifest.json": File(content=_json({"pkgs": []})),
        }
    )


def kerlink_name(architecture: str) -> str:
    """Return the file name that opkg expects."""
    return f"{APP}_{VERSION}-{REVISION}_{architecture}.ipk"


def kerlink_ipk(agent: bytes, architecture: str) -> bytes:
    """Return the package for KerOS, laid out below /user."""
    home = f"/{KERLINK_HOME}"
    data = {
        f"{KERLINK_HOME}/{NAME}": File(content=agent, mode=PROGRAM),
        f"{KERLINK_HOME}/control.sh": _file("control.sh", mode=PROGRAM),
        f"{KERLINK_HOME}/init.sh": _file("init.sh", mode=PROGRAM, HOME=home),
        f"{KERLINK_HOME}/monit": _file("kerlink-monit", mode=0o600),  # monit takes no other
        f"{KERLINK_HOME}/config/gateway.json.example": _file(
            "gateway.json", CONFIG=f"{home}/config", STATE=f"{home}/state"
        ),
    }
    kib = sum(len(file.content) for file in data.values()) // 1024
    said = {
        "Package": APP,
        "Version": f"{VERSION}-{REVISION}",
        "Architecture": architecture,
        "Maintainer": MAINTAINER,
        "Section": "network",
        "Priority": "optional",
        "License": "Apache-2.0",
        "Source": "N/A",
        "Installed-Size": str(kib),
        "Description": DESCRIPTION,
    }
    control = {
        "control": File(content="".join(f"{k}: {v}\n" for k, v in said.items()).encode()),
        "postinst": _file("kerlink-postinst", mode=PROGRAM),
        "prerm": _file("kerlink-prerm", mode=PROGRAM),
    }
    return ar(
        (
            ("debian-binary", b"2.0\n"),
            ("control.tar.gz", tar_gz(control)),
            ("data.tar.gz", tar_gz(data)),
        )
    )


def systemd_files(agent: bytes) -> bytes:
    """Return the files for a box with systemd, at the places where they belong."""
    home = SYSTEMD_HOME.lstrip("/")
    return tar_gz(
        {
            f"{home}/{NAME}": File(content=agent, mode=PROGRAM),
            "etc/systemd/system/aquacis-edge.service": _file("aquacis-edge.service"),
            "usr/lib/sysusers.d/aquacis-edge.conf": _file("aquacis-edge.sysusers.conf"),
            "etc/aquacis-edge/gateway.json.example": _file(
                "gateway.json", CONFIG="/etc/aquacis-edge", STATE="/var/lib/aquacis-edge"
            ),
        }
    )


def _file(name: str, *, mode: int = TEXT, **places: str) -> File:
    """Return one of `files/`, with @PLACES@ filled in."""
    text = (FILES / name).read_text("utf-8")
    for place, path in places.items():
        text = text.replace(f"@{place}@", path)
    assert "@HOME@" not in text, f"{name}: a place was left open"
    return File(content=text.encode(), mode=mode)


def _json(said: Mapping[str, object]) -> bytes:
    return (json.dumps(said, indent=2) + "\n").encode()

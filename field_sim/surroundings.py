"""What the sandbox's processes are told: in their environment, and in the file for commands beside.

A process gets what it needs and no more: the cloud's settings go to the cloud alone, and of what
we inherited, which may hold credentials of yours, the others get what any program needs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import fields

from cloud.kernel.config import PREFIX, Settings

CITY_PASSWORD = "AQUACIS_CITY_PASSWORD"  # noqa: S105  the name of a variable
COMMON = frozenset(
    (
        *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR"),
        *("LD_LIBRARY_PATH", "VIRTUAL_ENV", "PYTHONPATH"),
    )
)
ELSEWHERE = frozenset({"state", "administrations", "gateways"})  # of Settings: not from `toml`


def bare(given: Mapping[str, str], environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return an environment with what any program needs, and what is given."""
    common = {
        name: held for name, held in environment.items() if name in COMMON or name.startswith("LC_")
    }
    return {**common, **given}


def toml(variables: Mapping[str, str], tables: Iterable[str]) -> str:
    """Return the settings in `variables` as the TOML that `cloud.kernel.config` reads.

    tables   lines that follow them: the administrations and gateways
    """
    names = [each.name for each in fields(Settings) if each.name not in ELSEWHERE]
    told = [
        f"{name} = {json.dumps(variables[PREFIX + name.upper()], ensure_ascii=False)}"
        for name in names
        if PREFIX + name.upper() in variables
    ]
    return "\n".join([*told, *tables]) + "\n"

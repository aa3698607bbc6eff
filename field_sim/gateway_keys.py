"""Each gateway of the sandbox gets a private key, and the keys of its meters sealed under it.

Sealed by the agent's own command, as a technician does it: the keys come on standard input and are
on no disk in the clear.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from field_sim.surroundings import bare
from field_sim.texts import replace_text

ROOT = Path(__file__).resolve().parents[1]
SEALING_S = 60.0


class KeysNotSealed(Exception):
    """An agent's own command refused keys; its last words."""


def private_key_in(folder: Path) -> Path:
    """Return the gateway's private key, made when there is none yet."""
    path = folder / "gateway.key"
    if not path.exists():
        made = ec.generate_private_key(ec.SECP256R1())
        pem = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        replace_text(path, pem.decode("ascii"))
    return path


def seal(keys: Mapping[Path, Mapping[str, str]]) -> None:
    """Seal {an agent's settings file: {meter: key in hex}}, all gateways at once.

    Raises KeysNotSealed.
    """
    importing = [(_import(settings), each) for settings, each in keys.items()]
    refused = [said for process, each in importing if (said := _given(process, each))]
    if refused:
        raise KeysNotSealed(refused[0])


def _import(settings: Path) -> subprocess.Popen[str]:
    Path(json.loads(settings.read_text())["keys"]).unlink(missing_ok=True)  # of another city
    command = [sys.executable, "-m", "edge_agent", "keys", "import", "-", "--assign-all"]
    return subprocess.Popen(
        [*command, "--config", str(settings)],
        env=bare({"PYTHONPATH": str(ROOT)}),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _given(process: subprocess.Popen[str], keys: Mapping[str, str]) -> str:
    """Hand a command its keys; return its last words where it refused them."""
    lines = [json.dumps({"meter": meter, "key_hex": key}) + "\n" for meter, key in keys.items()]
    _, said = process.communicate("".join(lines), timeout=SEALING_S)
    return said.strip() if process.returncode else ""

"""`python3 tasks.py arm [SYSTEM…]`: the agent on emulated gateways, beside this machine.

  armel            ARM926EJ-S, ARMv5 without a floating-point unit: MultiTech Conduit
  armhf            Cortex-A9, ARMv7: Kerlink i-series, Conduit AP3
  armhf-bullseye   the same with AES from OpenSSL 1.1.1
  amd64-bullseye   this machine with AES from OpenSSL 1.1.1

Each must answer every vector as this machine does; the first two also pass the agent's selftest
with mutual TLS to a real mosquitto, and say what the agent needs of memory and instructions.
Instructions are counted by a plugin of qemu's; its times are not a device's, so none are printed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from release import pyz, wheels
from release.arm import checks, roots
from release.arm.emulator import GATEWAYS, gateway, here

MOST_RESIDENT_MIB = 40.0
ARM926_HZ = 400e6
CYCLES = (2, 3)  # an instruction on an ARM926 with its small caches: estimated, not measured
DID_NOT_RUN = 3

Said = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python3 tasks.py arm",
        description=__doc__,
        epilog="exit codes: 0 all as it must be · 1 something is not · 2 wrong usage · "
        "3 something could not be run here (named); the rest is as it must be",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("systems", nargs="*", metavar="SYSTEM", help=f"of {', '.join(SYSTEMS)}")
    parser.add_argument("--cached", action="store_true", help="only roots that were made before")
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    told = parser.parse_args()
    if unknown := set(told.systems) - set(SYSTEMS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory(prefix="aquacis-arm-") as folder:
        archive = Path(folder) / pyz.NAME
        try:
            pyz.build(archive, wheels.fetched(pyz.ROOT))
        except (wheels.WheelsUnavailable, pyz.NotCompiled) as error:
            print(f"tasks.py arm: {error}", file=sys.stderr)
            return DID_NOT_RUN
        expected = checks.answers(here(), archive)
        results = {
            name: _result(name, archive, expected, cached=told.cached)
            for name in told.systems or SYSTEMS
        }
    if told.json:
        print(json.dumps({"here": expected, **results}))
    else:
        _show(expected, results)
    states = {result["state"] for result in results.values()}
    return 1 if "failed" in states else DID_NOT_RUN if "did not run" in states else 0


def _result(name: str, archive: Path, expected: Said, *, cached: bool) -> Said:
    print(f"arm: {name}", file=sys.stderr)
    try:
        found = SYSTEMS[name](name, archive, expected, cached)
    except roots.CannotEmulate as missing:
        return {"state": "did not run", "reason": str(missing)}
    except checks.NotAsExpected as wrong:
        return {"state": "failed", "reason": str(wrong)}
    return {"state": "ok", **found}


def _gateway(name: str, archive: Path, expected: Said, cached: bool) -> Said:
    root, _ = GATEWAYS[name]
    _make(root, cached)
    machine = gateway(name)
    found: Said = {"answers": _equal(checks.answers(machine, archive), expected)}
    found["selftest"] = checks.selftest(machine, archive)
    try:
        found["memory"] = _memory(machine, archive)
        found["instructions"] = checks.instructions(machine, archive)
    except roots.CannotEmulate as missing:
        found["left_out"] = str(missing)
    return found


def _memory(machine: Any, archive: Path) -> Said:  # noqa: ANN401
    held = checks.memory(machine, archive)
    mib = held.resident_kib / 1024
    if mib > MOST_RESIDENT_MIB:
        raise checks.NotAsExpected(f"resident {mib:.1f} MiB, {MOST_RESIDENT_MIB:.0f} are allowed")
    return {
        "resident_mib": round(mib, 1),
        "private_mib": round(held.private_kib / 1024, 1),
        "meters": checks.METERS,
    }


def _openssl(name: str, archive: Path, expected: Said, cached: bool) -> Said:
    library = OPENSSL_1_1[name]
    _make(library, cached)
    if name.startswith("armhf"):
        _make(roots.ARMHF, cached)
        machine = gateway("armhf")
    else:
        machine = here()
    said = checks.answers(machine, archive, libcrypto=library.libcrypto_1_1)
    return {"answers": _equal(said, expected)}


def _make(root: roots.Root, cached: bool) -> None:
    if cached and not root.made:
        raise roots.CannotEmulate(f"{root.name} was not made before")
    roots.ready(root)


def _equal(found: Said, expected: Said) -> Said:
    if found["digest"] != expected["digest"] or found["aes"] != "libcrypto":
        raise checks.NotAsExpected(f"other answers than here: {found} instead of {expected}")
    return found


SYSTEMS: Mapping[str, Callable[[str, Path, Said, bool], Said]] = {
    "armel": _gateway,
    "armhf": _gateway,
    "armhf-bullseye": _openssl,
    "amd64-bullseye": _openssl,
}
OPENSSL_1_1 = {
    "armhf-bullseye": roots.ARMHF_BULLSEYE,
    "amd64-bullseye": roots.AMD64_BULLSEYE,
}


def _show(expected: Said, results: Mapping[str, Said]) -> None:
    print(f"here            {_of(expected)}")
    for name, found in results.items():
        if found["state"] != "ok":
            print(f"{name:<15} {found['state']}: {found['reason']}")
            continue
        print(f"{name:<15} the same: {_of(found['answers'])}")
        if "selftest" in found:
            checked = found["selftest"]
            print(f"{'':15} selftest ok: {', '.join(checked['checks'])}; {checked['with']}")
        if "memory" in found:
            held = found["memory"]
            print(
                f"{'':15} agent with {held['meters']} meters: {held['resident_mib']} MiB resident "
                f"({held['private_mib']} written to), {MOST_RESIDENT_MIB:.0f} allowed"
            )
        for what, count in found.get("instructions", {}).items():
            least, most = (count * cycles / ARM926_HZ * 1000 for cycles in CYCLES)
            device = f" = {least:.1f} to {most:.1f} ms of an ARM926" if name == "armel" else ""
            print(f"{'':15} {count:,} instructions to {what} a telegram{device}")
        if "left_out" in found:
            print(f"{'':15} not measured: {found['left_out']}")


def _of(said: Said) -> str:
    library = said["library"] or said["openssl"]
    return (
        f"{said['answers']} answers, sha256 {said['digest'][:16]}…, Python {said['python']} on "
        f"{said['machine']}, {library}"
    )


if __name__ == "__main__":
    raise SystemExit(main())

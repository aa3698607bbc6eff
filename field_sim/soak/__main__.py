"""`python -m field_sim.soak NAME [--n N] [--seed S]`: run one soak and print its counts."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from field_sim.soak import (
    clocks,
    flapping,
    halfopen,
    kills,
    leaks,
    mutate,
    outage,
    power,
    reflash,
    restore,
    sources,
    storage,
)
from field_sim.soak.stage import SoakFailed
from field_sim.soak.truth import Verdict

Soak = Callable[..., Verdict]

# name → (run, default n, what n means)
SOAKS: Mapping[str, tuple[Soak, int, str]] = {
    "kills": (kills.run, 20, "kills, five of an agent to one of the cloud"),
    "clocks": (clocks.run, clocks.HOURS, "hours of telegrams"),
    "flapping": (flapping.run, flapping.CYCLES, "cuts of half a minute"),
    "halfopen": (halfopen.run, halfopen.DEATHS, "deaths of the line"),
    "leaks": (leaks.run, 46, "households, each with every sort of leak and once without"),
    "mutate": (mutate.run, mutate.INPUTS, "inputs"),
    "outage": (outage.run, outage.DAYS, "days (also --days)"),
    "power": (power.run, power.CUTS, "power cuts"),
    "reflash": (reflash.run, reflash.HOURS, "hours of telegrams"),
    "restore": (restore.run, restore.HOURS, "hours of telegrams"),
    "sources": (sources.run, 30, "sources taken away"),
    "storage": (storage.run, storage.BITS, "bits flipped"),
}

DESCRIPTION = """\
Runs the real platform roughly and counts what became of every telegram.

  kills     agents and cloud killed (kill -9) at random points with live traffic
  clocks    two gateways 40 minutes apart hear the same meters
  flapping  the line is cut for half a minute and healed for as long, again and again
  halfopen  the line dies without a word; a new one must come within 1.5 keep-alives
  leaks     every sort of leak planted in real households: found, when, at which load
  mutate    damaged and made-up frames for the decoders: each answers or refuses, at once
  outage    no broker for days, 4,000 meters heard meanwhile; then the drain (--profile)
  power     the outbox on a disk that loses, tears and reorders what was not synced
  reflash   an agent's outbox is deleted, once with a backlog in it
  restore   the database is put back; gateways send again
  sources   brokers killed and receivers pulled out beside an agent that hears five at once
  storage   the profiles filled; bits flipped and the journal cut at every byte

exit codes: 0 all counts as they must be · 1 not so · 2 wrong usage
"""


def report(name: str, verdict: Verdict, took_s: float) -> None:
    print(f"soak {name}: {took_s:.0f} s")
    for label, number in verdict.counts.items():
        print(f"  {label:<36} {number:>10,}")
    for label, number in verdict.must_be_some.items():
        print(f"  {label:<36} {number:>10,}   {'' if number else 'must not be 0'}".rstrip())
    for label, number in verdict.must_be_zero.items():
        print(f"  {label:<36} {number:>10,}   {'must be 0' if number else ''}".rstrip())
    for note in verdict.notes:
        print(f"  {note}")
    print("holds" if verdict.holds else "DOES NOT HOLD")


def scratch() -> Path:
    """Return a fresh folder that PostgreSQL's and the broker's users can walk into."""
    folder = Path(tempfile.mkdtemp(prefix="aquacis-soak-", dir="/var/tmp"))
    folder.chmod(0o711)
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python3 tasks.py soak",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=SOAKS)
    parser.add_argument("--n", type=int, help="; ".join(f"{k}: {v[2]}" for k, v in SOAKS.items()))
    parser.add_argument("--days", type=int, help="outage: the same as --n")
    parser.add_argument("--profile", choices=outage.PROFILES, help="outage: of the outbox")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--keep", action="store_true", help="keep its state folder, and say where")
    told = parser.parse_args()
    run, usual, _ = SOAKS[told.name]
    more = {"profile": told.profile} if told.profile and told.name == "outage" else {}
    folder = scratch()
    began = time.monotonic()
    try:
        verdict = run(folder, n=told.n or told.days or usual, seed=told.seed, **more)
    except SoakFailed as failed:
        print(f"soak {told.name}: {failed}", file=sys.stderr)
        told.keep = True
        return 1
    finally:
        if told.keep:
            print(f"state kept in {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    report(told.name, verdict, time.monotonic() - began)
    return 0 if verdict.holds else 1


if __name__ == "__main__":
    raise SystemExit(main())

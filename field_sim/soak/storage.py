"""`soak storage`: how long an outbox lasts, and what damage to its file costs.

Capacity: the profiles' files are filled with 4,000 meters' rows until the first row that nobody
acknowledged must go, day by day, in simulated time: at the hourly rate, at the most that the
reduction lets through (24 daily extremes of a meter besides), and with LoRaWAN's hourly profiles.

Damage: bits flipped all over a file and its journal; the journal cut at every byte.
"""

from __future__ import annotations

import random
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from decoders.uplink import RowFlag, RowKind
from decoders.value import value
from edge_agent.board import resident_kib
from edge_agent.outbox import Draft, Outbox
from edge_agent.outbox_file import PROFILES, Limit, used_bytes
from edge_agent.outbox_quarantine import QUARANTINE
from edge_agent.outbox_rescue import opened
from field_sim import telegrams
from field_sim.meters import wmbus_meters
from field_sim.soak.truth import Verdict

BITS: Final = 2000
METERS: Final = 4000
GROUP: Final = 500  # rows of a commit: as after an outage of a source; fewer fill no other pages
START_US: Final = 1_772_452_800_000_000
HOUR_US: Final = 3_600_000_000
MEMORY_BYTES: Final = 320  # of a meter's checkpoint, with patterns; the leak rules say how many
STREAM: Final = bytes(range(16))


@value
class Case:
    """What meters send. `asked_days`: without a loss."""

    name: str
    profile: str
    asked_days: int
    rows_per_hour: int = 1
    lorawan: bool = False
    meters: int = METERS


CASES: Final = (
    Case(name="lean, wM-Bus hourly", profile="lean", asked_days=9),
    Case(name="lean, wM-Bus at most", profile="lean", asked_days=9, rows_per_hour=2),
    Case(name="lean, LoRaWAN hourly", profile="lean", asked_days=9, lorawan=True),
    Case(name="full, wM-Bus hourly", profile="full", asked_days=30),
)


def run(folder: Path, *, n: int, seed: int) -> Verdict:
    """Fill the profiles; flip n bits; cut a journal at every byte."""
    verdict = Verdict()
    for case in CASES:
        lasted = lasts(folder / case.name.replace(" ", "-"), case, seed=seed)
        verdict.counts[f"{case.name}: whole days"] = lasted.days
        verdict.notes.append(f"{case.name}: {lasted}")
        short = max(0, case.asked_days - lasted.days)
        verdict.must_be_zero[f"{case.name}: days short of {case.asked_days}"] = short
        over = max(0, lasted.most_bytes - PROFILES[case.profile].bytes)
        verdict.must_be_zero[f"{case.name}: bytes over the profile"] = over
        print(f"{case.name}: {lasted}", file=sys.stderr)
    flips = flipped(folder / "flips", n=n, seed=seed)
    verdict.counts |= {f"bit flips: {what}": count for what, count in flips.items()}
    verdict.must_be_zero["rows sent other than they were written"] = flips["wrong"]
    verdict.must_be_zero["rows missing that nobody declared"] = flips["silent"]
    verdict.must_be_zero["files that lost their stream's name"] = flips["stream lost"]
    verdict.must_be_some["damaged files put aside"] = flips["put aside"]
    cuts = cut_journal(folder / "cuts")
    verdict.counts |= {f"journal cut: {what}": count for what, count in cuts.items()}
    verdict.must_be_zero["cuts that left no prefix of commits"] = cuts["not a prefix"]
    return verdict


@value
class Lasted:
    """What a profile's file took. `held`: no row had to go in all the days tried."""

    days: int
    row_bytes: float
    most_bytes: int
    grown_kib: int
    held: bool

    def __str__(self) -> str:
        more = " and more" if self.held else ""
        return (
            f"{self.days} days{more} without a loss, {self.row_bytes:.1f} bytes a row, "
            f"at most {self.most_bytes / (1 << 20):.1f} MiB on the disk, "
            f"{self.grown_kib} KiB more memory than after the first day"
        )


def lasts(folder: Path, case: Case, *, seed: int) -> Lasted:
    """Fill a file until an unacknowledged row must go, or a third longer than is asked."""
    folder.mkdir()
    limit = PROFILES[case.profile]
    path = folder / "outbox.db"
    outbox = Outbox(path, new_stream=lambda: STREAM, now_us=START_US, limit=limit)
    outbox.append([], {f"m/KAW-{n:08d}": bytes(MEMORY_BYTES) for n in range(case.meters)})
    empty = used_bytes(outbox.connection)
    rows: list[Draft] = []
    days = size = resident = 0
    lost = False
    while days < case.asked_days * 4 // 3 and not lost:
        for row in rows_of_day(case, days, seed):
            rows.append(row)
            if len(rows) == GROUP:
                lost = outbox.append(rows, {}) is not None
                rows.clear()
                size = max(size, outbox.size)
                if lost:
                    break
        days += not lost
        resident = resident or resident_kib()
    row_bytes = (used_bytes(outbox.connection) - empty) / outbox.held
    outbox.close()
    shutil.rmtree(folder)
    return Lasted(
        days=days,
        row_bytes=row_bytes,
        most_bytes=size,
        grown_kib=resident_kib() - resident,
        held=not lost,
    )


def rows_of_day(case: Case, day: int, seed: int) -> Iterator[Draft]:
    """Return a day's rows of all meters, in the order they are heard."""
    draw = random.Random(seed * 1000 + day)
    begin = START_US + day * 24 * HOUR_US
    if case.lorawan:
        yield from _lorawan_day(draw, begin, case.meters)
        return
    frames = _frames(draw, case.meters)
    for hour in range(24):
        step = HOUR_US // (case.meters * case.rows_per_hour)
        for n in range(case.meters * case.rows_per_hour):
            first = n < case.meters
            yield Draft(
                heard_at=begin + hour * HOUR_US + n * step + draw.randrange(step),
                kind=RowKind.WMBUS,
                payload=next(frames),
                flags=int(RowFlag.FIRST_OF_HOUR if first else RowFlag.DAILY_EXTREME),
                rssi=draw.randrange(-110, -60),
            )


def _frames(draw: random.Random, count: int) -> Iterator[bytes]:
    """Return encrypted telegrams of all meters in turn, with true link layers and lengths.

    Every 8th is a full one. The cipher text is noise here: it is noise to everybody without keys.
    """
    meters = wmbus_meters(1, range(count))
    heads = [
        {
            full: telegrams.wmbus(meter, counter=1, register_l=1, target_l=1, full=full)
            for full in (False, True)
        }
        for meter in meters
    ]
    counter = draw.randrange(1 << 20)
    while True:
        order = list(range(count))
        draw.shuffle(order)
        for n in order:
            counter += 1
            frame = heads[n][counter % 8 == 0]
            session = (counter * 7 & 0x1FFFFFF).to_bytes(4, "little")
            yield frame[:12] + bytes((counter & 0xFF,)) + session + draw.randbytes(len(frame) - 17)


def _lorawan_day(draw: random.Random, begin: int, meters: int) -> Iterator[Draft]:
    """Return an hourly profile of each meter each hour: 50 bytes, of which 40 cannot be pressed.

    Meters in service send theirs once to six times a day; this is the most.
    """
    for hour in range(24):
        for n in range(meters):
            payload = bytes.fromhex("78446D00331837441303") + draw.randbytes(40)
            yield Draft(
                heard_at=begin + hour * HOUR_US + n * 900_000 + draw.randrange(900_000),
                kind=RowKind.LORAWAN,
                payload=payload,
                radio=0x0013EA0000000000 + n,
                session=0x26000000 + n * 7919,
                counter=draw.randrange(5000),
                port=4,
                rssi=draw.randrange(-120, -60),
                snr=draw.randrange(-80, 40),
            )


SMALL: Final = Limit(page_rows=64)


def a_file(folder: Path, *, groups: int, in_journal: int) -> tuple[Path, list[bytes]]:
    """Make an outbox, half of it acknowledged; return its file and all payloads.

    in_journal   so many of the last groups are in the journal alone, as kill -9 leaves it
    """
    folder.mkdir(parents=True)
    path = folder / "made.db"

    def open_it() -> Outbox:
        return Outbox(path, new_stream=lambda: STREAM, now_us=START_US, limit=SMALL)

    outbox = open_it()
    payloads: list[bytes] = []
    draw = random.Random(5)
    for group in range(groups):
        more = [draw.randbytes(40) for _ in range(7)]
        rows = [
            Draft(heard_at=START_US + len(payloads) + i, kind=RowKind.WMBUS, payload=p)
            for i, p in enumerate(more)
        ]
        outbox.append(rows, {f"m/{group % 20}": draw.randbytes(90)})
        payloads += more
        if group == groups // 2:
            outbox.acknowledge(outbox.head)
        if group == groups - in_journal - 1:
            outbox.close()  # the journal begins anew
            outbox = open_it()
    if in_journal:
        copy = folder / "copy.db"
        shutil.copy(path, copy)
        shutil.copy(path.with_name("made.db-wal"), folder / "copy.db-wal")
        path = copy
    outbox.close()
    return path, payloads


def flipped(folder: Path, *, n: int, seed: int) -> Counter[str]:
    """Flip one bit in a file or its journal, n times; open it as the agent does, and look."""
    counts: Counter[str] = Counter({"wrong": 0, "silent": 0, "put aside": 0, "harmless": 0})
    draw = random.Random(seed)
    made = [a_file(folder / f"{k}", groups=60, in_journal=k) for k in (0, 30)]
    for number in range(n):
        path, payloads = made[number % 2]
        journal = path.with_name(f"{path.name}-wal")
        here = folder / "now"
        here.mkdir()
        target = here / "outbox.db"
        shutil.copy(path, target)
        damaged = target
        if number % 2:
            damaged = here / "outbox.db-wal"
            shutil.copy(journal, damaged)
        content = bytearray(damaged.read_bytes())
        place = draw.randrange(len(content))
        content[place] ^= 1 << draw.randrange(8)
        damaged.write_bytes(content)
        counts += look(target, payloads)
        shutil.rmtree(here)
        if number % 1000 == 999:
            print(f"{number + 1:,} of {n:,} bits", file=sys.stderr)
    return counts


def look(path: Path, payloads: list[bytes]) -> Counter[str]:
    """Open a damaged outbox as the agent does; compare what it would send with what was written."""
    counts: Counter[str] = Counter()
    said: list[str] = []
    outbox = opened(
        path,
        new_stream=lambda: b"n" * 16,
        now_us=START_US,
        limit=SMALL,
        log=lambda event, **more: said.append(event),
    )
    counts["last commit cut short"] += "commit_cut_short" in said
    put_aside = (path.parent / QUARANTINE).exists()
    counts["put aside" if put_aside else "harmless"] += 1
    rows = outbox.read(1, rows=1 << 20, max_bytes=1 << 30)
    held = {row.seq: row.payload for row in rows if row.kind == RowKind.WMBUS}
    reports = {row.seq for row in rows if row.kind == RowKind.REPORT}
    renamed = outbox.stream != STREAM
    counts["stream lost"] += renamed
    declared: set[int] = set()
    for gap in outbox.gaps(outbox.acked + 1, [r for r in rows if r.seq > outbox.acked]):
        declared.update(range(gap.first, gap.last + 1))
    written = set(payloads)
    for seq, payload in enumerate(payloads, start=1):
        if renamed:
            break
        if seq in held:
            counts["wrong"] += held[seq] != payload
        elif seq > outbox.head or seq in reports:
            counts["rows of the last commit"] += 1
            counts["silent"] += "commit_cut_short" not in said
        elif seq > outbox.acked:
            counts["silent"] += seq not in declared
            counts["rows declared"] += 1
    counts["wrong"] += sum(payload not in written for payload in held.values())
    counts["rows kept"] += len(held)
    outbox.close()
    return counts


def cut_journal(folder: Path, *, step: int = 1) -> Counter[str]:
    """Cut a journal at every `step`th byte; what remains must be whole groups, the first ones."""
    counts: Counter[str] = Counter({"not a prefix": 0})
    path, payloads = a_file(folder / "made", groups=6, in_journal=3)
    journal = path.with_name(f"{path.name}-wal").read_bytes()
    seen: set[int] = set()
    for length in (*range(0, len(journal), step), len(journal)):
        here = folder / "now"
        here.mkdir()
        target = here / "outbox.db"
        shutil.copy(path, target)
        (here / "outbox.db-wal").write_bytes(journal[:length])
        outbox = Outbox(target, new_stream=lambda: STREAM, now_us=START_US, limit=SMALL)
        held = [row.payload for row in outbox.read(1, rows=1 << 20, max_bytes=1 << 30)]
        whole = held == payloads[: outbox.head] and outbox.head % 7 == 0
        counts["not a prefix"] += not whole
        counts["cuts"] += 1
        seen.add(outbox.head)
        outbox.close()
        shutil.rmtree(here)
        if counts["cuts"] % 10_000 == 0:
            print(f"{length:,} of {len(journal):,} bytes", file=sys.stderr)
    counts["different prefixes seen"] = len(seen)
    return counts

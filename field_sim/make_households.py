"""Make `data/household_hours.npz` out of the public DAIAD registers: run once, its result is kept.

    python -m field_sim.make_households REGISTERS.npz

Source: DAIAD (Alicante, 2016-03 to 2017-05), CC BY-SA 4.0: cumulative litres of 46 households at
native times, about hourly, in local time (Europe/Madrid, with summer time). What the city needs
is litres per UTC hour, and what leak rules need is that an hour without water stays one without:
a native interval is therefore never spread over two hours, it is given to one. Only a gap of
several hours is shared out, in the shape the same hours of the week have elsewhere in the series.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

MADRID = ZoneInfo("Europe/Madrid")
HOUR_S = 3600
WEEK_H = 168
WEEKS = 62  # whole weeks that every register covers
FIRST_MONDAY_H = int(datetime(2016, 3, 7, tzinfo=UTC).timestamp()) // HOUR_S
LONGEST_SHARED_GAP_H = 168  # beyond a week the litres of a gap say nothing about its hours
MOST_LITRES_AN_HOUR = 1_000  # two fifths of Q3 = 2.5 m3/h, all a house's meter may pass for long


def to_utc_s(local_s: Ints) -> Ints:
    """Turn seconds of Madrid's wall clock into seconds UTC, never going back.

    The hour that autumn repeats is taken the second time as soon as the first would go back.
    """
    converted = np.empty_like(local_s)
    before = -(1 << 62)
    for i, second in enumerate(local_s.tolist()):
        wall = datetime.fromtimestamp(second, UTC).replace(tzinfo=MADRID)
        at = int(wall.timestamp())
        if at < before:
            at = int(wall.replace(fold=1).timestamp())
        before = max(before, at)
        converted[i] = before
    return converted


def hour_of_each_read(at_s: Ints) -> Ints:
    """Give every read an hour so that reads an hour apart are one hour apart, whatever the minute.

    A read drifts against the full hour; it changes its hour only when it is a quarter beyond it.
    """
    hours = np.empty_like(at_s)
    hour = int(at_s[0]) // HOUR_S
    for i, second in enumerate(at_s.tolist()):
        if i:
            hour += round((second - int(at_s[i - 1])) / HOUR_S)
        ahead = second / HOUR_S - hour
        if ahead >= 1.25 or ahead < -0.25:
            hour = second // HOUR_S
        hours[i] = hour
    return np.maximum.accumulate(hours)


def litres_by_hour(local_s: Ints, register_l: Ints) -> Ints:
    """Return litres of each of the WEEKS × WEEK_H hours from the first Monday on.

    Registers are monotone as meters are: a step back is a slip of the reading system.
    """
    monotone = np.maximum.accumulate(register_l)
    hours = hour_of_each_read(to_utc_s(local_s)) - FIRST_MONDAY_H
    span = WEEKS * WEEK_H
    litres = np.zeros(span, np.int64)
    known = np.zeros(span, bool)
    gaps: list[tuple[int, int, int]] = []
    for before, after, volume in zip(hours[:-1], hours[1:], np.diff(monotone), strict=True):
        if after - before > 1:
            gaps.append((int(before), int(after), int(volume)))
        elif 0 <= after < span:
            litres[after] += volume
            known[after] = True
    for before, after, volume in [(-1, 0, 0), *gaps, (int(hours[-1]), span - 1, 0)]:
        fill_gap(litres, known, range(max(before + 1, 0), min(after, span - 1) + 1), volume)
    return litres


def fill_gap(litres: Ints, known: npt.NDArray[np.bool_], gap: range, volume: int) -> None:
    """Share a gap's litres out like the same hours of the nearest week that was read."""
    if not gap:
        return
    pattern = [like_another_week(litres, known, hour) for hour in gap]
    total = sum(pattern)
    if len(gap) > LONGEST_SHARED_GAP_H:
        shares = pattern
    elif total == 0:
        shares = [0] * (len(gap) - 1) + [volume]
    else:
        ends = np.cumsum([0, *pattern]) * volume // total
        shares = np.diff(ends).tolist()
    litres[gap.start : gap.stop] = pattern if max(shares) > MOST_LITRES_AN_HOUR else shares


def like_another_week(litres: Ints, known: npt.NDArray[np.bool_], hour: int) -> int:
    for week in range(1, WEEKS):
        for other in (hour - week * WEEK_H, hour + week * WEEK_H):
            if 0 <= other < len(litres) and known[other]:
                return int(litres[other])
    return 0


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    source = np.load(sys.argv[1])
    rows = []
    for start, end in zip(source["offset"][:-1], source["offset"][1:], strict=True):
        local = source["t_local_epoch_s"][start:end].astype(np.int64)
        rows.append(litres_by_hour(local, source["register_l"][start:end].astype(np.int64)))
    litres = np.array(rows).astype(np.uint16)
    target = Path(__file__).parent / "data" / "household_hours.npz"
    np.savez_compressed(target, litres=litres, first_hour=np.int64(FIRST_MONDAY_H))
    print(
        f"{target.name}: {litres.shape[0]} households, {litres.shape[1]} hours, max {litres.max()}"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Room on the server's disk: how much is left, and the ballast that is let go in an emergency.

A full disk kills PostgreSQL in a way it cannot leave by itself: recovery needs room to write.
So a file of known size lies beside the data; when the log shows that the server died of a
full disk the file is deleted, recovery gets done, and nothing new is taken in until there is
room again (`DiskNearlyFull`). Measured: reference/postgres.md §1.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cloud.kernel.postgres_errors import MEBIBYTE, DiskFull, DiskNearlyFull
from decoders.value import value

RECOVERY_BYTES = 40 * MEBIBYTE  # two segments of write-ahead log and a checkpoint


@value
class Reserve:
    """How much room is kept. Bytes."""

    ballast_bytes: int = 256 * MEBIBYTE  # let go when the disk is full; enough for a recovery
    low_water_bytes: int = 512 * MEBIBYTE  # below this nothing new is taken in
    start_bytes: int = 1024 * MEBIBYTE  # below this a first start is not even tried


@dataclass(frozen=True)
class Disk:
    """The disk under `folder`, where data and ballast lie."""

    folder: Path
    reserve: Reserve

    @property
    def ballast(self) -> Path:
        return self.folder / "ballast"

    def free_bytes(self) -> int:
        """Return what an ordinary user may still write."""
        status = os.statvfs(self.folder)
        return status.f_bavail * status.f_frsize

    def require_start(self) -> None:
        """Raise `DiskFull` when a new database would not fit."""
        free = self.free_bytes()
        if free < self.reserve.start_bytes:
            raise DiskFull(self.folder, free, self.reserve.start_bytes)

    def make_room_to_recover(self) -> None:
        """Let the ballast go if a start would not get done without. Raises `DiskFull`."""
        if self.free_bytes() < RECOVERY_BYTES:
            self.drop_ballast()
        free = self.free_bytes()
        if free < RECOVERY_BYTES:
            raise DiskFull(self.folder, free, RECOVERY_BYTES)

    def require_intake(self) -> None:
        """Raise `DiskNearlyFull` when nothing more may be taken in."""
        free = self.free_bytes()
        if free < self.reserve.low_water_bytes:
            raise DiskNearlyFull(self.folder, free, self.reserve.low_water_bytes)

    def take_ballast(self) -> bool:
        """Lay the ballast down if it is missing and there is plenty of room; say if it lies."""
        if self.ballast.exists():
            return True
        if self.free_bytes() < self.reserve.ballast_bytes + self.reserve.low_water_bytes:
            return False
        scratch = self.ballast.with_suffix(".new")
        try:
            with scratch.open("wb") as file:
                if self.reserve.ballast_bytes:
                    os.posix_fallocate(file.fileno(), 0, self.reserve.ballast_bytes)
            scratch.rename(self.ballast)
        except OSError:  # somebody took the room meanwhile, or a quota says no
            scratch.unlink(missing_ok=True)
            return False
        return True

    def drop_ballast(self) -> bool:
        """Give the ballast's room to the server; say whether there was any."""
        try:
            self.ballast.unlink()
        except FileNotFoundError:
            return False
        return True

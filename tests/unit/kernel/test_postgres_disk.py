"""A full disk costs nothing that was confirmed, and ends by itself when there is room again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cloud.kernel.postgres_disk import Disk, Reserve
from cloud.kernel.postgres_errors import DiskNearlyFull

PROGRAM = Path(__file__).with_name("fill_disk.py")
OWN_MOUNTS = ["unshare", "--mount"]
if os.geteuid() != 0:  # an ordinary user may mount in a user namespace of his own
    OWN_MOUNTS += ["--user", "--map-current-user", "--keep-caps"]


def test_a_full_disk_loses_nothing_and_recovers_by_itself(state: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    if subprocess.run([*OWN_MOUNTS, *mount], capture_output=True, check=False).returncode:
        pytest.skip("a disk of limited size needs the right to mount one, which is not had here")

    run = subprocess.run(
        [*OWN_MOUNTS, sys.executable, str(PROGRAM), str(state)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=200,
    )
    said = json.loads(run.stdout)

    assert said["panicked"]
    assert said["committed"] > 0
    # a commit may have reached the disk whose answer the dying server did not send
    assert said["kept"] in (said["committed"], said["committed"] + 1)
    assert (said["ballast_at_start"], said["refused_when_full"]) == (True, True)
    assert (said["ballast_when_full"], said["refused_after"]) == (False, True)
    assert (said["ballast_with_room_again"], said["refused_with_room_again"]) == (True, False)
    assert (said["kept_again"], said["ballast_again"]) == (said["kept"], False)
    assert said["refusal"].startswith("disco-lleno: No hay espacio en disco")


def test_nothing_new_is_taken_in_below_the_low_water_mark(tmp_path: Path) -> None:
    disk = Disk(tmp_path, Reserve(low_water_bytes=1 << 60))

    with pytest.raises(DiskNearlyFull, match="MiB free") as refusal:
        disk.require_intake()
    assert refusal.value.code == "disco-casi-lleno"


def test_the_ballast_takes_its_room_once_and_gives_it_back(tmp_path: Path) -> None:
    disk = Disk(tmp_path, Reserve(ballast_bytes=1 << 20, low_water_bytes=0))

    assert disk.take_ballast()
    assert disk.take_ballast()
    assert disk.ballast.stat().st_blocks * 512 >= 1 << 20  # real blocks, not a hole
    assert disk.drop_ballast()
    assert not disk.drop_ballast()


def test_no_ballast_is_laid_where_it_would_leave_too_little(tmp_path: Path) -> None:
    disk = Disk(tmp_path, Reserve(ballast_bytes=1 << 20, low_water_bytes=1 << 60))

    assert not disk.take_ballast()

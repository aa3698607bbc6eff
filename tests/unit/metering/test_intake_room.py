"""Nothing is taken in while the server's disk is nearly full; gateways keep what they have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.kernel.blobs import FolderBlobs
from cloud.kernel.db import Database
from cloud.kernel.postgres_errors import DiskNearlyFull
from cloud.metering.figures import ROOM
from cloud.metering.service import Metering
from decoders import uplink
from tests.heard import MINUTE, NOON, Gateway, lorawan, metering_on, readings, rows_of


class Disk:
    """A disk that somebody fills."""

    full = False

    def require_intake(self) -> None:
        if self.full:
            raise DiskNearlyFull(Path("/data"), 1, 2)


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def service(database: Database, tmp_path: Path, disk: Disk) -> Iterator[Metering]:
    with metering_on(database, tmp_path, require_intake=disk.require_intake) as made:
        yield made


def test_rows_wait_at_their_gateway_until_there_is_room(
    service: Metering, database: Database, disk: Disk
) -> None:
    gateway = Gateway()
    gateway.send(service, lorawan(1, [100], at=NOON))
    disk.full = True
    ack = gateway.send(service, lorawan(2, [200], at=NOON))

    assert (ack.upto, ack.credit, ack.resend_from, ack.rejected) == (1, 0, None, ())
    assert len(readings(database)) == 1
    assert ROOM._value.get() == 0
    disk.full = False
    ack = gateway.send(service)
    assert (ack.upto, ack.credit) == (2, gateway.hello(service).credit)
    assert ack.credit > uplink.MAX_ROWS
    assert ROOM._value.get() == 1


def test_nothing_at_all_is_written_without_room(
    service: Metering, database: Database, disk: Disk
) -> None:
    disk.full = True
    foreign, stranger = Gateway("centro"), Gateway("nobody")

    assert service.ingest(b"\xff not CBOR", "cerro", NOON) is None
    assert service.ingest(foreign.message(), "cerro", NOON) is None
    assert service.ingest(stranger.message(), "nobody", NOON) is None
    assert Gateway().hello(service, at=NOON + MINUTE).upto == 0
    for table in ("row_dead_letters", "edge_streams", "batches"):
        assert rows_of(database, f"SELECT count(*) FROM {table}") == [(0,)]


def test_a_message_that_met_a_full_blob_folder_goes_through_when_it_comes_again(
    service: Metering, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = Gateway()
    gateway.hear(lorawan(1, [100], at=NOON))
    with monkeypatch.context() as full:
        full.setattr(FolderBlobs, "put", _no_space)
        for message in (gateway.message(), bytes(uplink.MAX_MESSAGE_BYTES + 1)):
            with pytest.raises(OSError, match="No space left"):
                service.ingest(message, "cerro", NOON)

    assert gateway.send(service).upto == 1
    assert len(readings(database)) == 1
    assert rows_of(database, "SELECT count(*) FROM row_dead_letters") == [(0,)]


def _no_space(_store: FolderBlobs, _data: bytes) -> str:
    raise OSError(28, "No space left on device")

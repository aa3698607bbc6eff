"""What the commands of metering share: the open platform, a meter by its name."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

from cloud.kernel.console import CommandFailed
from cloud.kernel.platform import Platform
from cloud.metering import views
from cloud.metering.views import Connection

CONTEXT = "metering"


@contextmanager
def opened(arguments: argparse.Namespace) -> Iterator[tuple[Platform, Connection]]:
    """Open the platform and one transaction of metering."""
    platform: Platform = arguments.open_platform()
    try:
        with platform.pool(CONTEXT).connection() as connection:
            yield platform, connection
    finally:
        platform.close()


def meter_key_of(connection: Connection, platform: Platform, name: str) -> int:
    """Return the meter of a name, a DevEUI or a key. Raises CommandFailed."""
    key = views.meter_key_of(
        connection, administrations=platform.settings.administration_codes, name=name
    )
    if key is None:
        raise CommandFailed(f"no se conoce el medidor «{name}»", code="not_found")
    return key

"""A program for tests to kill: it keeps the server of a state folder until its input ends.

`keep_server.py STATE [PORT]` prints one JSON line: {"pid", "port", "server", "launched"}, or
{"error", "spanish", "code"} and exits with 1.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from cloud.kernel import postgres
from cloud.kernel.postgres_disk import Reserve
from cloud.kernel.postgres_errors import ServerError

TINY = Reserve(ballast_bytes=1 << 20, low_water_bytes=1 << 20, start_bytes=1 << 20)


def main() -> int:
    state, port = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    try:
        server = postgres.ensure(state, port=port, reserve=TINY)
    except ServerError as error:
        told = {"error": type(error).__name__, "spanish": error.spanish, "code": error.code}
        print(json.dumps(told), flush=True)
        return 1
    assert isinstance(server, postgres.OurServer)
    where = json.loads(server.folders.endpoint.read_text())
    launched = server.keeper is not None
    ready = {"pid": os.getpid(), "port": server.port, "server": where["pid"], "launched": launched}
    print(json.dumps(ready), flush=True)
    with server:
        sys.stdin.read()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

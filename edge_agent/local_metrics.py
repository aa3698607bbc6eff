"""A status as Prometheus text (exposition format 0.0.4). Pure."""

from __future__ import annotations

from typing import Final

from edge_agent.health import Status

METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
PREFIX: Final = "aquacis_edge_"
SOURCE: Final = "source_"
# Counts that only grow while the process lives; everything else is a gauge.
COUNTERS: Final = frozenset(
    ("source_committed", "heard", "stored", "repeats", "foreign", "source_down", "source_up")
)


def metrics(status: Status, *, gateway: str, version: str) -> str:
    """Return every figure, those of sources under the label `source`."""
    own = {state.name: f"{SOURCE}{state.name}_" for state in status.sources}
    lines = [
        f"# TYPE {PREFIX}info gauge",
        f'{PREFIX}info{{gateway="{_quoted(gateway)}",version="{_quoted(version)}"}} 1',
        f"# TYPE {PREFIX}connected gauge",
        f"{PREFIX}connected {int(status.connected)}",
    ]
    if status.clock_ahead_us is not None:
        lines += [
            f"# TYPE {PREFIX}clock_ahead_seconds gauge",
            f"{PREFIX}clock_ahead_seconds {status.clock_ahead_us / 1e6:g}",
        ]
    for name, figure in sorted(status.figures.items()):
        if not any(name.startswith(begin) for begin in own.values()):
            lines += [
                f"# TYPE {PREFIX}{_name(name)} {_kind(name)}",
                f"{PREFIX}{_name(name)} {figure}",
            ]
    for what, kind in (("up", "gauge"), ("heard", "counter"), ("bad", "counter")):
        lines += _of_sources(status, what, kind)
    lines += _of_sources(status, "deaths", "counter") + _of_sources(status, "per_hour", "gauge")
    return "\n".join(lines) + "\n"


def _of_sources(status: Status, what: str, kind: str) -> list[str]:
    said = []
    for state in status.sources:
        figure = state.is_up if what == "up" else getattr(state, what)
        if figure is not None:
            said.append(f'{PREFIX}source_{what}{{source="{_quoted(state.name)}"}} {int(figure)}')
    return [f"# TYPE {PREFIX}source_{what} {kind}", *said] if said else []


def _kind(name: str) -> str:
    return "counter" if name in COUNTERS or name.startswith(("undecodable_", "gwmp_")) else "gauge"


def _name(text: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in text)


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

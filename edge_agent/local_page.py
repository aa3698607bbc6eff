"""A status as a page in Spanish for a technician's phone: what is wrong first, figures after. Pure.

No script, nothing loaded from elsewhere, renewed by the browser every ten seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Final

from decoders.value import value
from edge_agent.health import Figures, SourceState, Status
from edge_agent.instants import iso
from edge_agent.local_style import STYLE

PAGE_TYPE: Final = "text/html; charset=utf-8"
RENEW_S: Final = 10
SILENT_S: Final = 300  # without an ack: five heartbeats
LEAST_FREE: Final = 0.10  # of the disk, of the memory
HOT_C: Final = 75  # commercial boards are specified to 70 °C, industrial ones to 85
CLOCK_OFF_US: Final = 60_000_000
MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86_400
KIB_PER_MIB: Final = 1024
CEILING_KIB: Final = 40 * 1024  # what the agent may take

LOST: Final = {
    "undecodable": "ilegibles",
    "sub_hourly": "de cada pocos minutos",
    "hourly": "de cada hora",
    "own": "avisos propios",
    "corrupt": "dañadas en el disco",
}


@value
class Trouble:
    """`grave`: data is at stake or does not arrive; else it is for the next visit."""

    text: str
    code: str
    grave: bool = False


def troubles(status: Status) -> list[Trouble]:
    """Return what is wrong, gravest first."""
    figures, found = status.figures, []
    age_s = figures.get("last_ack_age_s")
    if not status.connected:
        found.append(Trouble(text="Sin conexión con la nube", code="cloud_unreachable", grave=True))
    elif age_s is None or age_s > SILENT_S:
        found.append(Trouble(text="La nube no responde", code="cloud_silent", grave=True))
    down = [state.name for state in status.sources if not state.is_up]
    if down:
        many = "Fuentes caídas" if len(down) > 1 else "Fuente caída"
        found.append(Trouble(text=f"{many}: {', '.join(down)}", code="source_down", grave=True))
    if _share(figures, "disk") is not None and (_share(figures, "disk") or 0) < LEAST_FREE:
        found.append(Trouble(text="Queda poco disco", code="disk_low", grave=True))
    if _share(figures, "memory") is not None and (_share(figures, "memory") or 0) < LEAST_FREE:
        found.append(Trouble(text="Queda poca memoria", code="memory_low"))
    if figures.get("temperature_c", 0) >= HOT_C:
        found.append(Trouble(text="El equipo está muy caliente", code="too_hot"))
    if abs(status.clock_ahead_us or 0) >= CLOCK_OFF_US:
        found.append(Trouble(text="El reloj está mal", code="clock_off"))
    if any(_lost(figures)):
        found.append(Trouble(text="Se descartaron datos por falta de espacio", code="shed"))
    return sorted(found, key=lambda trouble: not trouble.grave)


def page(status: Status, *, gateway: str, version: str, broker: str) -> str:
    """Return the page."""
    now = iso(status.at)[:19].replace("T", " ")
    cards = "".join((_cloud(status), _sources(status), _queue(status), _board(status.figures)))
    rest = "".join(
        f"<tr><th>{escape(name)}</th><td>{figure:,}</td></tr>"
        for name, figure in sorted(status.figures.items())
    )
    return f"""<!doctype html>
<html lang="es-MX"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="{RENEW_S}">
<link rel="icon" href="data:,">
<title>{escape(gateway)} · AquaCIS</title><style>{STYLE}</style></head><body>
<header><p class="brand">AquaCIS · gateway</p><h1>{escape(gateway)}</h1></header>
<main>{_verdict(status)}<div class="cards">{cards}</div>
<details><summary>Todas las cifras</summary><table class="all">{rest}</table></details></main>
<footer>Hora del gateway <time>{now}</time> UTC · agente {escape(version)} ·
broker {escape(broker)} · se actualiza cada {RENEW_S} s · <a href="/metrics">/metrics</a></footer>
</body></html>
"""


def _verdict(status: Status) -> str:
    found = troubles(status)
    if not found:
        return (
            '<section class="verdict good"><h2>Todo en orden</h2>'
            "<p>Oye a sus medidores y la nube confirma lo que recibe.</p></section>"
        )
    kind = "bad" if found[0].grave else "fair"
    more = "".join(f"<li>{escape(t.text)} <code>{t.code}</code></li>" for t in found[1:])
    kept = "<p>Lo que se oye se guarda aquí y se envía después.</p>"
    cloud = found[0].code in {"cloud_unreachable", "cloud_silent"}
    return (
        f'<section class="verdict {kind}"><h2>{escape(found[0].text)}</h2>'
        f"<p><code>{found[0].code}</code></p>{kept if cloud else ''}"
        f"{f'<ul>{more}</ul>' if more else ''}</section>"
    )


def _cloud(status: Status) -> str:
    figures = status.figures
    age_s = figures.get("last_ack_age_s")
    ahead_us = status.clock_ahead_us
    clock = "aún no se sabe"
    if ahead_us is not None:
        off = _ago(abs(ahead_us) // 1_000_000)
        way = "adelantado" if ahead_us > 0 else "atrasado"
        clock = "bien" if abs(ahead_us) < 1_000_000 else f"{way} {off}"
    return _card(
        "Nube",
        (
            ("Conexión", "en línea" if status.connected else "caída"),
            ("Última confirmación", "ninguna" if age_s is None else f"hace {_ago(age_s)}"),
            ("Por enviar", f"{figures.get('outbox_pending', 0):,} filas"),
            ("Reloj", clock),
        ),
    )


def _sources(status: Status) -> str:
    figures = status.figures
    sources = "".join(_source(state) for state in status.sources) or "<p>No hay fuentes.</p>"
    facts = (
        ("Medidores conocidos", f"{figures.get('meters', 0):,}"),
        ("Tramas oídas", f"{figures.get('heard', 0):,}"),
        ("Que no se pudieron leer", f"{_begun(figures, 'undecodable_'):,}"),
    )
    return f'<section class="card"><h2>Radio</h2>{sources}{_facts(facts)}</section>'


def _source(state: SourceState) -> str:
    chip = '<i class="up">oye</i>' if state.is_up else '<i class="down">caída</i>'
    rate = "…" if state.per_hour is None else f"{state.per_hour:,}"
    again = ""
    if state.deaths:
        again = f"<small>{state.deaths} reinicio{'s' if state.deaths > 1 else ''}</small>"
    figures = ((rate, "por hora"), (f"{state.heard:,}", "oídas"), (f"{state.bad:,}", "ilegibles"))
    cells = "".join(f"<span><b>{figure}</b>{what}</span>" for figure, what in figures)
    return f'<div class="source"><h3>{escape(state.name)} {chip} {again}</h3>{cells}</div>'


def _queue(status: Status) -> str:
    figures = status.figures
    lost = [f"{figures[name]:,} {LOST.get(kind, kind)}" for name, kind in _lost(figures).items()]
    return _card(
        "Memoria local",
        (
            ("Filas guardadas", f"{figures.get('outbox_rows', 0):,}"),
            ("Ocupa", _mib(figures.get("outbox_bytes", 0) // 1024)),
            ("Descartadas", ", ".join(lost) or "ninguna"),
        ),
    )


def _board(figures: Figures) -> str:
    facts: list[tuple[str, str]] = []
    if "temperature_c" in figures:
        facts.append(("Temperatura", f"{figures['temperature_c']} °C"))
    if "supply_mv" in figures:
        facts.append(("Alimentación", f"{figures['supply_mv'] / 1000:.2f} V"))
    if "uptime_s" in figures:
        facts.append(("Encendido hace", _ago(figures["uptime_s"])))
    bars = "".join(
        _bar(name, figures[f"{what}_{free}_kib"], figures[f"{what}_total_kib"])
        for what, free, name in (
            ("disk", "free", "Disco libre"),
            ("memory", "available", "Memoria libre"),
        )
        if figures.get(f"{what}_total_kib")
    )
    own = figures.get("resident_kib", 0)
    bars += _bar("El agente usa", own, CEILING_KIB, more_is_better=False) if own else ""
    return f'<section class="card"><h2>Equipo</h2>{bars}{_facts(facts)}</section>'


def _bar(name: str, part_kib: int, whole_kib: int, *, more_is_better: bool = True) -> str:
    share = min(1.0, part_kib / whole_kib)
    low = share < LEAST_FREE if more_is_better else share > 1 - LEAST_FREE
    return (
        f'<div class="bar{" low" if low else ""}"><span>{name}</span>'
        f"<b>{_mib(part_kib)} <small>de {_mib(whole_kib)}</small></b>"
        f'<meter min="0" max="100" value="{share * 100:.0f}"></meter></div>'
    )


def _card(title: str, facts: Iterable[tuple[str, str]]) -> str:
    return f'<section class="card"><h2>{title}</h2>{_facts(facts)}</section>'


def _facts(facts: Iterable[tuple[str, str]]) -> str:
    rows = "".join(f"<dt>{name}</dt><dd>{escape(said)}</dd>" for name, said in facts)
    return f"<dl>{rows}</dl>" if rows else ""


def _lost(figures: Figures) -> dict[str, str]:
    """Return {name of a figure: kind} of the rows that were given up unsent."""
    begin = "outbox_lost_"
    return {n: n[len(begin) :] for n, count in figures.items() if n.startswith(begin) and count}


def _begun(figures: Figures, begin: str) -> int:
    return sum(figure for name, figure in figures.items() if name.startswith(begin))


def _share(figures: Figures, what: str) -> float | None:
    total = figures.get(f"{what}_total_kib")
    left = figures.get(f"{what}_free_kib", figures.get(f"{what}_available_kib"))
    return left / total if total and left is not None else None


def _mib(kib: int) -> str:
    mib = kib / KIB_PER_MIB
    return f"{mib / KIB_PER_MIB:.1f} GiB" if mib >= KIB_PER_MIB else f"{mib:,.1f} MiB"


def _ago(seconds: int) -> str:
    """Say a span in its two greatest units.

    >>> [_ago(s) for s in (7, 130, 7500, 200_000)]
    ['7 s', '2 min 10 s', '2 h 5 min', '2 d 7 h']
    """
    if seconds < MINUTE_S:
        return f"{seconds} s"
    if seconds < HOUR_S:
        return f"{seconds // MINUTE_S} min {seconds % MINUTE_S} s"
    if seconds < DAY_S:
        return f"{seconds // HOUR_S} h {seconds % HOUR_S // MINUTE_S} min"
    return f"{seconds // DAY_S} d {seconds % DAY_S // HOUR_S} h"

"""Every text of the pages exists in Spanish and in English, and every text is used."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WEB = Path(__file__).resolve().parents[2] / "cloud" / "portal" / "web"
SOURCES = WEB / "src"


def texts(catalogue: dict[str, Any], under: str = "") -> Iterator[tuple[str, str]]:
    for name, held in catalogue.items():
        if isinstance(held, dict):
            yield from texts(held, f"{under}{name}.")
        else:
            yield under + name, held


def catalogue(locale: str) -> dict[str, str]:
    return dict(texts(json.loads((SOURCES / "i18n" / f"{locale}.json").read_text())))


def sources() -> str:
    files = [*SOURCES.rglob("*.vue"), *SOURCES.rglob("*.ts")]
    return "\n".join(path.read_text() for path in sorted(files))


def test_both_languages_have_the_same_texts() -> None:
    assert catalogue("es-MX").keys() == catalogue("en").keys()


def test_both_languages_name_the_same_values() -> None:
    spanish, english = catalogue("es-MX"), catalogue("en")

    differing = [
        name
        for name in spanish
        if set(re.findall(r"\{\w+\}", spanish[name])) != set(re.findall(r"\{\w+\}", english[name]))
    ]

    assert differing == []


def test_every_text_the_pages_ask_for_exists() -> None:
    asked = set(re.findall(r"\bt\(\s*'([\w.-]+)'", sources()))
    asked |= set(re.findall(r"title: '([\w.-]+)'", (SOURCES / "router.ts").read_text()))

    assert asked - catalogue("es-MX").keys() == set()


def test_no_text_is_left_that_nobody_asks_for() -> None:
    text = sources()
    prefixes = set(re.findall(r"`([\w.-]+)\.\$\{", text)) | {"integrity", "field"}

    unused = [
        name
        for name in catalogue("es-MX")
        if f"'{name}'" not in text and not any(name.startswith(f"{p}.") for p in prefixes)
    ]

    assert unused == []


def test_every_refusal_has_a_spanish_sentence() -> None:
    from cloud.metering.model import Rejection
    from decoders import errors

    codes = {code for name, code in vars(Rejection).items() if name.isupper()}
    codes |= {
        kind.code
        for kind in vars(errors).values()
        if isinstance(kind, type)
        and issubclass(kind, errors.DecodeError)
        and kind is not errors.DecodeError
    }

    assert {f"code.{code}" for code in codes} - catalogue("es-MX").keys() == set()


def test_the_lock_names_no_host() -> None:
    assert "://" not in (WEB / "package-lock.json").read_text()

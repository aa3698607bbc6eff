"""The pages in a real Chromium, before the real application: what people see and can do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.browser.conftest import WEB, Site
from tests.browser.seeded_city import LEAKING, RADIO

pytestmark = [pytest.mark.real_part("chromium"), pytest.mark.xdist_group("browser")]

AXE = WEB / "node_modules" / "axe-core" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


def violations(page: Page) -> list[str]:
    """Return what is wrong with the page as it stands: what axe-core finds, and its width."""
    page.evaluate(AXE.read_text())
    run = "rules => axe.run(document, {runOnly: rules})"
    found: list[dict[str, Any]] = page.evaluate(run, RULES)["violations"]
    wrong = [f"{one['id']}: {[node['target'] for node in one['nodes']]}" for one in found]
    # Nobody scrolls a page sideways: WCAG 2.2, 1.4.10, which axe-core cannot see.
    root = "document.documentElement"
    if page.evaluate(f"{root}.scrollWidth > {root}.clientWidth"):
        wrong.append(f"it is {page.evaluate(f'{root}.scrollWidth')} px wide")
    return wrong


def definition(page: Page, term: str) -> Locator:
    """Return what a description list says of a term."""
    return page.locator("dl > div", has=page.locator("dt", has_text=term)).locator("dd").first


def test_the_flow_shows_each_stage_and_each_gateway(page: Page, site: Site) -> None:
    page.goto(site.url)

    for stage in ("Gateways", "Agente", "Broker", "Ingesta", "Base de datos", "Alertas"):
        expect(page.get_by_role("heading", name=stage, exact=True).first).to_be_visible()
    expect(page.get_by_text("Cerro del Cimatario")).to_be_visible()
    expect(page.get_by_text("Centro Histórico")).to_be_visible()
    expect(definition(page, "Alertas abiertas")).to_have_text("1")
    expect(definition(page, "Rechazos")).to_have_text("2")
    assert violations(page) == []


def test_the_flow_rests_when_asked(page: Page, site: Site) -> None:
    page.goto(site.url)
    page.get_by_role("button", name="Pausar").click()

    expect(page.get_by_role("button", name="Reanudar")).to_be_visible()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(2_500)

    assert [url for url in asked if url.endswith("/pipeline")] == []


def test_a_gateway_is_reached_from_the_flow_and_says_how_it_is(page: Page, site: Site) -> None:
    page.goto(site.url)
    page.get_by_role("link", name="Cerro del Cimatario").click()

    expect(page.get_by_role("heading", level=1)).to_have_text("Cerro del Cimatario")
    expect(page.get_by_text("Querétaro · agente 0.1.0 · perfil ligero")).to_be_visible()
    expect(definition(page, "Disco libre")).to_have_text("4%")
    expect(page.get_by_text("Queda poco")).to_be_visible()
    expect(definition(page, "Temperatura")).to_have_text("41\u00a0°C")
    expect(definition(page, "Última respuesta de la nube")).to_have_text(re.compile("hace 1.min"))
    expect(definition(page, "Filas descartadas")).to_have_text("12")
    expect(definition(page, "Tramas/h")).to_have_text("96")
    expect(page.get_by_role("listitem").filter(has_text="wmbus").first).to_contain_text("Caída")
    assert violations(page) == []


def test_a_gateway_s_hours_are_drawn_against_what_was_expected(page: Page, site: Site) -> None:
    page.goto(site.url + "/gateways/gw-cimatario")

    chart = page.get_by_role("img", name=re.compile("^Tramas por hora en 24 horas"))
    expect(chart).to_have_attribute("aria-label", re.compile(r"\d+ recibidas de \d+ esperadas"))
    page.get_by_text("7 días", exact=True).click()
    page.get_by_text("Tabla", exact=True).click()
    table = page.get_by_role("table", name="Tramas por hora en 7 días")
    expect(table.get_by_role("row")).to_have_count(7 * 24 + 1)
    expect(table.get_by_role("cell", name="Sin nada").first).to_be_attached()
    assert violations(page) == []
    with page.expect_download() as download:
        page.get_by_role("button", name="Descargar CSV").click()
    assert download.value.suggested_filename == "gw-cimatario-7d.csv"
    assert len(Path(download.value.path()).read_text().splitlines()) == 7 * 24 + 1


def test_a_gateway_s_losses_reports_and_rejects_are_told_in_words(page: Page, site: Site) -> None:
    page.goto(site.url + "/gateways/gw-cimatario")

    expect(page.get_by_text("12 filas", exact=True)).to_be_visible()
    expect(page.get_by_text("Comprobada")).to_be_visible()
    expect(definition(page, "El reloj")).to_have_text(re.compile("se adelantó 1.h.30.min"))
    page.get_by_role("combobox", name="Aviso").select_option("Fuente caída")
    expect(page.get_by_text("the device is gone")).to_be_visible()
    expect(page.get_by_text("se adelantó")).to_have_count(0)
    page.get_by_role("link", name="La llave no corresponde").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Rechazos")
    expect(page.get_by_text("Solo los de gw-cimatario.")).to_be_visible()
    expect(page.get_by_role("heading", name="La llave no corresponde")).to_be_visible()
    expect(page.get_by_role("heading", name="Suma de control incorrecta")).to_have_count(0)
    page.get_by_role("combobox", name="Motivo").select_option("Todos")
    expect(page.get_by_role("heading", name="Suma de control incorrecta")).to_be_visible()
    assert violations(page) == []


def test_a_loss_whose_end_nobody_knows_stays_open(page: Page, site: Site) -> None:
    page.goto(site.url + "/gateways/gw-centro")

    expect(page.get_by_text("No se sabe cuántas")).to_be_visible()
    expect(page.get_by_text("sin final conocido")).to_be_visible()
    expect(page.get_by_text("Posible", exact=True)).to_be_visible()
    expect(page.get_by_text("Su agente no dice cómo está")).to_be_visible()
    expect(page.get_by_text("Todavía no informa de nada")).to_be_visible()
    expect(page.get_by_text("Nada suyo se ha rechazado")).to_be_visible()
    assert "9,223" not in page.inner_text("main")
    assert violations(page) == []


def test_a_gateway_that_is_not_one_s_own_is_not_known(page: Page, site: Site) -> None:
    page.goto(site.url + "/gateways/gw-nobody")

    expect(page.get_by_text("No existe, o pertenece a otra explotación")).to_be_visible()
    assert violations(page) == []


def test_a_meter_is_found_by_a_part_of_its_name(page: Page, site: Site) -> None:
    page.goto(site.url + "/medidores")
    expect(page.get_by_role("link", name=LEAKING)).to_be_visible()
    assert violations(page) == []

    page.get_by_role("searchbox").fill("53885758")

    expect(page.get_by_role("link", name=str(RADIO))).to_be_visible()
    expect(page.get_by_role("link", name=LEAKING)).to_have_count(0)
    page.get_by_role("searchbox").fill("no hay tal")
    expect(page.get_by_text("Ningún medidor coincide con «no hay tal»")).to_be_visible()


def test_a_meter_shows_its_hours_with_gaps_and_late_data(page: Page, site: Site) -> None:
    open_meter(page, site, LEAKING)

    expect(page.get_by_role("heading", level=1)).to_have_text(LEAKING)
    expect(page.get_by_text("Kamstrup flowIQ · Querétaro")).to_be_visible()
    expect(page.get_by_text("Flujo continuo por más de 24 h")).to_be_visible()
    summary = page.get_by_role("img", name=re.compile("^Consumo en 7 días"))
    expect(summary).to_have_attribute("aria-label", re.compile(r"[1-9]\d* periodos sin dato"))
    expect(summary).to_have_attribute("aria-label", re.compile(r"[1-9]\d* con dato tardío"))
    assert violations(page) == []


def test_a_meter_s_table_says_what_its_chart_draws(page: Page, site: Site) -> None:
    open_meter(page, site, LEAKING)
    page.get_by_text("Tabla", exact=True).click()

    table = page.get_by_role("table", name="Consumo en 7 días")
    expect(table.get_by_role("row")).to_have_count(7 * 24 + 1)
    expect(table.get_by_role("cell", name="Sin dato").first).to_be_attached()
    expect(table.get_by_role("cell", name="Dato tardío").first).to_be_attached()
    page.get_by_text("Por día", exact=True).click()
    expect(table.get_by_role("row")).to_have_count(7 + 1)
    assert violations(page) == []


def test_a_meter_s_frame_opens_to_its_bytes(page: Page, site: Site) -> None:
    open_meter(page, site, str(RADIO))
    page.locator("button[aria-expanded]", has_text="m³").first.click()

    expect(page.get_by_role("heading", name="Bytes recibidos")).to_be_visible()
    expect(page.get_by_text("gw-cimatario", exact=True)).to_be_visible()
    expect(definition(page, "Total (m³)")).to_have_text("90.604")
    assert violations(page) == []


def test_frames_stay_listed_when_no_more_come_and_are_asked_for_again(
    page: Page, site: Site
) -> None:
    open_meter(page, site, str(RADIO))
    frames = page.locator("main li button[aria-expanded]")
    refuse_more(page, "frames")
    page.get_by_role("button", name="Ver más").click()

    expect(page.get_by_role("alert")).to_be_in_viewport()
    expect(frames).to_have_count(15)
    assert violations(page) == []
    page.unroute_all()
    page.get_by_role("button", name="Reintentar").click()
    expect(frames).to_have_count(30)
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_meter_s_hours_are_downloaded_as_csv(page: Page, site: Site) -> None:
    open_meter(page, site, LEAKING)

    with page.expect_download() as download:
        page.get_by_role("button", name="Descargar CSV").click()

    assert download.value.suggested_filename == f"{LEAKING}-hourly-7d.csv"
    lines = Path(download.value.path()).read_text().splitlines()
    assert lines[0].lstrip("\ufeff").startswith("from,to,litres")
    assert len(lines) == 7 * 24 + 1


def test_an_alert_leads_to_its_meter(page: Page, site: Site) -> None:
    page.goto(site.url + "/alertas")

    alert = page.get_by_role("article")
    expect(alert).to_have_count(1)
    expect(definition(page, "Caudal")).to_have_text("45 L/h")
    expect(definition(page, "Agua perdida")).to_have_text(re.compile(r"1\.3\d\sm³"))
    assert violations(page) == []
    alert.get_by_role("link", name=LEAKING).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(LEAKING)
    page.go_back()
    page.get_by_text("Cerradas", exact=True).click()
    expect(page.get_by_text("Todavía no se cierra ninguna alerta")).to_be_visible()


def test_alerts_stay_listed_when_no_more_come(page: Page, site: Site) -> None:
    refuse_more(page, "alerts")
    page.goto(site.url + "/alertas")
    page.get_by_role("button", name="Ver más").click()

    expect(page.get_by_role("alert")).to_be_in_viewport()
    expect(page.get_by_role("article")).to_have_count(1)
    assert violations(page) == []
    page.get_by_text("Cerradas", exact=True).click()
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.get_by_role("article")).to_have_count(0)


def test_a_refused_frame_is_shown_with_its_bytes_and_tried_again(page: Page, site: Site) -> None:
    page.goto(site.url + "/rechazos")

    expect(page.get_by_role("heading", name="Suma de control incorrecta")).to_be_visible()
    expect(page.get_by_role("heading", name="La llave no corresponde")).to_be_visible()
    expect(page.get_by_role("group", name="Bytes recibidos").first).to_contain_text("37 2C")
    assert violations(page) == []
    page.get_by_role("button", name="Reprocesar").first.click()
    expect(page.get_by_text("sigue sin poder leerse")).to_be_visible()


def test_everything_also_reads_in_english_and_in_the_dark(page: Page, site: Site) -> None:
    page.goto(site.url)
    page.get_by_role("button", name=site.supervisor).click()
    page.get_by_text("Oscura", exact=True).click()
    page.get_by_text("English", exact=True).click()

    expect(page.get_by_role("heading", level=1)).to_have_text("Flow")
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert violations(page) == []
    page.keyboard.press("Escape")
    for name in ("Meters", "Alerts", "Rejects"):
        page.get_by_role("navigation").get_by_role("link", name=name).click()
        expect(page.get_by_role("heading", level=1)).to_have_text(name)
        expect(page.get_by_text("Loading…")).to_have_count(0)
        assert violations(page) == []


def open_meter(page: Page, site: Site, name: str) -> None:
    page.goto(site.url + "/medidores")
    page.get_by_role("link", name=name).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(name)
    expect(page.get_by_role("img", name=re.compile("^Consumo"))).to_be_visible()
    expect(page.locator("button[aria-expanded]", has_text="m³").first).to_be_visible()


def refuse_more(page: Page, of: str) -> None:
    """Offer a next page of a list, and answer it with what the application never says."""

    def answer(route: Route) -> None:
        if "cursor=" in route.request.url:
            route.fulfill(body="not JSON")
        else:
            route.fulfill(json={**route.fetch().json(), "next": "more"})

    page.route(re.compile(rf"/{of}\?"), answer)

"""Signing in and out, the keyboard, the installed app: the shell around every page."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import PASSWORD, Site
from tests.browser.test_pages import fits, sign_in, violations

pytestmark = [pytest.mark.real_part("chromium"), pytest.mark.xdist_group("browser")]


def test_signing_in_takes_only_a_keyboard(page: Page, site: Site) -> None:
    page.goto(site.url + "/alertas")
    expect(page.get_by_label("Usuario")).to_be_focused()
    assert violations(page) == []

    page.keyboard.type(site.supervisor)
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")

    page.wait_for_url(site.url + "/alertas")
    expect(page.get_by_role("heading", level=1)).to_have_text("Alertas")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Ir al contenido")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()


def test_a_reload_keeps_who_signed_in_and_no_token_is_stored(page: Page, site: Site) -> None:
    sign_in(page, site, "/medidores")
    expect(page.get_by_role("table")).to_be_visible()

    page.reload()

    expect(page.get_by_role("table")).to_be_visible()
    stored = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])")
    assert "token" not in stored
    assert "eyJ" not in stored


def test_signing_out_asks_for_the_password_again(page: Page, site: Site) -> None:
    sign_in(page, site)
    page.get_by_role("button", name=site.supervisor).click()
    page.get_by_role("button", name="Cerrar sesión").click()
    page.wait_for_url(site.url + "/entrar")
    expect(page.get_by_role("button", name="Entrar")).to_be_visible()
    assert violations(page) == []

    page.goto(site.url + "/")

    expect(page.get_by_label("Contraseña")).to_be_visible()


def test_a_role_that_may_not_see_a_page_is_told_so(page: Page, site: Site) -> None:
    sign_in(page, site, "/medidores", name=site.clerk)
    expect(page.get_by_role("table")).to_be_visible()
    links = page.get_by_role("navigation").get_by_role("link")

    expect(links).to_have_text(["Medidores"])


def test_an_answer_for_another_window_is_refused(page: Page, site: Site) -> None:
    page.goto(site.url + "/entrar?code=somebody-elses&state=somebody-elses")

    expect(page.get_by_role("alert")).to_contain_text("Entre de nuevo")
    expect(page).to_have_url(site.url + "/entrar")


def test_an_unknown_address_says_so(page: Page, site: Site) -> None:
    sign_in(page, site, "/no-hay-tal")

    expect(page.get_by_role("heading", name="Esta página no existe")).to_be_attached()
    assert violations(page) == []
    assert fits(page)


def test_the_shell_opens_without_a_network(page: Page, site: Site) -> None:
    page.goto(site.url + "/entrar")
    page.evaluate("navigator.serviceWorker.ready.then(() => true)")
    page.wait_for_function("navigator.serviceWorker.controller !== null")
    page.context.set_offline(True)

    page.goto(site.url + "/entrar")

    expect(page.get_by_role("heading", name="AquaCIS")).to_be_visible()
    page.context.set_offline(False)


def test_the_app_can_be_installed(page: Page, site: Site) -> None:
    page.goto(site.url + "/entrar")
    address = page.locator("link[rel=manifest]").get_attribute("href")

    answer = page.request.get(f"{site.url}{address}")
    manifest = answer.json()

    assert manifest["display"] == "standalone"
    sizes = {icon["sizes"] for icon in manifest["icons"]}
    assert {"192x192", "512x512"} <= sizes
    for icon in manifest["icons"]:
        assert page.request.get(site.url + icon["src"]).ok


def test_motion_stops_for_who_asked_for_less(page: Page, site: Site) -> None:
    page.emulate_media(reduced_motion="reduce")
    sign_in(page, site)
    expect(page.get_by_role("heading", name="Ingesta")).to_be_visible()

    moving = page.evaluate("document.getAnimations().filter(a => a.playState === 'running').length")

    assert moving == 0


def test_the_pages_forbid_inline_scripts_and_foreign_hosts(page: Page, site: Site) -> None:
    answer = page.goto(site.url + "/entrar")
    assert answer is not None

    policy = answer.headers["content-security-policy"]

    assert "unsafe-inline" not in policy
    assert "unsafe-eval" not in policy
    assert re.search(r"https?:", policy) is None

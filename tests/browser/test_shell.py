"""Signing in and out, the keyboard, the installed app: the shell around every stranger."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import NARROWEST, PASSWORD, Site, sign_in
from tests.browser.test_pages import violations

pytestmark = [pytest.mark.real_part("chromium"), pytest.mark.xdist_group("browser")]


def test_signing_in_takes_only_a_keyboard(stranger: Page, site: Site) -> None:
    stranger.goto(site.url + "/alertas")
    expect(stranger.get_by_label("Usuario")).to_be_focused()
    assert violations(stranger) == []

    stranger.keyboard.type(site.supervisor)
    stranger.keyboard.press("Tab")
    stranger.keyboard.type(PASSWORD)
    stranger.keyboard.press("Enter")

    stranger.wait_for_url(site.url + "/alertas")
    expect(stranger.get_by_role("heading", level=1)).to_have_text("Alertas")
    stranger.keyboard.press("Tab")
    expect(stranger.get_by_role("link", name="Ir al contenido")).to_be_focused()
    stranger.keyboard.press("Enter")
    expect(stranger.locator("main")).to_be_focused()


def test_signing_in_fits_the_narrowest_screen(stranger: Page, site: Site) -> None:
    stranger.set_viewport_size(NARROWEST)
    stranger.goto(site.url + "/alertas")
    expect(stranger.get_by_label("Usuario")).to_be_visible()
    assert violations(stranger) == []

    stranger.goto(site.url + "/entrar")

    expect(stranger.get_by_role("button", name="Entrar")).to_be_visible()
    assert violations(stranger) == []


def test_a_reload_keeps_who_signed_in_and_no_token_is_stored(stranger: Page, site: Site) -> None:
    sign_in(stranger, site, "/medidores", name=site.supervisor)
    expect(stranger.get_by_role("table")).to_be_visible()

    stranger.reload()

    expect(stranger.get_by_role("table")).to_be_visible()
    stored = stranger.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])")
    assert "token" not in stored
    assert "eyJ" not in stored


def test_signing_out_asks_for_the_password_again(stranger: Page, site: Site) -> None:
    sign_in(stranger, site, "/", name=site.supervisor)
    stranger.get_by_role("button", name=site.supervisor).click()
    stranger.get_by_role("button", name="Cerrar sesión").click()
    stranger.wait_for_url(site.url + "/entrar")
    expect(stranger.get_by_role("button", name="Entrar")).to_be_visible()
    assert violations(stranger) == []

    stranger.goto(site.url + "/")

    expect(stranger.get_by_label("Contraseña")).to_be_visible()


def test_a_role_that_may_not_see_a_page_is_told_so(stranger: Page, site: Site) -> None:
    sign_in(stranger, site, "/medidores", name=site.clerk)
    expect(stranger.get_by_role("table")).to_be_visible()
    links = stranger.get_by_role("navigation").get_by_role("link")

    expect(links).to_have_text(["Medidores"])


def test_an_answer_for_another_window_is_refused(stranger: Page, site: Site) -> None:
    stranger.goto(site.url + "/entrar?code=somebody-elses&state=somebody-elses")

    expect(stranger.get_by_role("alert")).to_contain_text("Entre de nuevo")
    expect(stranger).to_have_url(site.url + "/entrar")


def test_an_unknown_address_says_so(page: Page, site: Site) -> None:
    page.goto(site.url + "/no-hay-tal")

    expect(page.get_by_role("heading", name="Esta página no existe")).to_be_attached()
    assert violations(page) == []


def test_the_shell_opens_without_a_network(stranger: Page, site: Site) -> None:
    stranger.goto(site.url + "/entrar")
    stranger.evaluate("navigator.serviceWorker.ready.then(() => true)")
    stranger.wait_for_function("navigator.serviceWorker.controller !== null")
    stranger.context.set_offline(True)

    stranger.goto(site.url + "/entrar")

    expect(stranger.get_by_role("heading", name="AquaCIS")).to_be_visible()
    stranger.context.set_offline(False)


def test_the_app_can_be_installed(stranger: Page, site: Site) -> None:
    stranger.goto(site.url + "/entrar")
    address = stranger.locator("link[rel=manifest]").get_attribute("href")

    answer = stranger.request.get(f"{site.url}{address}")
    manifest = answer.json()

    assert manifest["display"] == "standalone"
    sizes = {icon["sizes"] for icon in manifest["icons"]}
    assert {"192x192", "512x512"} <= sizes
    for icon in manifest["icons"]:
        assert stranger.request.get(site.url + icon["src"]).ok


def test_motion_stops_for_who_asked_for_less(page: Page, site: Site) -> None:
    page.emulate_media(reduced_motion="reduce")
    page.goto(site.url)
    expect(page.get_by_role("heading", name="Ingesta")).to_be_visible()

    moving = page.evaluate("document.getAnimations().filter(a => a.playState === 'running').length")

    assert moving == 0


def test_the_pages_forbid_inline_scripts_and_foreign_hosts(stranger: Page, site: Site) -> None:
    answer = stranger.goto(site.url + "/entrar")
    assert answer is not None

    policy = answer.headers["content-security-policy"]

    assert "unsafe-inline" not in policy
    assert "unsafe-eval" not in policy
    assert re.search(r"https?:", policy) is None

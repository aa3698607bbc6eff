"""The local issuer over HTTP: discovery, the sign-in page, what a client may ask."""

from __future__ import annotations

import threading
from urllib.parse import urlsplit

import pytest

from cloud.kernel.auth import passwords
from tests.unit.kernel.auth.signing_in import ORIGIN, REDIRECT, Browser, SetClock, back, claims_of


def test_discovery_names_what_there_is(browser: Browser) -> None:
    told = browser.client.get("/.well-known/openid-configuration").json()

    assert told["issuer"] == ORIGIN
    assert told["code_challenge_methods_supported"] == ["S256"]
    assert told["response_types_supported"] == ["code"]
    assert browser.client.get(urlsplit(told["jwks_uri"]).path).json()["keys"][0]["use"] == "sig"


def test_discovery_answers_under_the_name_of_loopback_that_the_browser_uses(
    browser: Browser,
) -> None:
    local = {"host": "localhost:8080"}
    told = browser.client.get("/.well-known/openid-configuration", headers=local).json()
    strange = {"host": "evil.example"}
    other = browser.client.get("/.well-known/openid-configuration", headers=strange).json()

    assert told["token_endpoint"] == "http://localhost:8080/oidc/token"
    assert told["issuer"] == ORIGIN
    assert other["token_endpoint"] == f"{ORIGIN}/oidc/token"


def test_the_published_keys_have_no_private_part(browser: Browser) -> None:
    keys = browser.client.get("/oidc/jwks").json()["keys"]

    assert keys
    assert all("d" not in key for key in keys)


def test_a_sign_in_gives_tokens_that_the_api_believes(browser: Browser) -> None:
    answer = browser.send_form(browser.open_form())
    told = back(answer)
    tokens = browser.redeem(told["code"]).json()

    assert (told["state"], told["iss"]) == ("state-1", ORIGIN)
    assert tokens["token_type"] == "Bearer"
    assert browser.me(tokens["access_token"]).json() == {
        "subject": claims_of(browser, tokens["access_token"])["sub"],
        "name": "ana",
        "roles": ["clerk"],
        "administrations": ["queretaro"],
        "administration_names": {"queretaro": "Querétaro"},
    }


def test_the_identity_token_is_for_the_client_and_no_key_to_the_api(browser: Browser) -> None:
    tokens = browser.sign_in()
    claims = claims_of(browser, tokens["id_token"])

    assert (claims["aud"], claims["nonce"], claims["iss"]) == ("aquacis-web", "nonce-1", ORIGIN)
    assert browser.me(tokens["id_token"]).status_code == 401


def test_an_access_token_ends_after_ten_minutes(browser: Browser, clock: SetClock) -> None:
    token = browser.sign_in()["access_token"]

    clock.pass_by(minutes=10, seconds=29)
    assert browser.me(token).status_code == 200
    clock.pass_by(seconds=2)
    assert browser.me(token).status_code == 401


def test_the_form_is_accessible_and_runs_no_script(browser: Browser) -> None:
    form = browser.open_form()

    assert '<html lang="es-MX">' in form.text
    for name, autocomplete in (("name", "username"), ("password", "current-password")):
        assert f'<label for="{name}">' in form.text
        assert f'autocomplete="{autocomplete}"' in form.text
    assert "<script" not in form.text
    assert "style=" not in form.text
    assert "frame-ancestors 'none'" in form.headers["content-security-policy"]
    assert form.headers["cache-control"] == "no-store"
    cookie = form.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie


def test_a_wrong_password_says_so_to_screen_readers_too(browser: Browser) -> None:
    refused = browser.send_form(browser.open_form(), password="wrong")

    assert refused.status_code == 401
    assert 'role="alert"' in refused.text
    assert "[sign_in_refused]" in refused.text
    assert 'value="ana"' in refused.text  # no need to type the name again
    assert "wrong" not in refused.text


def test_five_failures_lock_and_say_for_how_long(browser: Browser) -> None:
    form = browser.open_form()
    for _ in range(5):
        form = browser.send_form(form, password="wrong")

    locked = browser.send_form(form)

    assert locked.status_code == 429
    assert locked.headers["retry-after"] == "60"
    assert "Espere 1 minuto" in locked.text


def test_a_crowd_is_asked_to_try_again(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "VERIFY_WAIT_S", 0.01)
    monkeypatch.setattr(passwords, "_verifying", threading.BoundedSemaphore(1))
    form = browser.open_form()

    with passwords._verifying:
        busy = browser.send_form(form)

    assert busy.status_code == 503
    assert "[sign_in_busy]" in busy.text
    assert browser.send_form(form).status_code == 303


def test_what_people_type_is_shown_as_text_only(browser: Browser) -> None:
    evil = '"><script>alert(1)</script>'

    hinted = browser.open_form(login_hint=evil, state=evil)
    typed = browser.send_form(hinted, name=evil, password="wrong")

    assert "<script" not in hinted.text + typed.text


@pytest.mark.parametrize("csrf", ["", "0" * 64, "é"])
def test_a_form_of_another_page_is_refused(browser: Browser, csrf: str) -> None:
    refused = browser.send_form(browser.open_form(), csrf=csrf)

    assert refused.status_code == 403
    assert "[form_expired]" in refused.text


def test_a_form_of_another_browser_or_request_is_refused(
    browser: Browser, other_browser: Browser
) -> None:
    form = browser.open_form()
    other_browser.open_form()

    assert (
        other_browser.send_form(form).status_code == 403
    )  # the attacker's form, the victim's cookie
    other = browser.client.post(
        "/oidc/authorize", params=browser.query(state="other"), data={"csrf": "x", "name": "ana"}
    )
    assert other.status_code == 403


def test_a_form_sent_from_a_foreign_origin_is_refused(browser: Browser) -> None:
    form = browser.open_form()

    for origin in ("https://evil.example", "null"):
        assert browser.send_form(form, headers={"origin": origin}).status_code == 403
    assert browser.send_form(form, headers={"origin": ORIGIN}).status_code == 303


@pytest.mark.parametrize(
    "redirect",
    [
        "https://evil.example/entrar",
        f"{REDIRECT}/",
        f"{REDIRECT}?x=1",
        f"{ORIGIN}/entrar/../otra",
        "http://127.0.0.1:8081/entrar",
        "http://127.0.0.1:8080@evil.example/entrar",
        "javascript:alert(1)",
        "",
        None,
    ],
)
def test_a_redirect_that_is_not_registered_to_the_letter_goes_nowhere(
    browser: Browser, redirect: str | None
) -> None:
    refused = browser.open_form(redirect_uri=redirect)

    assert refused.status_code == 400
    assert "location" not in refused.headers
    assert "[redirect_unknown]" in refused.text


def test_an_unknown_client_goes_nowhere(browser: Browser) -> None:
    refused = browser.open_form(client_id="other")

    assert refused.status_code == 400
    assert "[client_unknown]" in refused.text


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"scope": "profile"}, "invalid_scope"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"request": "eyJ"}, "request_not_supported"),
        ({"prompt": "none"}, "login_required"),
        ({"prompt": "consent"}, "invalid_request"),
        ({"max_age": "soon"}, "invalid_request"),
        ({"nonce": "x" * 3_000}, "invalid_request"),
        ({"nonce": "two\nlines"}, "invalid_request"),
    ],
)
def test_a_request_we_do_not_serve_is_told_to_the_client(
    browser: Browser, changed: dict[str, str | None], error: str
) -> None:
    told = back(browser.open_form(**changed))

    assert (told["error"], told["state"], told["iss"]) == (error, "state-1", ORIGIN)
    assert "code" not in told

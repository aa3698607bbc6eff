"""What was issued: each code once, refresh tokens in a chain, and everything ends together."""

from __future__ import annotations

import pytest

from cloud.kernel import auth
from cloud.kernel.auth.principal import Role
from cloud.kernel.platform import Platform
from tests.unit.kernel.auth.signing_in import (
    ORIGIN,
    PASSWORD,
    REDIRECT,
    Browser,
    SetClock,
    back,
    claims_of,
)


def test_a_code_works_once_and_a_second_use_ends_the_session(browser: Browser) -> None:
    code = browser.code()
    tokens = browser.redeem(code).json()

    again = browser.redeem(code)

    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    assert browser.refresh(tokens["refresh_token"]).status_code == 400


def test_a_code_is_over_after_a_minute(browser: Browser, clock: SetClock) -> None:
    code = browser.code()
    clock.pass_by(seconds=60)

    assert browser.redeem(code).status_code == 400


@pytest.mark.parametrize(
    "changed",
    [
        {"code_verifier": "x" * 43},
        {"code_verifier": ""},
        {"code_verifier": "short"},
        {"redirect_uri": f"{ORIGIN}/otra"},
        {"client_id": "other"},
        {"code": "guessed"},
    ],
)
def test_a_code_is_no_use_to_a_thief(browser: Browser, changed: dict[str, str]) -> None:
    answer = browser.token(
        **{
            "grant_type": "authorization_code",
            "code": browser.code(),
            "redirect_uri": REDIRECT,
            "code_verifier": browser.verifier,
            **changed,
        }
    )

    assert answer.status_code == 400
    assert answer.json()["error"] in {"invalid_grant", "invalid_request"}
    assert answer.headers["cache-control"] == "no-store"


def test_a_wrong_verifier_burns_the_code(browser: Browser) -> None:
    code = browser.code()

    assert browser.redeem(code, code_verifier="x" * 43).status_code == 400
    assert browser.redeem(code).status_code == 400


@pytest.mark.parametrize("grant", ["password", "client_credentials", "implicit", ""])
def test_other_grants_are_not_served(browser: Browser, grant: str) -> None:
    answer = browser.token(grant_type=grant, username="ana", password=PASSWORD)

    assert answer.json()["error"] == "unsupported_grant_type"


def test_refreshing_gives_the_next_token_of_the_chain(browser: Browser, clock: SetClock) -> None:
    tokens = browser.sign_in()
    for _ in range(5):
        clock.pass_by(minutes=9)
        answer = browser.refresh(tokens["refresh_token"])
        assert answer.status_code == 200
        assert answer.json()["refresh_token"] != tokens["refresh_token"]
        tokens = answer.json()
        assert browser.me(tokens["access_token"]).status_code == 200


def test_a_refresh_token_that_comes_again_ends_the_whole_chain(
    browser: Browser, clock: SetClock
) -> None:
    stolen = browser.sign_in()["refresh_token"]
    fresh = browser.refresh(stolen).json()["refresh_token"]
    clock.pass_by(seconds=11)

    assert browser.refresh(stolen).status_code == 400
    assert browser.refresh(fresh).status_code == 400


def test_an_answer_that_got_lost_may_be_asked_for_again_at_once(
    browser: Browser, clock: SetClock
) -> None:
    token = browser.sign_in()["refresh_token"]
    browser.refresh(token)
    clock.pass_by(seconds=9)

    again = browser.refresh(token)

    assert again.status_code == 200
    assert browser.refresh(again.json()["refresh_token"]).status_code == 200


def test_another_client_cannot_refresh(browser: Browser) -> None:
    token = browser.sign_in()["refresh_token"]

    assert browser.refresh(token, client_id="other").status_code == 400
    assert browser.refresh("guessed").status_code == 400


def test_a_working_day_later_the_password_is_asked_again(browser: Browser, clock: SetClock) -> None:
    tokens = browser.sign_in()
    clock.pass_by(hours=12)

    assert browser.refresh(tokens["refresh_token"]).status_code == 400
    assert "Contraseña" in browser.open_form().text


def test_a_role_that_was_taken_away_is_gone_with_the_next_token(
    browser: Browser, platform: Platform
) -> None:
    tokens = browser.sign_in()
    with platform.pool("kernel").connection() as connection:
        connection.execute("UPDATE users SET roles = '{field}', administrations = '{}'")

    refreshed = browser.refresh(tokens["refresh_token"]).json()["access_token"]

    assert browser.me(refreshed).json()["roles"] == ["field"]
    assert browser.me(refreshed).json()["administrations"] == []


def test_a_changed_password_ends_every_session(browser: Browser, platform: Platform) -> None:
    tokens = browser.sign_in()

    auth.ensure_user(platform.database, "ana", [Role.CLERK], ["*"], "otra-clave-larga-9")

    assert browser.refresh(tokens["refresh_token"]).status_code == 400
    assert "Contraseña" in browser.open_form().text


def test_a_page_that_is_loaded_again_needs_no_password(browser: Browser, clock: SetClock) -> None:
    first = claims_of(browser, browser.sign_in()["id_token"])
    clock.pass_by(hours=1)

    told = back(browser.open_form(prompt="none"))
    again = claims_of(browser, browser.redeem(told["code"]).json()["id_token"])

    assert again["auth_time"] == first["auth_time"]  # when the password was given
    assert again["sub"] == first["sub"]


def test_a_client_may_ask_for_the_password_all_the_same(browser: Browser, clock: SetClock) -> None:
    browser.sign_in()
    clock.pass_by(minutes=5)

    assert "Contraseña" in browser.open_form(prompt="login").text
    assert "Contraseña" in browser.open_form(max_age="299").text
    assert "code" in back(browser.open_form(max_age="300"))


def test_signing_out_ends_tokens_browser_and_goes_back(browser: Browser) -> None:
    tokens = browser.sign_in()

    left = browser.client.get(
        "/oidc/logout",
        params={
            "id_token_hint": tokens["id_token"],
            "post_logout_redirect_uri": f"{ORIGIN}/entrar",
            "state": "bye",
        },
    )

    assert left.headers["location"] == f"{ORIGIN}/entrar?state=bye"
    assert browser.refresh(tokens["refresh_token"]).status_code == 400
    assert "Contraseña" in browser.open_form().text


def test_signing_out_works_by_the_cookie_alone_and_with_an_old_hint(
    browser: Browser, other_browser: Browser, clock: SetClock
) -> None:
    tokens = browser.sign_in()
    assert "Sesión cerrada" in browser.client.post("/oidc/logout").text
    assert browser.refresh(tokens["refresh_token"]).status_code == 400

    tokens = other_browser.sign_in()
    clock.pass_by(hours=1)  # the ID token is over, and still says which session
    browser.client.get("/oidc/logout", params={"id_token_hint": tokens["id_token"]})
    assert other_browser.refresh(tokens["refresh_token"]).status_code == 400


def test_signing_out_leads_nowhere_that_is_not_ours(browser: Browser) -> None:
    tokens = browser.sign_in()
    for elsewhere in ("https://evil.example/", f"{ORIGIN}.evil.example/", "//evil.example"):
        hint = {"id_token_hint": tokens["id_token"], "post_logout_redirect_uri": elsewhere}
        left = browser.client.get("/oidc/logout", params=hint)

        assert (left.status_code, "location" in left.headers) == (200, False)


def test_a_forged_hint_ends_nobodys_session(browser: Browser, other_browser: Browser) -> None:
    tokens = browser.sign_in()
    head, claims, _ = tokens["id_token"].split(".")

    other_browser.client.get("/oidc/logout", params={"id_token_hint": f"{head}.{claims}.AAAA"})
    other_browser.client.get("/oidc/logout", params={"id_token_hint": tokens["access_token"]})

    assert browser.refresh(tokens["refresh_token"]).status_code == 200


def test_revoking_ends_the_session_and_never_tells(browser: Browser) -> None:
    token = browser.sign_in()["refresh_token"]

    for given in (token, token, "guessed"):
        assert browser.client.post("/oidc/revoke", data={"token": given}).status_code == 200
    assert browser.refresh(token).status_code == 400


def test_tokens_signed_before_a_key_rotation_stay_good(
    browser: Browser, platform: Platform
) -> None:
    assert platform.issuer is not None
    before = browser.sign_in()["access_token"]

    kid = platform.issuer.keys.rotate()

    after = browser.sign_in()["access_token"]
    keys = browser.client.get("/oidc/jwks").json()["keys"]
    assert keys[0]["kid"] == kid
    assert len(keys) >= 2
    assert browser.me(before).status_code == browser.me(after).status_code == 200


def test_nothing_that_opens_a_door_is_stored(browser: Browser, platform: Platform) -> None:
    code = browser.code()
    tokens = browser.redeem(code).json()
    secrets = (code, *tokens.values(), *browser.client.cookies.values(), PASSWORD)
    tables = ("users", "login_tries", "sessions", "authorization_codes", "refresh_tokens")

    with platform.pool("kernel").connection() as connection:
        for table in (*tables, "browsers", "signing_keys"):
            stored = connection.execute(f"SELECT t::text FROM {table} t").fetchall()
            for secret in secrets:
                if isinstance(secret, str) and len(secret) > 10 and " " not in secret:
                    assert secret not in str(stored), table
            assert '"d"' not in str(stored)  # a private key in the clear

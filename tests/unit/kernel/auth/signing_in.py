"""A browser with our pages open, and a clock that tests move."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fastapi.testclient import TestClient
from httpx import Response
from joserfc import jwt
from joserfc.jwk import KeySet

from cloud.kernel.auth.sessions import s256
from cloud.kernel.clock import to_us

ORIGIN = "http://127.0.0.1:8080"
REDIRECT = f"{ORIGIN}/entrar"
PASSWORD = "agua-de-la-llave-7"
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


class SetClock:
    """A clock that stands until a test moves it."""

    def __init__(self) -> None:
        self.at = NOW

    def now(self) -> datetime:
        return self.at

    def now_us(self) -> int:
        return to_us(self.at)

    @property
    def speed(self) -> float:
        return 1.0

    def pass_by(self, **gone: float) -> None:
        self.at += timedelta(**gone)


@dataclass
class Browser:
    """A browser with our pages open: what it does, and what it keeps."""

    client: TestClient
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48))

    def query(self, **changed: str | None) -> dict[str, str]:
        asked = {
            "client_id": "aquacis-web",
            "redirect_uri": REDIRECT,
            "response_type": "code",
            "scope": "openid profile offline_access",
            "state": "state-1",
            "nonce": "nonce-1",
            "code_challenge": s256(self.verifier),
            "code_challenge_method": "S256",
            **changed,
        }
        return {name: text for name, text in asked.items() if text is not None}

    def open_form(self, **changed: str | None) -> Response:
        answer: Response = self.client.get("/oidc/authorize", params=self.query(**changed))
        return answer

    def send_form(
        self, form: Response, *, password: str = PASSWORD, headers: Any = None, **changed: str
    ) -> Response:
        action = re.search(r'action="([^"]+)"', form.text)
        csrf = re.search(r'name="csrf" value="([^"]+)"', form.text)
        assert action is not None
        assert csrf is not None
        fields = {"csrf": csrf[1], "name": "ana", "password": password, **changed}
        answer: Response = self.client.post(unescape(action[1]), data=fields, headers=headers)
        return answer

    def code(self) -> str:
        answer = self.open_form()
        if answer.status_code == 200:
            answer = self.send_form(answer)
        return back(answer)["code"]

    def redeem(self, code: str, **changed: str) -> Response:
        return self.token(
            grant_type="authorization_code",
            code=code,
            redirect_uri=REDIRECT,
            **{"code_verifier": self.verifier, **changed},
        )

    def refresh(self, token: str, **changed: str) -> Response:
        return self.token(grant_type="refresh_token", refresh_token=token, **changed)

    def token(self, **fields: str) -> Response:
        given = {"client_id": "aquacis-web", **fields}
        answer: Response = self.client.post("/oidc/token", data=given)
        return answer

    def sign_in(self) -> dict[str, Any]:
        tokens: dict[str, Any] = self.redeem(self.code()).json()
        return tokens

    def me(self, token: str) -> Response:
        bearer = {"Authorization": f"Bearer {token}"}
        answer: Response = self.client.get("/api/v1/me", headers=bearer)
        return answer


def back(answer: Response) -> dict[str, str]:
    """Return what the redirect to our pages carries."""
    assert answer.status_code == 303, answer.text
    assert answer.headers["location"].startswith(f"{REDIRECT}?")
    query = parse_qs(urlsplit(answer.headers["location"]).query)
    return {name: texts[0] for name, texts in query.items()}


def claims_of(browser: Browser, token: str) -> dict[str, Any]:
    keys = KeySet.import_key_set(browser.client.get("/oidc/jwks").json())
    return dict(jwt.decode(token, keys, algorithms=["ES256"]).claims)

"""Who am I: what the pages ask first."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from cloud.kernel.auth.guard import signed_in
from cloud.kernel.auth.principal import Principal
from cloud.kernel.web import OpenPlatform

router = APIRouter(prefix="/api/v1", tags=["sign-in"])


class Me(TypedDict):
    """Who is signed in."""

    subject: str
    name: str
    roles: list[str]
    administrations: list[str]
    administration_names: dict[str, str]


@router.get("/me", responses={200: {"model": Me}})
def me(
    principal: Annotated[Principal, Depends(signed_in)], platform: OpenPlatform
) -> dict[str, Any]:
    """The caller, their roles, and the administrations they may see, with their names."""
    names = {each.code: each.name for each in platform.settings.administrations}
    return {
        "subject": principal.subject,
        "name": principal.name,
        "roles": sorted(principal.roles),
        "administrations": list(principal.administrations),
        "administration_names": {code: names[code] for code in principal.administrations},
    }

"""Who am I: what the pages ask first."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from cloud.kernel.auth.guard import signed_in
from cloud.kernel.auth.principal import Principal

router = APIRouter(prefix="/api/v1", tags=["sign-in"])


@router.get("/me")
def me(principal: Annotated[Principal, Depends(signed_in)]) -> dict[str, Any]:
    """The caller, their roles, and the administrations they may see."""
    return {
        "subject": principal.subject,
        "name": principal.name,
        "roles": sorted(principal.roles),
        "administrations": list(principal.administrations),
    }

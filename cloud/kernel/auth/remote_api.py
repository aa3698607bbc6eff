"""Where our pages find the issuer when it is somebody else's: its own description, passed on."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends

from cloud.kernel import telemetry
from cloud.kernel.auth.guard import public
from cloud.kernel.auth.resource import IssuerUnreachable
from cloud.kernel.problems import UNAVAILABLE, Problem
from cloud.kernel.web import OpenPlatform

log = telemetry.logger(__name__)

router = APIRouter(include_in_schema=False)


@router.get("/.well-known/openid-configuration", dependencies=[Depends(public)])
def discovery(platform: OpenPlatform) -> dict[str, Any]:
    """Describe the configured issuer, so that the pages need no setting of their own."""
    assert platform.remote_issuer is not None
    try:
        return platform.remote_issuer.discovery()
    except IssuerUnreachable as unreachable:
        log.error("issuer_unreachable", error=str(unreachable))
        raise Problem(UNAVAILABLE, headers={"Retry-After": "5"}) from None

"""Sign-in and permission: a resource server for any OIDC issuer, and a small local issuer."""

from cloud.kernel.auth.guard import Guard, Public, public, require, signed_in
from cloud.kernel.auth.principal import ALL_ADMINISTRATIONS, Principal, Role
from cloud.kernel.auth.users import ensure_user

__all__ = [
    "ALL_ADMINISTRATIONS",
    "Guard",
    "Principal",
    "Public",
    "Role",
    "ensure_user",
    "public",
    "require",
    "signed_in",
]

"""Loaded on the gateway's Python too, where the cloud's fixtures are not."""

from tests import profiles

__all__ = ["profiles"]

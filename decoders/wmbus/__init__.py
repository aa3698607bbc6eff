"""Wireless M-Bus (EN 13757-3, -4, -7; OMS), layer by layer."""

"""Finds whether a call came from this host or another one."""

from __future__ import annotations

import ipaddress
from urllib.parse import unquote


def is_remote_address(host: str | None) -> bool:
    """Whether a caller at this address is on another host. True if the address is not known."""
    try:
        found = ipaddress.ip_address((host or "").partition("%")[0])
    except ValueError:
        return True
    return not (getattr(found, "ipv4_mapped", None) or found).is_loopback


def is_remote_peer(peer: str) -> bool:
    """Whether this gRPC peer, such as `ipv4:127.0.0.1:4711` or `ipv6:%5B::1%5D:4711`, is on another host."""
    kind, _, place = unquote(peer).partition(":")
    if kind in ("unix", "unix-abstract"):
        return False
    return is_remote_address(place.rpartition(":")[0].strip("[]"))

"""Whose process is at the other end of a connection: on loopback there may be other users of the machine."""

from __future__ import annotations

import ipaddress
import struct
import sys
from pathlib import Path

NOBODY = -1
"""Stands for a user that is not known, though it is one of this machine: the caller's socket is gone already."""
_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LOCAL, _REMOTE, _UID, _INODE = 1, 2, 7, 9  # columns

End = tuple[str, int]
"""Address and port."""


def user_of(client: End | None, server: End | None) -> int | None:
    """The user id of the client's process, as the kernel tells it; NOBODY where it tells nothing of a connection on
    loopback. None where it cannot tell: the client is on another host, behind a container's network, or this is not
    Linux. Reads a file that grows with the machine's connections.

    A caller who closes its socket after sending leaves a row without an inode, which has user 0 whoever it was, and one
    who resets it leaves none, and perhaps no address either: neither may pass for somebody that it is not.
    """
    if sys.platform != "linux":
        return None
    here, there = _address(server), _address(client)
    on_loopback = any(address is not None and address.is_loopback for address in (here, there))
    if here is not None and not on_loopback:
        return None
    if client is None or server is None or here is None or there is None:
        return NOBODY
    wanted = {(_written(there, client[1], wide), _written(here, server[1], wide)) for wide in (False, True)}
    for table in _TABLES:
        try:
            lines = table.read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if (fields[_LOCAL], fields[_REMOTE]) in wanted and fields[_INODE] != "0":
                return int(fields[_UID])
    return NOBODY


def _address(end: End | None) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(end[0]) if end else None
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _written(address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int, wide: bool) -> str:
    """Address and port as those tables have them: each four bytes of the address in the machine's order."""
    packed = address.packed
    if wide and len(packed) == 4:
        packed = b"\0" * 10 + b"\xff\xff" + packed
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{word:08X}" for word in words) + f":{port:04X}"

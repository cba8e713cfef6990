"""Find the user at the other end of a connection: on loopback it may be another user of the machine."""

from __future__ import annotations

import ipaddress
import struct
import sys
from pathlib import Path

NOBODY = -1
"""The id for an unknown user of this machine, whose socket is closed already."""
_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LOCAL, _REMOTE, _UID, _INODE = 1, 2, 7, 9  # columns

End = tuple[str, int]
"""Address and port."""


def user_of(client: End | None, server: End | None) -> int | None:
    """Return the user id of the client's process from the kernel's tables; NOBODY if they do not have a connection on
    loopback. None if the kernel cannot know: the client is on another host or behind a container's network, or this is
    not Linux. Reads a file that grows with the machine's connections.

    A client that closes its socket after sending leaves a row without an inode, with user 0 for any user; one that
    resets its connection leaves no row, and perhaps no address. Neither may count as a user that it is not.
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
    """Return address and port as those tables write them: each four bytes of the address in the machine's order."""
    packed = address.packed
    if wide and len(packed) == 4:
        packed = b"\0" * 10 + b"\xff\xff" + packed
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{word:08X}" for word in words) + f":{port:04X}"

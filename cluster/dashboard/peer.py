"""Whose process is at the other end of a connection: on loopback there may be other users of the machine."""

from __future__ import annotations

import ipaddress
import struct
from pathlib import Path

_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LOCAL, _REMOTE, _UID = 1, 2, 7  # columns


def user_of(client: tuple[str, int], server: tuple[str, int]) -> int | None:
    """The user id of the client's process; None where the kernel does not say: it is on another host, behind a
    container's network, or this is not Linux."""
    try:
        if not ipaddress.ip_address(client[0]).is_loopback:
            return None
        wanted = {(_written(client, wide), _written(server, wide)) for wide in (False, True)}
    except ValueError:
        return None
    for table in _TABLES:
        try:
            lines = table.read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if (fields[_LOCAL], fields[_REMOTE]) in wanted:
                return int(fields[_UID])
    return None


def _written(end: tuple[str, int], wide: bool) -> str:
    """Address and port as those tables have them: each four bytes of the address in the machine's order."""
    address = ipaddress.ip_address(end[0])
    packed = address.packed
    if wide and len(packed) == 4:
        packed = b"\0" * 10 + b"\xff\xff" + packed
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{word:08X}" for word in words) + f":{end[1]:04X}"

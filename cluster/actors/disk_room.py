"""Tests whether a device has room left for more bytes and for one more file."""

from __future__ import annotations

import errno
import os
from pathlib import Path

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_LEFT_BYTES = 64 * 1024
_RAY_BYTES = 2**20
"""With less room, processes that Ray starts die at once, because they cannot write their logs and sockets."""


def is_full(folder: str | Path, least: int = _LEFT_BYTES) -> bool:
    """Whether the device of a folder has less than `least` bytes free, or no room for another file."""
    try:
        room = os.statvfs(folder)
    except OSError:
        return False
    return room.f_bavail * room.f_frsize < least or (room.f_files > 0 and room.f_favail == 0)


def full_for_ray(folder: str | Path) -> str:
    """Return the error's text if the device with Ray's files, in `folder`, is too full for Ray to start a process; else
    ""."""
    return f"no space left on device: {folder}, where Ray keeps its files" if is_full(folder, _RAY_BYTES) else ""

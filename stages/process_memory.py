"""The memory of this process: the kernel's figures (proc(5)), and what the C library does with freed memory."""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt(3)
_LARGEST_ON_HEAP = 32 * 2**20  # glibc takes no more


def return_freed_memory() -> None:
    """Return freed memory to the kernel, so that what is measured from now on is not taken from it."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def keep_freed_memory() -> None:
    """Let glibc keep the memory of freed arrays of up to 32 MiB for the next array. By default glibc returns large
    blocks to the kernel, and the page faults of a new block cost more than most passes over it. Does nothing with
    another C library."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, _LARGEST_ON_HEAP)
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def peak_resident_bytes() -> int:
    """Return the peak resident memory of this process, in bytes."""
    return status_bytes("VmHWM")


def status_bytes(key: str) -> int:
    """Return in bytes the value of a line of /proc/self/status that is in kB. Raises OSError if there is no such
    line."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {key}")

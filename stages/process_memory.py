"""The kernel's figures about the memory of this process (proc(5))."""

from __future__ import annotations

from pathlib import Path


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

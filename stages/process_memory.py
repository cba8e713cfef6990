"""What the kernel says of this process's memory (proc(5))."""

from __future__ import annotations

from pathlib import Path


def peak_resident_bytes() -> int:
    """The most memory that this process has had resident, in bytes."""
    return status_bytes("VmHWM")


def status_bytes(key: str) -> int:
    """A line of /proc/self/status that is in kB, in bytes. Raises OSError where there is none of that name."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {key}")

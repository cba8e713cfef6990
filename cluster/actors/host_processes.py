"""Finds, checks and kills processes of this host."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1


def command_line(pid: int) -> bytes:
    """Return the command line of a process; b"" if there is no such process."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def names_in_command_lines(text: str) -> bool:
    """Whether the command line of any process contains this text."""
    wanted = os.fsencode(text)
    return any(wanted in command_line(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def own_process_with(*arguments: str) -> int | None:
    """Return the id of a process of this user whose command line contains these arguments one after another; None if
    there is none."""
    wanted = b"\0" + b"\0".join(map(os.fsencode, arguments)) + b"\0"
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and entry.stat().st_uid == os.geteuid() and wanted in command_line(int(entry.name)):
                return int(entry.name)
    return None


def started_at(pid: int) -> float | None:
    """Return when a process was started, in seconds since 1970, to about a second. None if it does not exist or is a
    zombie; 0 if the system has no /proc and the process exists."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        booted = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
    except (OSError, StopIteration):
        return 0.0 if not Path("/proc/self").exists() and _answers(pid) else None
    if fields[0] in "ZX":
        return None
    return float(booted.split()[1]) + int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def end_ray_process(pid: int, actor_class: str) -> None:
    """Kill a Ray actor's process that Ray itself may not reach, because it is stopped (SIGSTOP) or its Ray is gone.
    Process ids are reused, so this kills only a process with the actor's name in its command line."""
    with contextlib.suppress(OSError):
        if is_ray_process(pid, actor_class):
            os.kill(pid, signal.SIGKILL)


def is_ray_process(pid: int, actor_class: str) -> bool:
    """Whether a process of this host is that of a Ray actor of this class."""
    command = command_line(pid)
    return b"ray::" in command and actor_class.encode() in command


def boot_moment() -> dict[str, Any]:
    """Return the present moment for `existed_at`: which boot of the host it is, and the seconds since then. Nobody can
    set this clock."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        boot = ""
    return {"boot": boot, "uptime": time.clock_gettime(time.CLOCK_BOOTTIME)}


def existed_at(pid: int, moment: Mapping[str, Any]) -> bool:
    """Whether the process that has this id now existed at a `boot_moment` already. Else another one has the id by now,
    for example after a reboot, or in a container that was started again. True if `moment` does not say when it was."""
    if "uptime" not in moment:
        return True  # of an older version
    try:
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return False
    started = ticks / os.sysconf("SC_CLK_TCK")
    return bool(moment.get("boot") == boot_moment()["boot"] and started <= float(moment["uptime"]))


def end_with_parent() -> None:
    """Let the kernel kill this process when its parent ends, even if this process is stopped (Linux only)."""
    with contextlib.suppress(OSError, AttributeError):
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent ended meanwhile
            os.kill(os.getpid(), signal.SIGKILL)


def ignore_end_signals() -> None:
    """Let this process ignore the signals that ask for its end, whichever thread calls this. A signal for a whole
    process group or container reaches workers before the process that they work for has saved their state; that process
    ends them."""
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        libc.signal(number, int(signal.SIG_IGN))


def in_session(session: int) -> list[int]:
    """Return the processes of a session (setsid(2)), whatever their parents are now. Zombies do not count."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                state, _, _, sid = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                if int(sid) == session and state not in "ZX":
                    found.append(int(entry.name))
    return found


def works_in(pid: int, folder: str) -> bool:
    """Whether a process belongs to this user and has the working directory `folder`, even if that is removed by now."""
    entry = Path(f"/proc/{pid}")
    try:
        mine = entry.stat().st_uid == os.geteuid()
        return mine and os.readlink(entry / "cwd").removesuffix(" (deleted)") == os.path.realpath(folder)
    except OSError:
        return False


def end_session(session: int, within_s: float = 10.0) -> bool:
    """Kill every process of a session; return False if some are left after `within_s`. The kernel does not reuse the
    session's number while one of its processes lives."""
    deadline = time.monotonic() + within_s
    while pids := in_session(session):
        if time.monotonic() > deadline:
            return False
        for pid in pids:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    return True

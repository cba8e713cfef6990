"""Processes of this host: are they still who they were, and how to end them for good."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def command_line(pid: int) -> bytes:
    """The process's command line; empty where there is no such process."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def names_in_command_lines(text: str) -> bool:
    """Whether the command line of any process has this text in it."""
    wanted = os.fsencode(text)
    return any(wanted in command_line(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def own_process_with(*arguments: str) -> int | None:
    """A process of this user that has these arguments in its command line, one after the other; None if there is
    none."""
    wanted = b"\0" + b"\0".join(map(os.fsencode, arguments)) + b"\0"
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and entry.stat().st_uid == os.geteuid() and wanted in command_line(int(entry.name)):
                return int(entry.name)
    return None


def started_at(pid: int) -> float | None:
    """When the process with this number was started, in seconds since 1970, to about a second; None if there is none,
    or only its entry is left (a zombie). 0 if the system tells no more than that it is there."""
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
    """Kill a Ray worker process that Ray itself may not reach (stopped, or its Ray is gone). Numbers are reused: only
    a process that still carries the actor's name is ended."""
    with contextlib.suppress(OSError):
        command = command_line(pid)
        if b"ray::" in command and actor_class.encode() in command:
            os.kill(pid, signal.SIGKILL)


def end_with_parent() -> None:
    """Let the kernel kill this process when its parent ends, though it should be stopped then (Linux only)."""
    with contextlib.suppress(OSError, AttributeError):
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended meanwhile
            os.kill(os.getpid(), signal.SIGKILL)


def in_session(session: int) -> list[int]:
    """The processes of a session (setsid(2)), whoever their parent is by now. Zombies do not count."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                state, _, _, sid = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                if int(sid) == session and state not in "ZX":
                    found.append(int(entry.name))
    return found


def works_in(pid: int, folder: str) -> bool:
    """Whether it is a process of this user whose working directory is `folder`, which may be removed by now."""
    entry = Path(f"/proc/{pid}")
    try:
        mine = entry.stat().st_uid == os.geteuid()
        return mine and os.readlink(entry / "cwd").removesuffix(" (deleted)") == os.path.realpath(folder)
    except OSError:
        return False


def end_session(session: int, within_s: float = 10.0) -> bool:
    """Kill every process of a session; False if some are left after `within_s`. The kernel gives a session's number to
    nobody else while one of its processes lives."""
    deadline = time.monotonic() + within_s
    while pids := in_session(session):
        if time.monotonic() > deadline:
            return False
        for pid in pids:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    return True

"""Processes of this host: are they still who they were, and how to end them for good."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path


def command_line(pid: int) -> bytes:
    """The process's command line; empty where there is no such process."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def end_ray_process(pid: int, actor_class: str) -> None:
    """Kill a Ray worker process that Ray itself may not reach (stopped, or its Ray is gone). Numbers are reused: only
    a process that still carries the actor's name is ended."""
    with contextlib.suppress(OSError):
        command = command_line(pid)
        if b"ray::" in command and actor_class.encode() in command:
            os.kill(pid, signal.SIGKILL)


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

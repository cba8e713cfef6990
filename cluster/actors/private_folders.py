"""Temporary folders that only their user can enter, and that are removed later if their process is killed.

Each is named `pipetrain-PID-RANDOM`, has mode 0700, and contains a file `owner` that its process keeps locked. The
kernel releases the lock however the process ends, so a folder with a free lock is a leftover. Process ids are reused,
so they prove nothing. Other users may write to the temporary folder too, so this module reads and removes only folders
of this user, and follows no symbolic link.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.actors.host_processes import names_in_command_lines, started_at

_OWNER = "owner"
_NAME = re.compile(r"pipetrain-(\d+|ray)-\w+")
_LONGEST_BASE = 10
_BEING_MADE_S = 60.0


@dataclass(frozen=True, slots=True)
class PrivateFolder:
    """A folder and the lock that marks it as in use: an open file, which a child process may inherit (`pass_fds`)."""

    path: Path
    lock: int

    def let_go(self) -> None:
        """Close this process's lock. If no other process has it, the next sweep removes the folder."""
        os.close(self.lock)

    def remove(self) -> None:
        """Remove the folder with its content."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.let_go()


def make_private_folder(base: str | None = None) -> PrivateFolder:
    """Make a new folder in `base`, by default in the system's temporary folder."""
    path = Path(tempfile.mkdtemp(prefix=f"pipetrain-{os.getpid()}-", dir=base))
    try:
        unlocked = path / f".{_OWNER}"
        lock = os.open(unlocked, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        unlocked.rename(path / _OWNER)  # a sweep never sees the file unlocked
    except OSError:  # such as a full disk: each new try would leave another folder
        shutil.rmtree(path, ignore_errors=True)
        raise
    return PrivateFolder(path, lock)


def is_private_folder(path: str) -> bool:
    """Whether the path has the form of a private folder's path. The folder need not exist."""
    return os.path.isabs(path) and _NAME.fullmatch(os.path.basename(path)) is not None


@contextlib.contextmanager
def private_folder(base: str | None = None) -> Iterator[Path]:
    """Make a private folder, and remove it after the block."""
    folder = make_private_folder(base)
    try:
        yield folder.path
    finally:
        folder.remove()


def short_base() -> str:
    """Return a folder with a path short enough for Ray's sockets: a socket's path may have about 100 bytes, and Ray's
    own part takes most of them."""
    base = tempfile.gettempdir()
    return base if len(os.fsencode(base)) <= _LONGEST_BASE else "/tmp"


def sweep_leftovers(*bases: str) -> None:
    """Remove private folders whose processes were killed, and those that earlier versions left. Looks in `bases`, by
    default in all places where this version or an earlier one makes them."""
    for base in bases or {tempfile.gettempdir(), "/tmp"}:
        with contextlib.suppress(OSError):
            for entry in os.scandir(base):
                if _NAME.fullmatch(entry.name):
                    with contextlib.suppress(OSError):
                        _sweep(entry.path)


def _sweep(path: str) -> None:
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        return
    if stat.S_IMODE(found.st_mode) & 0o077 == 0:  # else others could have made the lock
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(f"{path}/{_OWNER}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # OSError if it is in use
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)
            return
    if _abandoned(path, found.st_mtime):
        shutil.rmtree(path, ignore_errors=True)


def _abandoned(path: str, changed: float) -> bool:
    """Whether a folder without a lock is a leftover of an earlier version, and not one that a process is just making
    and about to lock."""
    maker = os.path.basename(path).split("-")[1]
    if maker == "ray":  # a service's Ray, whose processes have the folder in their command lines
        return time.time() - changed > _BEING_MADE_S and not names_in_command_lines(path)
    began = started_at(int(maker))
    return began is None or began > changed + 1.0  # another process has the id by now

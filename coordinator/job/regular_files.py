"""Opens files that a job names: only regular ones, so that opening and reading never wait for another process."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

_KINDS = (
    (stat.S_ISFIFO, "a fifo"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def open_regular(path: str | Path, most_bytes: int | None = None) -> BinaryIO:
    """Open a file for reading. Raises OSError if it cannot be opened, is not a regular file, or has more than
    `most_bytes`.

    A fifo would keep its reader waiting for a writer, and a device may never end: neither is read.
    """
    _require_regular(os.stat(path), path)  # checked first, because opening a device can have effects
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)  # checked again, because another file may have that name now
        _require_regular(found, path)
        if most_bytes is not None and found.st_size > most_bytes:
            raise too_large(found.st_size, most_bytes)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: str | Path, most_bytes: int) -> bytes:
    """Return the content of a file of at most `most_bytes`. Raises OSError as `open_regular` does."""
    with open_regular(path, most_bytes) as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:  # it has grown, or is a file of the kernel, which has no size
        raise too_large(len(content), most_bytes)
    return content


def too_large(n_bytes: int, most_bytes: int) -> OSError:
    """Return the error of a file that has more bytes than may be read."""
    return OSError(errno.EFBIG, f"has {n_bytes:,} bytes or more, at most {most_bytes:,} may be read")


def _require_regular(found: os.stat_result, path: str | Path) -> None:
    mode = found.st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        kind = next((name for is_it, name in _KINDS if is_it(mode)), "something else")
        raise OSError(errno.EINVAL, f"is {kind}, must be a regular file", str(path))

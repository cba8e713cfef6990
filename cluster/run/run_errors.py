"""Turns any exception that ends a run into one of pipetrain's errors, with the original cause."""

from __future__ import annotations

import errno
import os
import re
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from stages.errors import HostFailed, JobFailed, PipetrainError, UnexpectedError, UserMistake

_OF_THE_HOST = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EIO,
    errno.EFBIG,
    errno.ENOMEM,
    errno.EMFILE,
    errno.ENFILE,
)
_OS_ERROR = re.compile(r"\(os error (\d+)\)")


def as_our_error(error: Exception, folder: Path, *, there: bool = True) -> PipetrainError:
    """Return pipetrain's error for any exception. `folder` is the run directory; `there`: it still exists."""
    if isinstance(error, PipetrainError):
        return error
    if isinstance(error, OSError) and not there:
        return run_directory_gone(folder)
    if isinstance(error, MemoryError):
        return HostFailed(
            "out of memory: the process that reads the data and collects the weights needs more than its share of the "
            "host; use less data, or run fewer jobs at a time"
        )
    if isinstance(error, OSError) and error.errno in _OF_THE_HOST:
        return HostFailed(f"{os.strerror(error.errno).lower()}: {error.filename or folder}")
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason was given")
    trace = "".join(traceback.format_exception(error))
    return UnexpectedError(f"{type(error).__name__}: {first}; this is a bug, the traceback says where", trace)


def with_names(error: PipetrainError, files: Mapping[str, str]) -> PipetrainError:
    """Return the same error with the job's own names of uploaded files. `files` maps those names to local paths."""

    def named(text: str) -> str:
        for name, path in files.items():
            text = text.replace(path, name)
        return text

    made_of = error.__reduce__()  # its kind, and what it is constructed with
    assert isinstance(made_of, tuple), "an exception is pickled by its constructor"
    arguments = (named(one) if isinstance(one, str) else tuple(map(named, one)) for one in made_of[1])
    renamed: PipetrainError = made_of[0](*arguments)
    if isinstance(error, JobFailed) and isinstance(renamed, JobFailed) and error.place is not None:
        renamed.place = error.place
    return renamed


def run_directory_gone(folder: Path) -> HostFailed:
    """Return the error after the run directory was deleted or moved during the run."""
    return HostFailed(f"{folder}: the run directory was deleted or moved while the job ran, so nothing can be saved")


def os_error_of(text: str, file: Path) -> OSError:
    """Return the OSError whose number a Rust library's error text contains; EIO if it contains none."""
    found = _OS_ERROR.search(text)
    number = int(found[1]) if found else errno.EIO
    return OSError(number, os.strerror(number), str(file))


class Events(Protocol):
    """What takes events, such as a run directory."""

    def event(self, what: str, **details: Any) -> None:
        """Append an event."""


def record_failure(run_dir: Events, error: PipetrainError) -> None:
    """Write the event `failed` of a run."""
    run_dir.event("failed", **failure_details(error))


def failure_details(error: PipetrainError) -> dict[str, Any]:
    """Return the entries of the event `failed` for this error."""
    place = error.place if isinstance(error, JobFailed) else None
    return {
        **({} if place is None else {"place": asdict(place)}),
        "kind": type(error).__name__,
        "mistake": isinstance(error, UserMistake),
        "cause": str(error),
        "traceback": getattr(error, "traceback", ""),
    }

"""Files of checkpoints for workers on hosts that do not have the run's folder: their parts go through an actor on the
host that has it.

A worker looks whether it sees the folder into which the run's process has told it to write. The name of that folder
cannot be guessed, so a worker that sees one shares the file system.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.actors.fault_marks import claim
from cluster.actors.private_folders import private_folder
from cluster.checkpoints.layer_files import file_of

PART_BYTES = 4 * 2**20
_CALL_TIMEOUT_S = 120.0
_UNFINISHED = re.compile(r"\.step-\d{8,}-[0-9a-f]+")
_LAYER = re.compile(r"layer-\d+(?:\.\d+)*\.safetensors")


class CheckpointFiles:
    """Writes and reads files of a run's checkpoints, in the folder `folder`. The actor runs on the host that has it."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def write(self, folder: str, name: str, offset: int, part: bytes, last: bool) -> None:
        """Write a part of a file of the unfinished checkpoint `folder`; flush the file after the last one. Raises
        OSError, and PermissionError for any other file."""
        if not (_UNFINISHED.fullmatch(folder) and _LAYER.fullmatch(name)):
            raise PermissionError(f"{folder}/{name} is no file of an unfinished checkpoint")
        with (self._folder / folder / name).open("r+b" if offset else "wb") as file:
            file.seek(offset)
            file.write(part)
            if last:
                file.flush()
                os.fsync(file.fileno())

    def claim_fault(self, *details: Any) -> bool:
        """Make the mark of a fault in the run directory (see `claim`). Raises OSError."""
        return claim(self._folder.parent, *details)

    def read(self, place: str, name: str, offset: int) -> bytes:
        """Return a part of a layer's file in a checkpoint; b"" at its end. Raises OSError, and PermissionError for any
        other file."""
        if not _LAYER.fullmatch(name):
            raise PermissionError(f"{name} is no file of a checkpoint")
        with (Path(place) / name).open("rb") as file:
            file.seek(offset)
            return file.read(PART_BYTES)


class RemoteFile:
    """A file that is written through the actor `files`, a part at a time. Raises OSError."""

    def __init__(self, files: Any, path: Path) -> None:
        self._files, self._path = files, path
        self._held, self._at = bytearray(), 0

    def write(self, part: bytes | memoryview) -> None:
        """Append a part."""
        self._held += part
        if len(self._held) >= PART_BYTES:
            self._send(last=False)

    def finish(self) -> None:
        """Send the rest, and flush the file to the disk."""
        self._send(last=True)

    def _send(self, *, last: bool) -> None:
        part, self._held = bytes(self._held), bytearray()
        _call(self._files.write, self._path.parent.name, self._path.name, self._at, part, last)
        self._at += len(part)


def claim_there(files: Any, *details: Any) -> bool:
    """Make the mark of a fault in the run directory on another host (see `claim`). Raises OSError."""
    return bool(_call(files.claim_fault, *details))


@contextmanager
def layer_file_here(files: Any, place: Path, layer: str) -> Iterator[Path]:
    """Yield a copy of a layer's file of the checkpoint `place`, which is removed after the block. Raises OSError."""
    name = file_of(layer)
    with private_folder() as folder:
        with (folder / name).open("wb") as file:
            while part := _call(files.read, str(place), name, file.tell()):
                file.write(part)
        yield folder / name


def _call(method: Any, *arguments: Any) -> Any:
    """Return the result of a call of the actor. Its errors become OSErrors here."""
    import ray

    try:
        return ray.get(method.remote(*arguments), timeout=_CALL_TIMEOUT_S)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause if isinstance(error.cause, OSError) else None
        raise OSError(cause.errno if cause else None, f"{cause.strerror if cause else error}") from None
    except ray.exceptions.RayError as error:
        raise OSError(f"the host of the run's folder does not answer: {type(error).__name__}") from None

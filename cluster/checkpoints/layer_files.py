"""Writes the state of a worker's layers, one .safetensors file a layer, in a thread from a copy in memory."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cluster.checkpoints.checksums import crc32
from stages.arrays import Array
from stages.snapshots import LayerState, Read, Written, WrittenFile

TYPES = {"float32": "F32", "float64": "F64"}
_PART = 2**22  # bytes written at a time


def file_of(layer: str) -> str:
    """Return the name of a layer's file: `layer-4.1.safetensors`."""
    return f"layer-{layer}.safetensors"


class LayerFiles:
    """Writes each checkpoint of a worker into `step_folder(step, token)` of a folder. See stages.snapshots.Snapshots.

    The copy stays in memory for the next checkpoint, so it is made once.
    """

    def __init__(self, folder: Path, token: str = "", remote: Callable[[Path], RemoteWriter] | None = None) -> None:
        self._folder, self._token, self._remote = folder, token, remote
        self._copy: dict[str, dict[str, Array]] = {}
        self._thread: threading.Thread | None = None
        self._outcome: Written | None = None
        self._copied: int | None = None
        self._opens_next: Callable[[Path], RemoteWriter] | None = None

    def open_next_with(self, opened: Callable[[Path], RemoteWriter]) -> None:
        """Open the files of the next checkpoint with `opened`, which stands for a disk with a fault."""
        self._opens_next = opened

    def take(self, step: int, layers: Mapping[str, LayerState], *, copy: bool) -> None:
        """See Snapshots. Waits for the writing of an earlier copy to end."""
        self._join()
        if not copy:
            self._write(step, layers)
            return
        self._copied = None
        for layer, arrays in layers.items():
            own = self._copy.setdefault(layer, {})
            for name, array in arrays.items():
                if name not in own:
                    own[name] = np.empty(array.shape, dtype=array.dtype)
                np.copyto(own[name], array)
        self._copied = step
        self._outcome = None
        self._thread = threading.Thread(target=self._write, args=(step, self._copy), name="checkpoint", daemon=True)
        self._thread.start()

    def look(self, *, wait: bool) -> Written | None:
        """See Snapshots."""
        if self._thread is not None and self._thread.is_alive() and not wait:
            return None
        self._join()
        outcome, self._outcome = self._outcome, None
        return outcome

    def forget(self, token: str) -> None:
        """Wait until nothing is being written, and forget what became of it. From now on, write with another token."""
        self._join()
        self._outcome, self._token = None, token

    def copy_of(self, step: int) -> Read | None:
        """Return what reads the copy of the state after this step; None if there is no such copy. It raises KeyError
        for a layer that other workers hold."""
        if step != self._copied:
            return None

        def read(layer: str, name: str, out: Array) -> None:
            np.copyto(out, self._copy[layer][name])

        return read

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _write(self, step: int, layers: Mapping[str, LayerState]) -> None:
        began = time.perf_counter()
        files: list[WrittenFile] = []
        folder = self._folder / step_folder(step, self._token)
        opened = None if self._remote is None or folder.is_dir() else self._remote
        opened, self._opens_next = self._opens_next or opened, None
        try:
            for layer, arrays in layers.items():
                files.append(write_layer(folder / file_of(layer), layer, arrays, opened))
        except Exception as error:  # it must not end the worker: the run goes on without this checkpoint
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            self._outcome = Written(step, error=f"{folder}: {reason or type(error).__name__}")
            return
        self._outcome = Written(step, tuple(files), seconds=time.perf_counter() - began)


def step_folder(step: int, token: str | None = None) -> str:
    """Return the name of a checkpoint's folder: `step-00000100`; until it is whole `.step-00000100-TOKEN`.

    The token is that of one life of the run: a worker of an earlier life that still writes does not find its folder any
    more, and can never write into a later one's.
    """
    return f"step-{step:08d}" if token is None else f".step-{step:08d}{token and '-'}{token}"


class RemoteWriter(Protocol):
    """A file that is written a part at a time."""

    def write(self, part: bytes | memoryview, /) -> Any:
        """Append a part. Raises OSError."""

    def finish(self) -> None:
        """Flush the file to the disk, and close it. Raises OSError."""


def write_layer(
    path: Path, layer: str, arrays: LayerState, opened: Callable[[Path], RemoteWriter] | None = None
) -> WrittenFile:
    """Write one file in the format of safetensors, and flush it to the disk. `opened` opens a file that is on another
    host. Raises OSError."""
    header, place = dict[str, Any](), 0
    for name, array in arrays.items():
        kind = TYPES[array.dtype.name]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [place, place + array.nbytes]}
        place += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    crc, size = 0, 0
    with contextlib.ExitStack() as stack:
        file: Any = stack.enter_context(path.open("wb")) if opened is None else opened(path)
        for part in (len(text).to_bytes(8, "little"), text, *parts_of(arrays)):
            file.write(part)
            crc, size = crc32(part, crc), size + len(part)
        if opened is not None:
            file.finish()
        else:
            file.flush()
            os.fsync(file.fileno())
    tensors = {name: (entry["dtype"], tuple(entry["shape"])) for name, entry in header.items()}
    return WrittenFile(layer, path.name, size, crc, tensors)


def parts_of(arrays: LayerState) -> Any:
    """Yield the bytes of the arrays, one after another, as they are in a file."""
    for array in arrays.values():
        if not array.size:
            continue
        little_endian = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
        content = little_endian.data.cast("B")
        for a in range(0, len(content), _PART):
            yield content[a : a + _PART]

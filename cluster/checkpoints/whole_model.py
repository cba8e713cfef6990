"""Puts the parameters of a checkpoint into one .safetensors file, a part at a time: no process holds the whole
network."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.checkpoints.manifest import Manifest

_PART = 2**22


@dataclass(frozen=True, slots=True)
class CheckpointParameters:
    """The parameters `names` of the checkpoint in `place`, which stay on the disk."""

    place: Path
    manifest: Manifest
    names: tuple[str, ...]


def write_whole_model(path: Path, parameters: CheckpointParameters, note: Mapping[str, str]) -> None:
    """Write the parameters in their order, flushed to the disk. `note` is the file's metadata. Raises OSError, KeyError
    for a name that the checkpoint does not have."""
    place, files = parameters.place, {name: file for file in parameters.manifest.files for name in file.tensors}
    header, at = dict[str, Any](), 0
    header["__metadata__"] = dict(note)
    spans = []
    for name in parameters.names:
        kind, shape = files[name].tensors[name]
        start, n_bytes = _span(place / files[name].name, name)
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [at, at + n_bytes]}
        spans.append((place / files[name].name, start, n_bytes))
        at += n_bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for span in spans:
            for part in _read(*span):
                file.write(part)
        file.flush()
        os.fsync(file.fileno())


def _span(path: Path, name: str) -> tuple[int, int]:
    """Return where a tensor begins in a file, and its bytes."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        start, stop = json.loads(file.read(size))[name]["data_offsets"]
        return 8 + size + int(start), int(stop) - int(start)


def _read(path: Path, start: int, n_bytes: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        while n_bytes > 0:
            part = file.read(min(_PART, n_bytes))
            if not part:
                raise OSError(f"{path} is shorter than its manifest says")
            n_bytes -= len(part)
            yield part

"""Puts the parameters of a checkpoint into one .safetensors file, a part at a time: no process holds the whole
network."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from cluster.checkpoints.layer_files import TYPES, parts_of
from cluster.checkpoints.manifest import Manifest
from cluster.checkpoints.tensor_files import StoredTensor, tensors_of
from coordinator import run_files
from stages.arrays import Array


@dataclass(frozen=True, slots=True)
class CheckpointParameters:
    """The parameters `names` of the checkpoint in `place`, which stay on the disk."""

    place: Path
    manifest: Manifest
    names: tuple[str, ...]


def write_whole_model(path: Path, parameters: CheckpointParameters, note: Mapping[str, str]) -> None:
    """Write the parameters in their order, flushed to the disk, whole or not at all. `note` is the file's
    metadata. Raises OSError, InvalidData, KeyError for a name that the checkpoint does not have."""
    files = {name: file.name for file in parameters.manifest.files for name in file.tensors}
    read = {name: tensors_of(parameters.place / name) for name in dict.fromkeys(files[n] for n in parameters.names)}
    _write(path, [read[files[name]][name] for name in parameters.names], note)


class _Held(NamedTuple):
    """An array in memory, as a StoredTensor."""

    name: str
    array: Array

    @property
    def kind(self) -> str:
        return TYPES[self.array.dtype.name]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def n_bytes(self) -> int:
        return self.array.nbytes

    def parts(self) -> Iterator[Any]:
        yield from parts_of({self.name: self.array})


def write_held_model(path: Path, arrays: Mapping[str, Array], note: Mapping[str, str]) -> None:
    """Write arrays in their order: the same bytes as `write_whole_model` writes of a checkpoint with these arrays.
    Raises OSError."""
    _write(path, [_Held(name, array) for name, array in arrays.items()], note)


def _write(path: Path, tensors: Sequence[StoredTensor | _Held], note: Mapping[str, str]) -> None:
    header, at = dict[str, Any](), 0
    header["__metadata__"] = dict(note)
    for one in tensors:
        header[one.name] = {
            "dtype": one.kind,
            "shape": list(one.shape),
            "data_offsets": [at, at + one.n_bytes],
        }
        at += one.n_bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    temporary = path.with_name(run_files.unfinished(path.name))
    try:
        with temporary.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for one in tensors:
                for part in one.parts():
                    file.write(part)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise

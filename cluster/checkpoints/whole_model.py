"""Puts the parameters of a checkpoint into one .safetensors file, a part at a time: no process holds the whole
network."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.checkpoints.manifest import Manifest
from cluster.checkpoints.tensor_files import tensors_of
from coordinator import run_files


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
    tensors = [read[files[name]][name] for name in parameters.names]
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

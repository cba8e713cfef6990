"""Tensors on disk, in their places: of a checkpoint, of a run directory, or of any .safetensors file.

Headers are checked by the library of safetensors. The numbers are read here, a part at a time, because the library
refuses types that NumPy does not have, such as bfloat16.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from cluster.checkpoints.folder import CheckpointFolder, read_manifest
from cluster.checkpoints.manifest import MANIFEST, Manifest
from cluster.data.files import one_line
from coordinator import run_files
from stages.arrays import Array
from stages.errors import InvalidData

PART_BYTES = 2**22
_NUMPY = dict(
    **{f"F{bits}": f"<f{bits // 8}" for bits in (64, 32, 16)},
    **{f"I{bits}": f"<i{bits // 8}" for bits in (64, 32, 16, 8)},
    **{f"U{bits}": f"<u{bits // 8}" for bits in (64, 32, 16, 8)},
    BOOL="?",
    BF16="<u2",
)
"""NumPy's types by safetensors' names. Of BF16 it has only the bits."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a file: `kind` is its type by safetensors' name; its bytes begin at `start`."""

    name: str
    path: Path
    kind: str
    shape: tuple[int, ...]
    start: int
    n_bytes: int

    def parts(self) -> Iterator[bytes]:
        """Yield its bytes in parts of whole numbers. Raises OSError, also if the file is shorter than its header
        says."""
        left = self.n_bytes
        with self.path.open("rb") as file:
            file.seek(self.start)
            while left > 0:
                part = file.read(min(PART_BYTES, left))
                if not part:
                    raise OSError(f"{self.path} is shorter than its header says")
                left -= len(part)
                yield part

    @property
    def has_numbers(self) -> bool:
        """Whether `numbers` knows the type."""
        return self.kind in _NUMPY

    def numbers(self, part: bytes) -> Array:
        """Return the numbers of a part as float64."""
        found = np.frombuffer(part, dtype=_NUMPY[self.kind])
        if self.kind == "BF16":  # the upper half of a float32
            found = (found.astype(np.uint32) << 16).view(np.float32)
        return found.astype(np.float64)


@dataclass(frozen=True, slots=True)
class Stored:
    """The tensors of `place`, in the order of layers: a checkpoint's folder (then with its manifest) or a file."""

    place: Path
    tensors: Mapping[str, StoredTensor]
    manifest: Manifest | None = None

    @property
    def vectors(self) -> tuple[str, ...]:
        """The names of the optimizer's vectors: `4.1.weight.exp_avg` beside `4.1.weight`. None outside of
        checkpoints."""
        if self.manifest is None:
            return ()
        return tuple(name for name in self.tensors if name.rpartition(".")[0] in self.tensors)

    def without_vectors(self) -> Stored:
        """Return the parameters alone."""
        left_out = frozenset(self.vectors)
        return Stored(
            self.place, {name: one for name, one in self.tensors.items() if name not in left_out}, self.manifest
        )


def tensors_of(path: Path) -> dict[str, StoredTensor]:
    """Return the tensors of a .safetensors file, in the order of their bytes. Raises InvalidData."""
    try:
        with safe_open(path, framework="numpy"):  # which checks the header
            pass
        with path.open("rb") as file:
            n_bytes = int.from_bytes(file.read(8), "little")
            header: dict[str, Any] = json.loads(file.read(n_bytes))
    except (SafetensorError, OSError, ValueError) as error:
        raise InvalidData(f"{path}: is no whole safetensors file: {one_line(error)}") from None
    header.pop("__metadata__", None)
    found = []
    for name, entry in header.items():
        start, stop = entry["data_offsets"]
        found.append(StoredTensor(name, path, entry["dtype"], tuple(entry["shape"]), 8 + n_bytes + start, stop - start))
    return {one.name: one for one in sorted(found, key=lambda one: one.start)}


def open_stored(path: Path) -> Stored:
    """Return the tensors of a checkpoint, of a .safetensors file, or of a run directory: its newest checkpoint or, if
    it has none, its model. Raises InvalidData. Reads no numbers and no checksums."""
    path = newest_place(path)
    if path.is_file():
        return Stored(path, tensors_of(path))
    manifest = read_manifest(path)
    files = [tensors_of(path / file.name) for file in manifest.files]
    return Stored(path, {name: one for tensors in files for name, one in tensors.items()}, manifest)


def newest_place(path: Path) -> Path:
    """Return the newest checkpoint of a run directory or, if it has none, its model; a file and a checkpoint stand for
    themselves. Raises InvalidData."""
    if path.is_file() or (path / MANIFEST).is_file():
        return path
    folder = folder_of(path)
    if steps := folder.steps():
        return folder.place(steps[-1])
    if (path / run_files.MODEL).is_file():
        return path / run_files.MODEL
    raise InvalidData(f"{path}: is a run directory without a checkpoint and without a model")


def folder_of(run: Path) -> CheckpointFolder:
    """Return the checkpoints of a run directory, none if it has none. Raises InvalidData if it is not one."""
    if not run.is_dir():
        what = "is a file, not a run directory" if run.exists() else "no such run directory, checkpoint or file"
        raise InvalidData(f"{run}: {what}")
    if not (run / run_files.CHECKPOINTS).is_dir() and not (run / run_files.JOB).is_file():
        raise InvalidData(f"{run}: is neither a run directory (it has no {run_files.JOB}) nor a checkpoint")
    return CheckpointFolder(run / run_files.CHECKPOINTS)

"""The tensors of a checkpoint, of a run directory, or of any .safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cluster.checkpoints.at_url import checkpoints_at
from cluster.checkpoints.folder import CheckpointFolder, read_manifest
from cluster.checkpoints.manifest import MANIFEST, Manifest
from cluster.checkpoints.tensor_files import StoredTensor, tensors_of
from coordinator import run_files
from stages.errors import InvalidData


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
    raise InvalidData(f"{path}: is a run directory without a checkpoint and without a model; wait until it has one")


def folder_of(run: Path) -> CheckpointFolder:
    """Return the checkpoints of a run directory, none if it has none, or those at a URL. Raises InvalidData if it is
    not one."""
    if not isinstance(run, Path):
        return checkpoints_at(str(run))
    if not run.is_dir():
        what = "is a file, not a run directory" if run.exists() else "no such run directory, checkpoint or file"
        raise InvalidData(f"{run}: {what}")
    if not (run / run_files.CHECKPOINTS).is_dir() and not (run / run_files.JOB).is_file():
        raise InvalidData(f"{run}: is neither a run directory (it has no {run_files.JOB}) nor a checkpoint")
    return CheckpointFolder(run / run_files.CHECKPOINTS)

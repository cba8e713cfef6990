"""The checkpoints of a run on disk: `checkpoints/step-00000100/` with a file a layer and checkpoint.json.

A checkpoint is written into a folder whose name begins with a dot, which is renamed when its manifest is durable. So a
folder without the dot is whole, whenever the process that wrote it was killed.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.checkpoints.checksums import crc32
from cluster.checkpoints.layer_files import file_of, step_folder
from cluster.checkpoints.manifest import MANIFEST, Manifest
from cluster.checkpoints.tensor_files import StoredTensor, tensors_of
from cluster.data.files import one_line
from stages.arrays import Array
from stages.errors import InvalidData
from stages.snapshots import WrittenFile
from stages.spec import ModelSpec

_WHOLE = re.compile(r"step-(\d{8,})")
_PART = 2**22


@dataclass(frozen=True, slots=True, kw_only=True)
class StatePlaces:
    """Where the workers of a run write their state (a CheckpointFolder and its token), and the checkpoint that they
    begin with. `files` is the actor through which workers on other hosts do both (see CheckpointFiles)."""

    folder: str | None = None
    resume: str | None = None
    token: str = ""
    files: Any = None


NO_STATE = StatePlaces()
"""Neither."""


class CheckpointFolder:
    """The folder `path` with a run's checkpoints; it may not exist yet. `token`: see `step_folder`."""

    def __init__(self, path: Path, token: str = "") -> None:
        self.path, self._token = path, token

    def steps(self) -> list[int]:
        """Return the steps of all whole checkpoints, in ascending order of their numbers."""
        names = (_WHOLE.fullmatch(entry.name) for entry in self.path.iterdir()) if self.path.is_dir() else ()
        return sorted(int(name[1]) for name in names if name and (self.place(int(name[1])) / MANIFEST).is_file())

    def place(self, step: int) -> Path:
        """Return the folder of a checkpoint."""
        return self.path / step_folder(step)

    def begin(self, step: int) -> None:
        """Make the folder into which workers write a checkpoint. Remove what unfinished ones have left. Raises
        OSError."""
        self.path.mkdir(parents=True, exist_ok=True)
        for entry in self.path.iterdir():
            if entry.name.startswith(".step-"):
                shutil.rmtree(entry, ignore_errors=True)
        (self.path / step_folder(step, self._token)).mkdir()

    def finish(self, manifest: Manifest) -> Path:
        """Make the checkpoint whole: write the manifest, flush it, rename the folder. Raises OSError."""
        unfinished = self.path / step_folder(manifest.step, self._token)
        with (unfinished / MANIFEST).open("wb") as file:
            file.write(manifest.content())
            file.flush()
            os.fsync(file.fileno())
        _flush_folder(unfinished)
        final = self.place(manifest.step)
        if final.exists():  # of an earlier attempt that went the same way
            shutil.rmtree(final)
        unfinished.rename(final)
        _flush_folder(self.path)
        return final

    def abandon(self, step: int) -> None:
        """Remove a checkpoint that could not be written."""
        shutil.rmtree(self.path / step_folder(step, self._token), ignore_errors=True)

    def delete(self, step: int) -> None:
        """Remove a checkpoint: first its manifest, so that the rest is never taken for a whole one."""
        place = self.place(step)
        (place / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(place, ignore_errors=True)


def read_manifest(place: Path) -> Manifest:
    """Return the manifest of the checkpoint in a folder. Raises InvalidData."""
    try:
        return Manifest.read((place / MANIFEST).read_bytes(), str(place / MANIFEST))
    except FileNotFoundError:
        raise InvalidData(f"{place}: is no checkpoint: it has no {MANIFEST}") from None
    except OSError as error:
        raise InvalidData(f"{place / MANIFEST}: cannot be read: {one_line(error)}") from None


def damaged_files(place: Path, manifest: Manifest) -> list[str]:
    """Return a line for each file that is missing or is not the one that was written. Changes nothing."""
    n = max(1, min(len(manifest.files), 2 * len(os.sched_getaffinity(0))))  # while one computes, another reads
    with ThreadPoolExecutor(n, thread_name_prefix="checksum") as pool:  # reading and CRC-32 release the GIL
        return [line for line in pool.map(lambda file: _damage(place / file.name, file), manifest.files) if line]


def _damage(path: Path, file: WrittenFile) -> str:
    """Return what is wrong with a file; an empty text if it is the one that was written."""
    crc, size, buffer = 0, 0, memoryview(bytearray(_PART))
    try:
        with path.open("rb", buffering=0) if isinstance(path, Path) else path.open("rb") as opened:
            while n := opened.readinto(buffer):
                crc, size = crc32(buffer[:n], crc), size + n
    except OSError as error:
        return f"{path}: {one_line(error)}"
    if size != file.n_bytes:
        return f"{path}: has {size:,} bytes, but {file.n_bytes:,} were written"
    if crc != file.crc32:
        return f"{path}: its bytes are not those that were written (CRC-32 {crc:08x}, not {file.crc32:08x})"
    return ""


def newest_whole(
    folder: CheckpointFolder, at_damage: Callable[[int, str], object], *, most: int | None = None
) -> tuple[Path, Manifest] | None:
    """Return the newest checkpoint of at most `most` updates whose files are those that were written; None if there is
    none. `at_damage` is called with the step of each damaged one that was passed over, and a line about it."""
    for step in reversed(folder.steps()):
        if most is not None and step > most:
            continue
        place = folder.place(step)
        try:
            manifest = read_manifest(place)
            damage = damaged_files(place, manifest)
        except InvalidData as error:
            damage = list(error.problems)
        if not damage:
            return place, manifest
        at_damage(step, f"{damage[0]}; trying the checkpoint before it")
    return None


def require_fit(manifest: Manifest, model: ModelSpec, vectors: Sequence[str], place: Path) -> None:
    """Raise InvalidData unless the checkpoint has exactly the model's parameters and their optimizer's vectors, each
    in its shape."""
    wanted: dict[str, tuple[int, ...]] = {}
    for op in model.network.ops:
        for name, spec in op.parameters:
            if spec.tied_to is None:
                own = () if name in model.network.frozen else vectors
                wanted |= dict.fromkeys((name, *(f"{name}.{vector}" for vector in own)), spec.shape)
    found = {name: shape for file in manifest.files for name, (_, shape) in file.tensors.items()}
    differing = [name for name in {**wanted, **found} if wanted.get(name) != found.get(name)]
    if differing:
        first = differing[:5]
        lines = [f"{name}: {_shape(found.get(name))}, the model has {_shape(wanted.get(name))}" for name in first]
        more = f"; and {len(differing) - 5} more" if len(differing) > 5 else ""
        raise InvalidData(f"{place}: is a checkpoint of another model: {'; '.join(lines)}{more}")


def _shape(shape: tuple[int, ...] | None) -> str:
    return "nothing" if shape is None else str(list(shape))


class CheckpointReader:
    """Reads arrays of a checkpoint; the header of each file is read once. `bring` brings the file of a layer from
    another host, for as long as the context that it returns is open; None if the files are here."""

    def __init__(self, place: Path, bring: Callable[[str], AbstractContextManager[Path]] | None = None) -> None:
        self._place, self._bring = place, bring
        self._tensors: dict[str, dict[str, StoredTensor]] = {}
        self._brought = ExitStack()

    def read(self, layer: str, name: str, out: Array) -> None:
        """Write an array into `out`, which has its shape. Raises InvalidData."""
        path = self._place / file_of(layer)
        try:
            if layer not in self._tensors:
                self._brought.close()  # one at a time: layers are read one after another
                here = path if self._bring is None else self._brought.enter_context(self._bring(layer))
                self._tensors = {**(self._tensors if self._bring is None else {}), layer: tensors_of(here)}
            self._tensors[layer][name].read_into(out)
        except (OSError, ValueError) as error:
            raise InvalidData(f"{path}: {name} cannot be read: {one_line(error)}") from None
        except KeyError:
            raise InvalidData(f"{path}: {name} cannot be read: the file does not have it") from None

    def close(self) -> None:
        """Forget the headers, and remove what was brought."""
        self._tensors.clear()
        self._brought.close()


def _flush_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""What a worker without the run's folder may do in it: write files of an unfinished checkpoint, and read layers."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from cluster.actors import checkpoint_files
from cluster.actors.checkpoint_files import CheckpointFiles, RemoteFile, layer_file_here
from cluster.checkpoints.folder import CheckpointFolder, CheckpointReader
from cluster.checkpoints.layer_files import LayerFiles, file_of

TOKEN = "00ab12cd"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a stand-in for the handle of the actor, whose calls are made at once."""
    actor = CheckpointFiles(str(tmp_path / "checkpoints"))

    def call(method: Callable[..., Any], *arguments: Any) -> Any:
        return method(*arguments)

    monkeypatch.setattr(checkpoint_files, "_call", call)
    monkeypatch.setattr(checkpoint_files, "PART_BYTES", 64)
    return SimpleNamespace(write=actor.write, read=actor.read)


def test_files_go_through_in_parts_and_come_back(tmp_path: Path, files: Any) -> None:
    folder = CheckpointFolder(tmp_path / "checkpoints", TOKEN)
    folder.begin(3)
    arrays = {"1": {"1.weight": np.arange(1000, dtype="f4")}, "2.0": {"2.0.bias": np.ones(1, dtype="f8")}}
    elsewhere = tmp_path / "another host" / "checkpoints"
    writer = LayerFiles(elsewhere, TOKEN, lambda path: RemoteFile(files, path))
    writer.take(3, arrays, copy=True)
    outcome = writer.look(wait=True)
    assert outcome is not None
    assert outcome.error == ""
    unfinished = folder.path / f".step-00000003-{TOKEN}"
    for written in outcome.files:
        assert written.n_bytes == (unfinished / written.name).stat().st_size
        found = load_file(unfinished / written.name)
        assert all(np.array_equal(found[name], array) for name, array in arrays[written.layer].items())
    place = unfinished.rename(folder.place(3))
    reader = CheckpointReader(elsewhere / "x", lambda layer: layer_file_here(files, place, layer))
    for layer in ("1", "2.0", "1"):
        for name, array in arrays[layer].items():
            out = np.zeros_like(array)
            reader.read(layer, name, out)
            assert np.array_equal(out, array)
    reader.close()


def test_a_worker_that_sees_the_folder_writes_there_itself(tmp_path: Path, files: Any) -> None:
    def never(path: Path) -> Any:
        raise AssertionError("through the driver")

    folder = CheckpointFolder(tmp_path / "checkpoints", TOKEN)
    folder.begin(3)
    writer = LayerFiles(folder.path, TOKEN, never)
    writer.take(3, {"0": {"0.weight": np.ones(3, dtype="f4")}}, copy=False)
    outcome = writer.look(wait=True)
    assert outcome is not None
    assert outcome.error == ""


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("..", file_of("0")),
        ("step-00000003", file_of("0")),
        (f".step-00000003-{TOKEN}", "checkpoint.json"),
        (f".step-00000003-{TOKEN}", "../../job.yaml"),
        (f".step-00000003-{TOKEN}/..", file_of("0")),
        (f".step-00000003-{TOKEN}", "layer-0.safetensors/../x"),
    ],
)
def test_no_other_file_is_written_or_read(tmp_path: Path, files: Any, folder: str, name: str) -> None:
    with pytest.raises(PermissionError):
        files.write(folder, name, 0, b"x", True)
    if name != file_of("0"):
        with pytest.raises(PermissionError):
            files.read(str(tmp_path), name, 0)
    assert os.listdir(tmp_path) == []

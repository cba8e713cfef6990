"""Checkpoints and run directories that cannot be used: each is told in a line, exactly, and nothing changes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.test_going_on import _files, _refused, _train, run, short
from tests.jobs import EXAMPLES, pipetrain_here

__all__ = ["run", "short"]
HERE = version("pipetrain")


def _manifest(place: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = place / "checkpoint.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def _said(*arguments: str | Path) -> tuple[int, str]:
    """Return exit code and the one line of standard error of a command that needs no cluster."""
    done = pipetrain_here(*arguments)
    (line,) = done.stderr.splitlines()
    return done.returncode, line


def test_a_checkpoint_of_another_model_names_each_layer_by_path_and_shape(run: Path) -> None:
    def other(document: dict[str, Any]) -> None:
        document["job"]["model"]["layers"][2]["linear"]["units"] = 17

    place = run / "checkpoints" / "step-00000014"
    _manifest(place, other)
    before = _files(run)
    assert _refused("resume", place, "--set", "training.epochs=2") == (
        f"{place}: is a checkpoint of another model: "
        "2.weight: [16, 32], the model has [17, 32]; 2.weight.momentum: [16, 32], the model has [17, 32]; "
        "2.bias: [16], the model has [17]; 2.bias.momentum: [16], the model has [17]; "
        "4.weight: [10, 16], the model has [10, 17]; and 1 more"
    )
    assert _files(run) == before


@pytest.mark.parametrize(
    ("versions", "what_reads"),
    [
        ({"pipetrain": "9.1", "numpy": "3"}, "pipetrain 9.1, which wrote it, reads it"),
        (None, "a newer version may read it"),
        ({"pipetrain": 9}, "a newer version may read it"),
    ],
)
def test_a_newer_format_tells_its_version_and_what_reads_it(run: Path, versions: object, what_reads: str) -> None:
    place = run / "checkpoints" / "step-00000014"
    _manifest(place, lambda document: document.update(format="pipetrain.checkpoint/2", versions=versions))
    before = _files(run)
    line = (
        f"{place}/checkpoint.json: has the format 'pipetrain.checkpoint/2', but this pipetrain ({HERE}) reads "
        f"'pipetrain.checkpoint/1'; {what_reads}"
    )
    assert _refused("resume", place) == line
    assert _said("checkpoints", "inspect", place) == (2, f"error: {line}")
    assert _files(run) == before


def test_a_damaged_file_is_named_and_nothing_changes(run: Path) -> None:
    place = run / "checkpoints" / "step-00000014"
    file = place / "layer-2.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    before = _files(run)
    line = _refused("resume", place)
    assert line.startswith(f"{file}: its bytes are not those that were written (CRC-32 ")
    verified = pipetrain_here("checkpoints", "verify", place)
    assert verified.returncode == 1
    assert line in verified.stdout + verified.stderr
    file.write_bytes(content[:-5])
    before = _files(run)
    line = f"{file}: has {len(content) - 5:,} bytes, but {len(content):,} were written"
    assert _refused("resume", place) == line
    file.unlink()
    assert _refused("resume", place) == f"{file}: No such file or directory"
    file.write_bytes(content[:-5])
    assert _files(run) == before
    told = _train("--resume", run, "--set", "training.epochs=2")
    assert f"{line}; trying the checkpoint before it" in told
    assert "going on after step 7 of 28" in told


def test_a_run_that_has_not_ended_is_told_with_what_to_do(run: Path, tmp_path: Path) -> None:
    """As after a kill, and while it trains."""
    for name in ("model.safetensors", "model.json"):
        (run / name).unlink()
    not_finished = "has no model.json, so it is not the run directory of a finished job"
    expected = (
        f"error: {run}: {not_finished}; `pipetrain resume {run}` goes on with it, `pipetrain checkpoints export {run}` "
        "has its weights so far"
    )
    assert _said("evaluate", run) == (2, expected)
    assert _said("predict", run, "--input", EXAMPLES / "new-penguins.csv", "--output", "-") == (2, expected)
    assert pipetrain_here("checkpoints", "export", run, "-o", tmp_path / "x.safetensors").returncode == 0
    shutil.rmtree(run / "checkpoints")
    assert _said("evaluate", run) == (2, f"error: {run}: {not_finished}; wait until it has ended")
    assert _refused("resume", run) == (
        f"{run}: has no whole checkpoint to go on from; begin anew with `pipetrain train {run}/job.yaml`"
    )
    assert _said("checkpoints", "diff", run, run) == (
        2,
        f"error: {run}: is a run directory without a checkpoint and without a model; wait until it has one",
    )


def test_an_empty_folder_is_told_with_what_is_wanted(tmp_path: Path) -> None:
    give = "give a run directory, or the folder of a checkpoint"
    assert _refused("resume", tmp_path) == f"{tmp_path}: is empty; {give}"
    assert _said("checkpoints", "list", tmp_path) == (
        2,
        f"error: {tmp_path}: is neither a run directory (it has no job.yaml) nor a checkpoint",
    )
    assert _said("evaluate", tmp_path) == (
        2,
        f"error: {tmp_path}: has no job.yaml, so it is not the run directory of a finished job",
    )

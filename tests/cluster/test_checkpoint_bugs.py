"""Bugs that checkpoints of other systems have had, each by what went wrong there."""

from __future__ import annotations

import ast
import re
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from cluster.checkpoints import layer_files
from cluster.checkpoints.folder import CheckpointFolder, CheckpointReader, damaged_files, read_manifest
from cluster.checkpoints.layer_files import LayerFiles, file_of
from cluster.checkpoints.manifest import Manifest, in_layer_order
from cluster.run.run_dir import RunDir
from cluster.run.training import Run
from coordinator.checkpoints.position import Position
from coordinator.job.spec import parse_job
from coordinator.train.local import LocalWorkers
from stages.layer_state import layer_states, restore
from stages.orders import TrainStep
from stages.stage import Stage
from tests.cluster.test_resume import LOCAL, go_on, gpt, results, train
from tests.jobs import digits_job


@pytest.fixture
def steps_made(monkeypatch: pytest.MonkeyPatch) -> list[TrainStep]:
    """Return the list to which every training step that is ordered is appended."""
    made: list[TrainStep] = []
    submit = LocalWorkers.submit

    def noted(self: LocalWorkers, orders: Any) -> Any:
        made.extend(order for order in orders if isinstance(order, TrainStep))
        return submit(self, orders)

    monkeypatch.setattr(LocalWorkers, "submit", noted)
    return made


def test_saved_at_one_stage_each_of_two_three_and_four_loads_its_own_layers(tmp_path: Path) -> None:
    """Megatron-LM#7452: saved at p = 1 and loaded at p > 1, stages had layers of others."""
    spec = gpt(tmp_path)
    train(tmp_path / "run", spec.replace(stages=1, schedule="gpipe"))
    saved = load_file(tmp_path / "run" / "model.safetensors")
    place = tmp_path / "run" / "checkpoints" / "step-00000030"
    model = spec.resolved(16, 28).model_spec()
    n = len(model.network.ops)
    for parts in (2, 3, 4):
        bounds = [round(n * k / parts) for k in range(parts + 1)]
        stages = [Stage(model, a, b, spec.optimizer()) for a, b in pairwise(bounds)]
        restore(stages, CheckpointReader(place).read)
        views = [stage.parameters.views(stage.parameters.values) for stage in stages]
        found = {name: view for own in views for name, view in own.items()}
        assert found.keys() == saved.keys()
        assert all(np.array_equal(found[name], saved[name]) for name in saved), f"{parts} stages"
        for stage in stages:  # copies of tied weights are of the checkpoint, too
            for name, copy in stage.uses.values.items():
                assert np.array_equal(copy, saved[model.network.owners[name]])
        assert all(len(stage.optimizer.state) == 2 for stage in stages)
        for stage in stages:
            for layer, arrays in layer_states([stage]).items():
                file = load_file(place / file_of(layer))
                assert all(np.array_equal(array, file[name]) for name, array in arrays.items())


def test_the_rate_after_a_resume_is_that_of_its_step(tmp_path: Path) -> None:
    """transformers#34053: after a resume the learning rate was one step off.

    It must be neither that of the step before nor that of the step after, in the warm-up and behind it."""
    spec = gpt(tmp_path, log_every=1)
    train(tmp_path / "whole", spec)
    rates = {row["step"]: row["learning_rate"] for row in results(tmp_path / "whole")[0] if row["kind"] == "step"}
    assert len(set(rates.values())) > 20, "it changes with each step"
    train(tmp_path / "cut", spec, stop_at=2)
    go_on(tmp_path / "cut")
    for step in reversed(CheckpointFolder(tmp_path / "cut" / "checkpoints").steps()):
        go_on(tmp_path / "cut" / "checkpoints" / f"step-{step:08d}", stages=3)
        assert {
            row["step"]: row["learning_rate"] for row in results(tmp_path / "cut")[0] if row["kind"] == "step"
        } == rates, f"from step {step}"


def test_no_row_is_repeated_or_left_out_when_a_batch_has_several_micro_batches(
    tmp_path: Path, steps_made: list[TrainStep]
) -> None:
    """gpt-neox#308: rows came again after a resume if a batch had several micro-batches."""
    spec = gpt(tmp_path, micro_batches=5)
    train(tmp_path / "whole", spec)
    whole = [(order.step, order.epoch_index, order.first, order.last) for order in steps_made]
    steps_made.clear()
    train(tmp_path / "cut", spec, stop_at=9)
    first = len(steps_made)
    step = go_on(tmp_path / "cut", stages=1)
    made = [(order.step, order.epoch_index, order.first, order.last) for order in steps_made]
    assert made[first:] == whole[step:]
    assert made[:first] == whole[:first]
    assert [number for number, *_ in whole] == list(range(1, 31))


def test_a_checkpoint_that_is_still_being_written_at_the_end_becomes_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last_step, write = threading.Event(), layer_files.write_layer

    def held(*arguments: Any) -> Any:
        if threading.current_thread().name == "checkpoint":
            assert last_step.wait(10)
        return write(*arguments)

    monkeypatch.setattr(layer_files, "write_layer", held)
    spec = parse_job({**digits_job(stages=2).document(), "checkpoint": {"every_steps": 7}})
    run = Run.prepare(spec.replace(training__epochs=1), LOCAL)
    run_dir = RunDir.create(tmp_path / "run", run.spec)
    for row in run.rows(run_dir):
        if row.step == 14:
            last_step.set()
    run_dir.close()
    assert CheckpointFolder(tmp_path / "run" / "checkpoints").steps() == [7, 14]


def test_partial_files_of_two_attempts_are_never_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ray#41700: a checkpoint had files of two attempts.

    A worker of a lost attempt still writes while the next attempt saves the same step."""
    go_on_writing, waits, write = threading.Event(), threading.Event(), layer_files.write_layer

    def held(path: Path, layer: str, *rest: Any) -> Any:
        if layer == "1" and threading.current_thread().name == "checkpoint":
            waits.set()
            assert go_on_writing.wait(10)
        return write(path, layer, *rest)

    monkeypatch.setattr(layer_files, "write_layer", held)
    old, new = (CheckpointFolder(tmp_path / "checkpoints", token) for token in ("aaaa", "bbbb"))
    states = [{layer: {f"{layer}.weight": np.full(3, value, "f4")} for layer in "012"} for value in (1, 2)]
    old.begin(7)
    lost = LayerFiles(old.path, "aaaa")
    lost.take(7, states[0], copy=True)
    assert waits.wait(10)
    new.begin(7)
    writer = LayerFiles(new.path, "bbbb")
    writer.take(7, states[1], copy=False)
    outcome = writer.look(wait=True)
    assert outcome is not None
    go_on_writing.set()  # before the new checkpoint is whole
    late = lost.look(wait=True)
    assert late is not None
    assert late.error.endswith("No such file or directory")
    place = new.finish(
        Manifest(
            position=Position(step=7), document={}, fingerprint=0, train_rows=1, files=in_layer_order(outcome.files)
        )
    )
    assert damaged_files(place, read_manifest(place)) == []
    for layer in "012":
        assert (load_file(place / file_of(layer))[f"{layer}.weight"] == 2).all()
    assert [entry.name for entry in new.path.iterdir()] == ["step-00000007"]


def test_the_page_names_each_bug_with_its_test_and_the_test_names_the_bug() -> None:
    tests = Path(__file__).parents[1]
    page = (tests.parent / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\S+#\d+) \| .+ \| `(\S+)::(\w+)` \|$", page, re.MULTILINE)
    assert len(rows) >= 12
    for bug, file, name in rows:
        tree = ast.parse((tests / file).read_text(encoding="utf-8"))
        (found,) = (one for one in tree.body if isinstance(one, ast.FunctionDef) and one.name == name)
        assert (ast.get_docstring(found) or "").startswith(bug), f"{file}: {name} does not name {bug}"

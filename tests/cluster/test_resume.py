"""A run that was interrupted and went on, at any cut and schedule, is bitwise the run that was never interrupted."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from cluster.checkpoints.folder import CheckpointFolder
from cluster.run.checkpointing import RunCheckpoints
from cluster.run.resuming import find_checkpoint
from cluster.run.run_dir import RunDir
from cluster.run.training import Run, Where
from coordinator.checkpoints.position import Position
from coordinator.job.spec import JobSpec, parse_job
from coordinator.train import trainer
from stages.errors import InvalidData, InvalidJob
from tests.jobs import digits_job, pipetrain_here

TEXT = "the quick brown fox jumps over the lazy dog; " * 40
EXACT = ("kind", "step", "epoch", "samples", "loss", "accuracy", "grad_norm", "learning_rate", "perplexity", "steps")
LOCAL = Where(local=True)


def gpt(folder: Path, **training: Any) -> JobSpec:
    """Return a job of 30 steps in several epochs: tied weights, dropout, AdamW, a rate that changes."""
    (folder / "words.txt").write_text(TEXT)
    block = {"heads": 2, "times": 2, "bias": False, "dropout": 0.1}
    tied = {"units": "classes", "bias": False, "tied_to": 0}
    return parse_job(
        {
            "name": "gpt",
            "seed": 3,
            "model": {
                "layers": [{"embedding": {"units": 8}}, "positions", {"transformer": block}, {"linear": tied}],
                "loss": "cross_entropy",
            },
            "data": {"source": str(folder / "words.txt"), "block": 16, "validation": 0.2},
            "training": {
                "steps": 30,
                "batch_size": 11,
                "micro_batches": 3,
                "evaluate_every": 7,
                "log_every": 3,
                "optimizer": {"adamw": {"learning_rate": 1e-2}},
                "schedule": {"cosine": {"warmup": 5, "min_rate": 1e-4}},
                **training,
            },
            "pipeline": {"stages": 2, "schedule": "zb-h1"},
            "checkpoint": {"every_steps": 4, "keep": 100},
        }
    )


def train(path: Path, spec: JobSpec, stop_at: int | None = None) -> None:
    run = Run.prepare(spec, LOCAL)
    run_dir = RunDir.create(path, run.spec)
    for row in run.rows(run_dir):
        if stop_at is not None and row.step >= stop_at:
            run.stop()
    run_dir.close()


def go_on(place: Path, overrides: tuple[str, ...] = (), **changes: Any) -> int:
    """Go on from the newest checkpoint of a run, or from the given one. Return its step."""
    found = find_checkpoint(place, print)
    run = Run.prepare(found.spec(overrides, **changes), LOCAL, resume=found)
    assert found.run is not None
    run_dir = RunDir.resume(found.run, run.spec, found.manifest.position)
    for _ in run.rows(run_dir):
        pass
    run_dir.close()
    return found.step


def results(path: Path) -> tuple[list[Mapping[str, Any]], dict[str, bytes]]:
    """Return the exact figures of all rows, and the bytes of the weights."""
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    weights = {name: array.tobytes() for name, array in load_file(path / "model.safetensors").items()}
    return [{key: row[key] for key in EXACT if key in row} for row in rows], weights


@pytest.mark.parametrize("clip", [None, 0.5])
def test_a_run_goes_on_at_any_cut_as_if_it_had_never_stopped(
    tmp_path: Path, clip: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nanotron#221: a resume failed only with several stages."""
    monkeypatch.setattr(trainer, "_MOST_STEPS", 2)  # else all steps may be under way when the run is stopped
    spec = gpt(tmp_path, clip_norm=clip)
    train(tmp_path / "whole", spec.replace(stages=1, schedule="gpipe"))
    expected = results(tmp_path / "whole")
    assert len(expected[1]) > 10
    train(tmp_path / "cut", spec, stop_at=9)
    assert results(tmp_path / "cut") != expected
    assert 9 <= go_on(tmp_path / "cut", stages=3, schedule="1f1b") < 30
    assert results(tmp_path / "cut") == expected
    steps = CheckpointFolder(tmp_path / "cut" / "checkpoints").steps()
    assert len(steps) >= 3
    ways = itertools.cycle([(1, "1f1b"), (4, "interleaved-1f1b"), (5, "zb-h2"), (2, "gpipe")])
    for step, (stages, schedule) in zip(reversed(steps), ways, strict=False):
        place = tmp_path / "cut" / "checkpoints" / f"step-{step:08d}"
        assert go_on(place, stages=stages, schedule=schedule) == step
        assert results(tmp_path / "cut") == expected, f"from step {step} in {stages} stages"


def test_a_finished_run_with_more_epochs_is_one_long_run(tmp_path: Path) -> None:
    spec = digits_job(stages=2)
    train(tmp_path / "long", spec.replace(training__epochs=3))
    train(tmp_path / "short", spec)
    assert go_on(tmp_path / "short", ("training.epochs=3",)) == 28
    assert results(tmp_path / "short") == results(tmp_path / "long")


def test_a_run_that_goes_on_from_an_earlier_step_leaves_no_row_of_later_ones(tmp_path: Path) -> None:
    train(tmp_path / "run", parse_job({**digits_job(stages=1).document(), "checkpoint": {"every_steps": 10}}))
    (tmp_path / "run" / "metrics.jsonl").open("ab").write(b'{"kind": "step", "st')  # a crash has cut it off
    RunDir.resume(tmp_path / "run", digits_job(), Position(step=10)).close()
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 11))
    assert CheckpointFolder(tmp_path / "run" / "checkpoints").steps() == [10]
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_other_data_and_other_models_are_refused_and_nothing_changes(tmp_path: Path) -> None:
    train(tmp_path / "run", gpt(tmp_path))
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    found = find_checkpoint(tmp_path / "run", print)
    with pytest.raises(InvalidJob, match="seed: got 4, but the checkpoint has 3, and this may not change"):
        found.spec(["seed=4"])
    (tmp_path / "words.txt").write_text(TEXT.replace("fox", "dot"))
    with pytest.raises(InvalidData, match=r"words\.txt: is not the data that the run began with"):
        Run.prepare(found.spec([]), LOCAL, resume=found)
    with pytest.raises(
        InvalidData, match=r"is a checkpoint of another model: 0\.weight: \[\d+, 8\], the model has \[32"
    ):
        found.require_fit(digits_job(), 0)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_the_saved_model_is_put_together_from_the_checkpoint(tmp_path: Path) -> None:
    spec = gpt(tmp_path)
    train(tmp_path / "run", spec)
    weights = load_file(tmp_path / "run" / "model.safetensors")
    network = spec.resolved(16, 28).model_spec().network
    own = [name for op in network.ops for name, parameter in op.parameters if parameter.tied_to is None]
    assert sorted(weights) == sorted(own)
    files = [*(tmp_path / "run" / "checkpoints" / "step-00000030").glob("layer-*.safetensors")]
    saved = {name: array for path in files for name, array in load_file(path).items()}
    assert set(saved) == {full for name in own for full in (name, f"{name}.exp_avg", f"{name}.exp_avg_sq")}
    assert all(np.array_equal(saved[name], weights[name]) for name in own)


def test_a_model_without_its_last_checkpoint_is_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk was full for the last checkpoint: the file had its tensors in another order."""
    train(tmp_path / "run", digits_job(stages=2))
    monkeypatch.setattr(RunCheckpoints, "parameters", lambda self, step: None)
    train(tmp_path / "gathered", digits_job(stages=2))
    one, other = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("run", "gathered")]
    assert one == other


def test_the_command_goes_on_and_says_from_where(tmp_path: Path) -> None:
    job, run = tmp_path / "job.yaml", tmp_path / "run"
    job.write_text(digits_job().to_yaml())
    first = pipetrain_here("train", job, "--local", "--run-dir", run, "--set", "training.epochs=1")
    assert first.returncode == 0, first.stderr
    done = pipetrain_here("resume", run, "--local")
    assert (done.returncode, done.stderr) == (
        2,
        f"error: {run}/checkpoints/step-00000014: has all 14 steps of the job; give more with --set "
        "training.epochs=N\n",
    )
    more = pipetrain_here("resume", run, "--local", "--set", "training.epochs=2", "--stages", "1")
    assert more.returncode == 0, more.stderr
    assert "going on after step 14 of 28" in more.stderr
    assert "finished at step 28 of 28" in more.stdout

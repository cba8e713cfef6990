"""`resume` and `train --resume`: where the run goes on, and what is refused with what to do."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.run.earlier_run import lock_folder
from cluster.run.run_dir import RunDir
from coordinator.checkpoints.position import Position
from tests.cluster.test_resume import results
from tests.jobs import digits_job, pipetrain_here


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run directory of one epoch: 14 steps, and a checkpoint of step 7."""
    folder = tmp_path_factory.mktemp("short")
    document = digits_job(stages=2).document()
    document["checkpoint"] = {"every_steps": 7}
    (folder / "job.yaml").write_text(yaml.safe_dump(document))
    _train(folder / "job.yaml", "--run-dir", folder / "run", "--set", "training.epochs=1")
    return folder / "run"


@pytest.fixture
def run(short: Path, tmp_path: Path) -> Path:
    return shutil.copytree(short, tmp_path / "run")


def _train(*arguments: Any) -> str:
    done = pipetrain_here("train", "--local", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stderr


def _refused(*arguments: Any) -> str:
    done = pipetrain_here(*arguments, "--local")
    assert done.returncode == 2, done.stdout
    (line,) = done.stderr.splitlines()
    return line.removeprefix("error: ")


def _files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_train_resume_needs_no_job_file_and_is_the_same_as_resume(run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(run, tmp_path / "other")
    said = _train("--resume", run, "--set", "training.epochs=2", "--stages", "3", "--schedule", "gpipe")
    assert "going on after step 14 of 28" in said
    assert pipetrain_here("resume", other, "--local", "--set", "training.epochs=2").returncode == 0
    assert results(run) == results(other)
    assert yaml.safe_load((run / "job.yaml").read_text())["pipeline"]["stages"] == 3


def test_another_run_directory_leaves_the_old_one_as_it_is(run: Path, tmp_path: Path) -> None:
    before = _files(run)
    place = run / "checkpoints" / "step-00000007"
    said = _train("--resume", place, "--run-dir", tmp_path / "branch")
    assert "going on after step 7 of 14" in said
    assert _files(run) == before
    rows, weights = results(tmp_path / "branch")
    assert [row["step"] for row in rows if row["kind"] == "step"] == list(range(8, 15))
    assert weights == results(run)[1]
    again = _refused("resume", place, "--run-dir", tmp_path / "branch")
    assert again.startswith(f"{tmp_path}/branch: holds a run already")


def test_a_checkpoint_outside_of_a_run_directory_goes_on_in_a_new_one(run: Path, tmp_path: Path) -> None:
    place = shutil.move(run / "checkpoints" / "step-00000007", tmp_path / "kept")
    _train("--resume", place, "--run-dir", tmp_path / "new")
    assert results(tmp_path / "new")[1] == results(run)[1]


def test_the_run_directory_of_the_checkpoint_may_be_named(run: Path) -> None:
    expected = results(run)
    _train("--resume", run / "checkpoints" / "step-00000007", "--run-dir", run)
    assert results(run) == expected


def test_a_run_that_was_killed_goes_on(run: Path) -> None:
    """It has neither the event of an end nor a model."""
    expected = results(run)
    shutil.rmtree(run / "checkpoints" / "step-00000014")
    (run / "model.safetensors").unlink()
    events = (run / "events.jsonl").read_text().splitlines()
    (run / "events.jsonl").write_text("\n".join(events[:2]) + "\n")
    assert "going on after step 7 of 14" in _train("--resume", run)
    assert results(run) == expected


def test_what_is_no_run_is_said_with_what_to_do(run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    give = "give a run directory, or the folder of a checkpoint"
    assert _refused("resume", tmp_path / "nothing") == f"{tmp_path}/nothing: no such run directory or checkpoint"
    assert _refused("resume", tmp_path / "empty") == f"{tmp_path}/empty: is empty; {give}"
    assert _refused("resume", run / "model.safetensors") == f"{run}/model.safetensors: is a file; {give}"
    assert _refused("resume", tmp_path / "other") == (
        f"{tmp_path}/other: is neither a run directory nor a checkpoint: it has no job.yaml and no checkpoint.json; "
        f"{give}"
    )
    wreck = run / "checkpoints" / ".step-00000021"
    wreck.mkdir()
    assert "was not written to its end; give the run directory" in _refused("resume", wreck)
    shutil.rmtree(run / "checkpoints")
    assert _refused("train", "--resume", run) == (
        f"{run}: has no whole checkpoint to go on from; begin anew with `pipetrain train {run}/job.yaml`; or begin "
        f"with its weights: model.weights: {run}/model.safetensors"
    )


@pytest.mark.parametrize(("attempt", "again", "rows"), [(1, 0, 0), (2, 7, 7)])
def test_an_attempt_of_a_job_goes_on_with_or_without_rows_of_one_before(
    run: Path, tmp_path: Path, attempt: int, again: int, rows: int
) -> None:
    """The first attempt of a job that goes on with another one has only that one's checkpoints."""
    folder = tmp_path / "job"
    shutil.copytree(run / "checkpoints", folder / "checkpoints")
    if attempt > 1:
        shutil.copy(run / "metrics.jsonl", folder / "metrics.attempt-1.jsonl")
    directory = RunDir.reopen(folder, digits_job(stages=2), attempt)
    assert directory.go_on(Position(step=7)) == again
    directory.close()
    steps = [row["step"] for row in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())]
    assert steps == list(range(1, rows + 1))
    assert [place.name for place in (folder / "checkpoints").iterdir()] == ["step-00000007"]


def test_a_run_in_use_is_left_alone(run: Path) -> None:
    before = _files(run)
    more = ("--set", "training.epochs=2")
    wait = "stop it, or wait until it has ended; --run-dir NEW goes on in another folder"
    lock = lock_folder(run)
    try:
        assert _refused("resume", run, *more) == f"{run}: another command is training into it; {wait}"
    finally:
        os.close(lock)
    events = run / "events.jsonl"
    events.write_text(json.dumps({"event": "started", "attempt": 2}) + "\n")
    assert _refused("resume", run, *more) == f"{run}: a job of the service is training into it; {wait}"
    assert _files(run) == {**before, events: events.read_bytes()}
    events.write_text(json.dumps({"event": "failed", "attempt": 2}) + "\n")
    _train("--resume", run, *more)


def test_options_that_contradict_each_other_are_refused(run: Path, tmp_path: Path) -> None:
    job = run / "job.yaml"
    assert _refused("train", job, "--resume", run).startswith(f"{job}: --resume goes on with the job of the run")
    assert _refused("train", "--resume", run, "--overwrite").startswith("--overwrite removes the run with which")
    assert "missing argument 'JOB.yaml'" in _refused("train")


def test_a_change_that_is_not_possible_is_a_line_each_and_nothing_changes(run: Path) -> None:
    before = _files(run)
    done = pipetrain_here(
        *("train", "--resume", run, "--local", "--set", "training.batch_size=70", "--set", "model.layers[0]=relu"),
        *("--set", "data.source=diabetes"),
    )
    assert done.returncode == 2
    told = [line.removeprefix("error: ").partition(":")[0] for line in done.stderr.splitlines()]
    assert told == ["model.layers[0]", "data.source", "training.batch_size"], done.stderr
    assert _files(run) == before


def test_a_checkpoint_of_another_model_names_the_layers_that_differ(run: Path) -> None:
    """As after an edit of the manifest's job by hand, or of a version that builds layers in another way."""
    for place in (run / "checkpoints").iterdir():
        path = place / "checkpoint.json"
        document = json.loads(path.read_text())
        document["job"]["model"]["layers"][2]["linear"]["units"] = 17
        path.write_text(json.dumps(document))
    before = _files(run)
    line = _refused("resume", run, "--set", "training.epochs=2")
    assert "is a checkpoint of another model: 2.weight: [16, 32], the model has [17, 32]; " in line
    assert "4.weight: [10, 16], the model has [10, 17]" in line
    assert _files(run) == before

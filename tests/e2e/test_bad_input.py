from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml

from stages.arrays import Array
from tests.jobs import EXAMPLES, pipetrain, pipetrain_here


def _job(tmp_path: Path, **changes: object) -> Path:
    document = yaml.safe_load((EXAMPLES / "digits.yaml").read_text())
    for path, value in changes.items():
        *sections, last = path.split("__")
        place = document
        for section in sections:
            place = place[section]
        place[last] = value
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


def _mistake(*arguments: str | Path) -> list[str]:
    """Run a command that must be refused, with exit 2 and no traceback, and return the lines of its error."""
    return _lines_of_a_mistake(pipetrain_here(*arguments))


def _lines_of_a_mistake(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()


def test_three_mistakes_get_three_lines_with_path_value_and_the_nearest_right_one(tmp_path: Path) -> None:
    job = _job(tmp_path, pipeline__schedule="1f1bb", training__epohcs=3, training__batch_size=-1)
    lines = _lines_of_a_mistake(
        pipetrain("train", job, "--run-dir", tmp_path / "run")
    )  # in a process of its own, like a user's
    assert len(lines) == 3
    for path, value, hint in (
        ("training.epohcs", "", "epochs"),
        ("training.batch_size", "-1", "at least 1"),
        ("pipeline.schedule", "1f1bb", "1f1b"),
    ):
        (line,) = [line for line in lines if path in line]
        assert value in line
        assert hint in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"data__source": "missing.npz"}, "no such file"),
        ({"model__input": [63]}, "63"),
        ({"pipeline__stages": 6}, "pipeline.stages: got 6, must be at most 5"),
        ({"pipeline__schedule": "missing.csv"}, "missing.csv"),
        ({"data__source": "digitz"}, "did you mean digits?"),
    ],
)
def test_one_mistake_is_one_line(tmp_path: Path, change: dict[str, object], told: str) -> None:
    (line,) = _mistake("train", _job(tmp_path, **change), "--run-dir", tmp_path / "run")
    assert line.startswith("error: ")
    assert told in line


@pytest.mark.parametrize(
    ("x", "y", "told"),
    [
        (np.ones((20, 64)), np.full(20, 10), "10"),
        (np.full((20, 64), np.nan), np.zeros(20, int), "x[0, 0] is nan"),
        (np.ones((20, 3)), np.zeros(20, int), "model.input"),
    ],
    ids=["label out of range", "NaN", "features"],
)
def test_data_that_does_not_fit_is_one_line(tmp_path: Path, x: Array, y: Array, told: str) -> None:
    np.savez(tmp_path / "data.npz", x=x, y=y)
    (line,) = _mistake("train", _job(tmp_path, data__source="data.npz"), "--run-dir", tmp_path / "run")
    assert told in line


@pytest.mark.parametrize(
    ("csv", "told"),
    [
        ("0F0,1F0,0B0\n", "1B0 is missing"),
        ("0B0,0F0\n", "0B0 stands before 0F0"),
        ("0F0,0B0,0F1,0B1\n1F1,1B1,1F0,1B0\n", "wait for each other"),
    ],
    ids=["gap", "order", "cycle"],
)
def test_a_broken_schedule_is_drawn_and_named_in_one_line(tmp_path: Path, csv: str, told: str) -> None:
    (tmp_path / "s.csv").write_text(csv)
    *grid, line = _mistake("show", tmp_path / "s.csv")
    assert told in line
    assert grid[0].startswith("worker 0")


def test_a_loss_that_explodes_names_layer_step_and_micro_batch(tmp_path: Path) -> None:
    job = _job(tmp_path, training__optimizer={"sgd": {"learning_rate": 1e30}})
    done = pipetrain_here("train", job, "--run-dir", tmp_path / "run", "--local")
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert line.startswith("failed: the ")
    assert "layer " in line
    assert "in step " in line
    assert "micro-batch " in line


def test_a_run_directory_is_never_overwritten(tmp_path: Path) -> None:
    job = _job(tmp_path, training__epochs=1)
    assert pipetrain_here("train", job, "--run-dir", tmp_path / "run", "--local").returncode == 0
    (line,) = _mistake("train", job, "--run-dir", tmp_path / "run", "--local")
    assert "holds a run already" in line


def test_what_is_not_a_run_says_so(tmp_path: Path) -> None:
    (line,) = _mistake("evaluate", tmp_path)
    assert "not the run directory" in line


def test_an_unknown_command_suggests_the_nearest() -> None:
    done = pipetrain("trian", "x.yaml")
    assert done.returncode == 2
    assert "did you mean train?" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_cluster_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    command = ("train", EXAMPLES / "digits.yaml", "--address", "127.0.0.1:1", "--run-dir", tmp_path / "run")
    (line,) = _lines_of_a_mistake(pipetrain(*command))  # a process of its own: this one may have a Ray
    assert "no Ray cluster answers at 127.0.0.1:1" in line


def test_an_evaluation_that_is_not_finite_fails_the_job_too(tmp_path: Path) -> None:
    """The only step ruins the weights, so that only the evaluation after it can notice."""
    job = _job(
        tmp_path,
        training__epochs=1,
        training__batch_size=1500,
        training__micro_batches=1,
        training__optimizer={"sgd": {"learning_rate": 1e30}},
    )
    done = pipetrain_here("train", job, "--run-dir", tmp_path / "run", "--local", "--stages", "1")
    assert done.returncode == 1
    assert "in the evaluation after step 1" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_run_directory_that_cannot_be_written_is_one_line() -> None:
    (line,) = _mistake("train", EXAMPLES / "digits.yaml", "--run-dir", "/proc/self", "--local")
    assert "cannot be written as a run directory" in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["predict"], "error: missing argument 'RUN'; `pipetrain predict --help` describes its arguments"),
        (["train", "--epoch", "3", "job.yaml"], "error: no such option '--epoch'; `pipetrain train --help`"),
        (["trainn"], "error: no such command 'trainn'; did you mean train?"),
        (["list", "-o", "xml"], "error: invalid value for '-o' / '--output': 'xml' is not one of"),
        (["predict", "run", "--input"], "error: option '--input' requires an argument"),
        (["train", "a\x1b[31mb.yaml", "c"], "error: got unexpected extra argument (c)"),
    ],
)
def test_mistakes_in_arguments_have_the_form_of_all_others(arguments: list[str], said: str) -> None:
    (line,) = _mistake(*arguments)
    assert line.startswith(said)
    assert "\x1b" not in line

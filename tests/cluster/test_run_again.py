"""A folder that holds an earlier run: when the same command may use it again, and what `--overwrite` removes."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from cluster.run import training
from cluster.run.run_dir import RunDir
from coordinator.run_files import JOB, METRICS, MODEL, RESERVE, run_file
from stages.errors import HostFailed, UserMistake
from tests.cluster.test_run_ends import _train as train
from tests.cluster.test_run_ends import events
from tests.jobs import digits_job


def _killed(path: Path) -> None:
    """Make the files of a run whose process was killed, also by SIGKILL, before its first step."""
    run_dir = RunDir.create(path, digits_job())
    run_dir.event("starting")
    run_dir.close()
    (path / RESERVE).write_bytes(b"reserve")


def test_a_run_that_was_killed_before_its_first_step_does_not_block_the_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _killed(tmp_path / "run")
    (tmp_path / "run" / "notes.txt").write_text("mine")
    assert train(tmp_path) == 0
    assert "held a run that ended before its first step; using the folder again" in capsys.readouterr().err
    assert [event["event"] for event in events(tmp_path / "run")] == ["data", "starting", "started", "finished"]
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"
    assert not (tmp_path / "run" / RESERVE).exists()


def test_a_run_that_failed_before_its_first_step_keeps_its_cause_and_does_not_block_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(*_: Any, **__: Any) -> Any:
        raise HostFailed("worker 1 did not start")

    with monkeypatch.context() as patch:
        patch.setattr(training, "connect", connect)
        with pytest.raises(HostFailed):
            train(tmp_path)
    assert events(tmp_path / "run")[-1]["cause"] == "worker 1 did not start"
    assert train(tmp_path) == 0


@pytest.mark.parametrize("left", ["metrics.jsonl", "model.safetensors"])
def test_a_run_that_left_something_goes_only_with_overwrite_which_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], left: str
) -> None:
    _killed(tmp_path / "run")
    (tmp_path / "run" / left).write_text('{"kind": "step"}\n')
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(UserMistake, match="holds a run already; choose another --run-dir, or let --overwrite remove"):
        train(tmp_path)
    assert (tmp_path / "run" / left).read_text() == '{"kind": "step"}\n'
    capsys.readouterr()
    assert train(tmp_path, "--overwrite") == 0
    told = capsys.readouterr().err
    assert f"{tmp_path}/run: removing the run that is there: job.yaml, metrics.jsonl, " in told
    assert (left in told, "notes.txt" in told) == (True, False)
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"
    steps = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert "loss" in steps[0]


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        (
            "thesis.tex",
            ["--overwrite"],
            "is not a run directory (it has thesis.tex), and --overwrite removes nothing else",
        ),
        ("job.yaml", ["--overwrite"], "has a job.yaml but is not a run directory"),
        ("job.yaml", [], "has a job.yaml but is not a run directory"),
    ],
)
def test_what_is_no_run_directory_is_never_replaced(tmp_path: Path, name: str, options: list[str], told: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text("mine")
    with pytest.raises(UserMistake) as caught:
        train(tmp_path, *options)
    assert told in str(caught.value)
    assert [(file.name, file.read_text()) for file in (tmp_path / "run").iterdir()] == [(name, "mine")]


def test_a_run_that_goes_on_is_not_taken_for_one_that_ended(tmp_path: Path) -> None:
    with contextlib.closing(RunDir.create(tmp_path / "run", digits_job())):
        for options in ([], ["--overwrite"]):
            with pytest.raises(UserMistake, match="another command is training into it"):
                train(tmp_path, *options)
    assert train(tmp_path) == 0


def test_all_that_a_run_leaves_is_in_the_table_of_its_files(tmp_path: Path) -> None:
    assert train(tmp_path) == 0
    left = sorted(
        path.relative_to(tmp_path / "run").as_posix() for path in (tmp_path / "run").rglob("*") if path.is_file()
    )
    assert {JOB, METRICS, MODEL} <= set(left)
    assert [path for path in left if run_file(path) is None] == []

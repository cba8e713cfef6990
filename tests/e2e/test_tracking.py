"""`--track`: a tracker has all rows after a real run, and its failures do not affect the run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.jobs import EXAMPLES, pipetrain, pipetrain_here

_STEPS = 46
JOB = ("train", EXAMPLES / "digits.yaml", "--local", "--set", "training.epochs=2", "--run-dir", "run")
"""Two epochs of the digits, in threads of one process, in the folder `run`."""


def test_tensorboard_has_every_step_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="pip install 'pipetrain[tensorboard]'"
    )
    monkeypatch.chdir(tmp_path)
    done = pipetrain_here(*JOB, "--track", "tensorboard:logs")
    assert (done.returncode, "tracker" in done.stderr) == (0, False), done.stderr
    events = reader.EventAccumulator(str(tmp_path / "logs" / "run")).Reload()
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if row["kind"] == "step"]
    found = events.Scalars("train/loss")
    assert [event.step for event in found] == list(range(1, _STEPS + 1))
    assert [event.value for event in found] == pytest.approx(losses, rel=1e-6)
    assert [event.step for event in events.Scalars("validation/loss")] == [_STEPS // 2, _STEPS]
    assert "tensorboard:" in (tmp_path / "run" / "job.yaml").read_text()


def test_a_tracker_that_fails_is_told_of_and_the_run_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard", reason="pip install 'pipetrain[tensorboard]'")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "logs").write_text("a file stands in the way")
    monkeypatch.chdir(tmp_path / "a")
    with_one = pipetrain_here(*JOB, "--track", "tensorboard:logs")
    assert with_one.returncode == 0, with_one.stderr
    assert with_one.stderr.count("tracker tensorboard: dropped: ") == 1
    events = [json.loads(line) for line in (tmp_path / "a" / "run" / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events].count("tracker") == 1
    monkeypatch.chdir(tmp_path / "b")
    without = pipetrain_here(*JOB)
    assert without.returncode == 0, without.stderr
    a, b = ((tmp_path / name / "run" / "model.safetensors").read_bytes() for name in "ab")
    assert a == b


def test_a_missing_extra_is_one_line_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n\nsys.modules['mlflow'] = None  # as if it were not installed\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = pipetrain(*JOB, "--track", "mlflow:http://127.0.0.1:9", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.endswith("; pip install 'pipetrain[mlflow]'\n")
    assert not (tmp_path / "run").exists()

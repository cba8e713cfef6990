"""A run that is stopped saves its state within its grace, or says that it did not."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.checkpoints.layer_files import LayerFiles
from cluster.cli.end_signals import SIGNALS
from cluster.cli.progress import RunDisplay
from cluster.run.checkpointing import RunCheckpoints
from cluster.run.run_dir import RunDir
from cluster.run.training import Run, Where
from coordinator.job.spec import JobSpec, parse_job
from coordinator.train.ending import Ending
from coordinator.train.rows import Row
from stages import faults
from stages.errors import GraceOver
from stages.orders import Fault
from tests.cluster.test_run_ends import Recorder, events, tracker
from tests.jobs import digits_job, pipetrain_here

__all__ = ["tracker"]


def _job(grace: float) -> JobSpec:
    """With clipping, a run that is stopped ends after the step under way."""
    document = digits_job(stages=2).document()
    document["training"]["clip_norm"] = 5.0
    return parse_job({**document, "checkpoint": {"every_steps": 5, "grace": grace}})


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_later_request_can_only_shorten_the_time() -> None:
    clock = Clock()
    ending = Ending(clock)
    ending.require_time()
    assert (ending.asked, ending.is_over) == (False, False)
    ending.ask(30)
    clock.now += 10
    ending.ask(60)
    clock.now += 19.9
    ending.require_time()
    ending.ask(0.05)
    clock.now += 0.05
    assert ending.is_over
    with pytest.raises(GraceOver):
        ending.require_time()


@pytest.fixture
def blocked(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let faults that block a thread begin anew in each test, and end with it."""
    faults.UNBLOCK.clear()
    yield
    faults.UNBLOCK.set()


def test_a_save_that_does_not_end_costs_the_grace_and_not_more(tmp_path: Path, tracker: Recorder, blocked: Any) -> None:
    """The checkpoint of the end blocks. The one before it stays the newest, and trackers hear of the end."""
    spec = _job(grace=0.3)
    run = Run.prepare(spec, Where(local=True), faults={1: Fault(step=7, action="checkpoint", what="block")})
    run_dir = RunDir.create(tmp_path / "run", spec)
    for row in run.rows(run_dir):
        if row.step == 7:
            run.stop()
    run_dir.close()
    result = run.result
    assert result is not None
    assert (result.stopped, result.saved, result.steps, result.checkpoint) == (True, False, 7, 5)
    last = events(tmp_path / "run")[-1]
    assert last == {**last, "event": "stopped", "step": 7, "saved": False, "checkpoint": 5}
    assert tracker.outcomes == ["stopped"]
    assert not (tmp_path / "run" / "model.safetensors").exists()
    assert pipetrain_here("resume", tmp_path / "run", "--local").returncode == 0, "it goes on from the one before"


def _train(folder: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, *again: signal.Signals) -> Any:
    """Run the command, with a signal after step 7, and others as soon as the save of the end is ordered."""
    (folder / "job.yaml").write_text(yaml.safe_dump(_job(grace=0.3).document()))
    row, at_end = RunDisplay.row, RunCheckpoints.at_end

    def send(display: RunDisplay, of: Row) -> None:
        row(display, of)
        if of.step == 7:
            os.kill(os.getpid(), number)

    def send_again(checkpoints: RunCheckpoints, step: int, **owes: bool) -> bool:
        for one in again:
            os.kill(os.getpid(), one)
        return at_end(checkpoints, step, **owes)

    with monkeypatch.context() as patch:
        patch.setattr(RunDisplay, "row", send)
        patch.setattr(RunCheckpoints, "at_end", send_again)
        return pipetrain_here("train", folder / "job.yaml", "--local", "--run-dir", folder / "run")


@pytest.mark.parametrize("number", SIGNALS)
def test_the_exit_code_says_which_signal_ended_a_run_that_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tracker: Recorder, number: signal.Signals
) -> None:
    before = [signal.getsignal(one) for one in SIGNALS]
    done = _train(tmp_path, monkeypatch, number, signal.SIGTERM, signal.SIGUSR1)
    assert done.returncode == 128 + number, "what a launcher sends twice does not end the save"
    assert "stopping after the steps in progress, and saves within 0.3 s; press Ctrl-C" in done.stderr
    assert (tmp_path / "run" / "checkpoints" / "step-00000007").is_dir()
    assert tracker.outcomes == ["stopped"], "no run is left open at a tracker"
    assert [signal.getsignal(one) for one in SIGNALS] == before


def test_a_second_ctrl_c_ends_at_once_and_says_what_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = _train(tmp_path, monkeypatch, signal.SIGTERM, signal.SIGINT)
    assert done.returncode == 3
    run = tmp_path / "run"
    assert done.stderr.splitlines()[-2:] == [
        "stopped",
        f"not saved: the last 2 steps; `pipetrain resume {run}` goes on from the checkpoint of step 5",
    ]
    assert events(run)[-1]["event"] == "interrupted"
    assert pipetrain_here("resume", run, "--local").returncode == 0


def test_a_command_whose_grace_is_over_says_what_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocked: Any
) -> None:
    def look(files: LayerFiles, *, wait: bool) -> None:
        if wait:
            faults.UNBLOCK.wait(60)

    monkeypatch.setattr(LayerFiles, "look", look)
    done = _train(tmp_path, monkeypatch, signal.SIGTERM)
    run = tmp_path / "run"
    assert done.returncode == 3
    assert done.stdout.splitlines()[0].startswith("stopped at step 7 of 28")
    assert done.stderr.splitlines()[-1] == f"not saved: {run} has no checkpoint of the 7 steps made"


def test_a_resumed_run_that_is_stopped_before_its_first_step_has_lost_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _train(tmp_path, monkeypatch, signal.SIGTERM).returncode == 143
    rows = Run.rows

    def stopped(run: Run, *arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return rows(run, *arguments)

    monkeypatch.setattr(Run, "rows", stopped)
    done = pipetrain_here("resume", tmp_path / "run", "--local")
    assert done.returncode == 130
    assert "not saved" not in done.stderr
    assert (tmp_path / "run" / "checkpoints" / "step-00000007").is_dir()

"""The end of a run: its user always gets the real cause."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cluster.run import training
from cluster.run.event_log import EventLog
from cluster.run.job_runner import Assignment, JobRunner
from cluster.run.run_dir import RunDir
from cluster.run.training import Run, Where
from cluster.service import run_events
from cluster.trackers import Point, TrackedRun, Trackers
from cluster.trackers.tracker import Outcome
from coordinator.job.spec import JobSpec
from coordinator.queue.job_states import Failed, Running, Starting, State, decide
from coordinator.run_files import RESERVE
from stages.errors import HostFailed, NotEnoughResources, UnexpectedError, UserMistake
from tests.jobs import digits_job
from tests.small_disk import fill, small_disk


def prepared(spec: JobSpec | None = None) -> Run:
    """Prepare a run with threads of this process as workers."""
    return Run.prepare(spec or digits_job(), Where(local=True))


def events(folder: Path) -> list[dict[str, Any]]:
    """Return the events that the run wrote."""
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def full(*_: Any, **__: Any) -> None:
    """Raise the error of a full disk."""
    raise OSError(28, "No space left on device", "model.safetensors")


@dataclass
class Recorder:
    """A tracker that keeps what it gets."""

    outcomes: list[Outcome] = field(default_factory=list)

    def start(self, run: TrackedRun) -> None:
        pass

    def write(self, points: Any) -> None:
        assert all(isinstance(point, Point) for point in points)

    def close(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


@pytest.fixture
def tracker(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Make a recorder the only tracker of every run."""
    found = Recorder()

    def make(spec: JobSpec, folder: Path, **options: Any) -> Trackers:
        return Trackers(spec, folder, trackers={"recorder": found}, **options)

    monkeypatch.setattr(training, "Trackers", make)
    return found


# the cause -----------------------------------------------------------------------------------------------------------


def test_a_full_disk_is_the_cause_and_the_trackers_hear_of_it(tmp_path: Path, tracker: Recorder) -> None:
    run_dir = RunDir.create(tmp_path / "run", digits_job())
    run_dir.save_model = full  # type: ignore[method-assign]
    with pytest.raises(HostFailed, match=r"^no space left on device: model.safetensors$"):
        list(prepared().rows(run_dir))
    run_dir.close()
    told = events(tmp_path / "run")
    assert [event["event"] for event in told] == ["data", "starting", "started", "failed"]
    assert (told[-1]["kind"], told[-1]["mistake"]) == ("HostFailed", False)
    assert tracker.outcomes == ["failed"]


def test_a_bug_is_told_with_its_traceback(tmp_path: Path, tracker: Recorder) -> None:
    run_dir = RunDir.create(tmp_path / "run", digits_job())

    def broken(row: Mapping[str, Any]) -> None:
        raise ZeroDivisionError("a bug")

    run_dir.metric = broken  # type: ignore[method-assign]
    with pytest.raises(UnexpectedError, match=r"^ZeroDivisionError: a bug; this is a bug") as told:
        list(prepared().rows(run_dir))
    assert "in broken" in told.value.traceback
    run_dir.close()
    last = events(tmp_path / "run")[-1]
    assert (last["event"], last["kind"]) == ("failed", "UnexpectedError")
    assert "in broken" in last["traceback"]
    assert tracker.outcomes == ["failed"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_who_is_interrupted_has_no_other_cause(tmp_path: Path, tracker: Recorder, error: type[BaseException]) -> None:
    run_dir = RunDir.create(tmp_path / "run", digits_job())

    def interrupted(row: Mapping[str, Any]) -> None:
        raise error

    run_dir.metric = interrupted  # type: ignore[method-assign]
    with pytest.raises(error):
        list(prepared().rows(run_dir))
    run_dir.close()
    assert events(tmp_path / "run")[-1]["event"] == "interrupted"
    assert tracker.outcomes == ["stopped"]


def test_trackers_hear_of_the_end_when_the_model_is_there(tmp_path: Path, tracker: Recorder) -> None:
    run_dir = RunDir.create(tmp_path / "run", digits_job())
    close, there = tracker.close, []

    def look(outcome: Outcome) -> None:
        there.append((tmp_path / "run" / "model.json").exists())
        close(outcome)

    tracker.close = look  # type: ignore[method-assign]
    list(prepared().rows(run_dir))
    assert (there, tracker.outcomes) == ([True], ["finished"])


def test_a_device_that_is_really_full_is_told_in_the_events_although_they_are_on_it(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        run_dir = RunDir.create(disk / "run", digits_job())
        rows = prepared().rows(run_dir)
        next(rows)
        fill(disk)
        with pytest.raises(HostFailed, match=r"^no space left on device: "):
            list(rows)
        assert run_dir.ending is not None
        run_dir.close()
        last = events(disk / "run")[-1]
        assert (last["event"], last["kind"]) == ("failed", "HostFailed")
        assert last["cause"].startswith("no space left on device: ")
        assert not (disk / "run" / "model.safetensors").exists()


def test_the_last_word_has_room_and_is_kept_where_it_has_none(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "256k") as disk:
        log = EventLog(disk, {"attempt": 2})
        filler = fill(disk)
        with pytest.raises(OSError, match="No space left"):
            log.append("note", detail="x" * 10_000)
        log.append("failed", cause="c" * 20_000)
        log.append("interrupted", cause="GeneratorExit")  # from a generator that is closed afterwards
        found = [json.loads(line) for line in (disk / "events.jsonl").read_text().splitlines() if line.endswith("}")]
        assert (found[-1]["event"], found[-1]["attempt"], len(found[-1]["cause"])) == ("failed", 2, 20_000)
        log.close()
        filler.unlink()

        other = EventLog(disk, {})
        (disk / RESERVE).unlink()
        fill(disk)
        other.append("failed", cause="c" * 200_000)
        assert other.ending is not None
        assert other.ending["event"] == "failed"


# before the first step -----------------------------------------------------------------------------------------------


def test_stopped_before_its_first_step_it_saves_nothing_and_says_so(tmp_path: Path, tracker: Recorder) -> None:
    run_dir = RunDir.create(tmp_path / "run", digits_job())
    run = prepared()
    run.stop()
    assert list(run.rows(run_dir)) == []
    assert run.result is not None
    assert (run.result.stopped, run.result.saved, run.result.steps) == (True, False, 0)
    assert not (tmp_path / "run" / "model.safetensors").exists()
    assert events(tmp_path / "run")[-1] == {
        **events(tmp_path / "run")[-1],
        "event": "stopped",
        "step": 0,
        "saved": False,
    }
    assert tracker.outcomes == ["stopped"]
    run_dir.discard()
    assert not (tmp_path / "run").exists()


def test_what_others_put_into_a_run_directory_stays(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "before"
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    RunDir.create(folder, digits_job()).discard()
    assert [file.name for file in folder.iterdir()] == ["notes.txt"]
    RunDir.create(tmp_path / "new" / "deep" / "run", digits_job()).discard()
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("room", [0, 32 * 1024])
def test_a_run_directory_that_the_disk_has_no_room_for_does_not_block_the_next(tmp_path: Path, room: int) -> None:
    """32 KiB are enough for job.yaml, but not for the reserve."""
    with small_disk(tmp_path / "disk", "1m") as disk:
        filler = fill(disk)
        os.truncate(filler, filler.stat().st_size - room)
        with pytest.raises(UserMistake, match="cannot be written as a run directory: no space left on device"):
            RunDir.create(disk / "run", digits_job())
        assert not (disk / "run").exists()
        filler.unlink()
        RunDir.create(disk / "run", digits_job()).close()


def _train(folder: Path, *options: str) -> int:
    """Run the command in this process; return its exit code."""
    from cluster.cli import cli

    job = folder / "job.yaml"
    job.write_text(digits_job().to_yaml())
    command = ["train", str(job), "--local", "--run-dir", str(folder / "run"), *options]
    code = cli.main(command, standalone_mode=False)
    assert isinstance(code, int)
    return code


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (NotEnoughResources("it has 1 CPU"), 2)])
def test_what_ends_a_command_before_its_first_step_does_not_block_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    with monkeypatch.context() as patch:

        def connect(*_: Any, **__: Any) -> Any:
            raise error

        patch.setattr(training, "connect", connect)
        if isinstance(error, NotEnoughResources):
            with pytest.raises(NotEnoughResources) as told:
                _train(tmp_path)
            assert told.value.exit_code == code
        else:
            assert _train(tmp_path) == code
    assert not (tmp_path / "run").exists()
    assert _train(tmp_path) == 0
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_a_command_stopped_before_its_first_step_says_that_nothing_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Run, "_give_up", lambda run: True)
        rows = Run.rows

        def stopped(run: Run, *arguments: Any) -> Any:
            run.stop()
            return rows(run, *arguments)

        patch.setattr(Run, "rows", stopped)
        assert _train(tmp_path) == 130
    assert "stopped before the first step: nothing was saved" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()
    assert _train(tmp_path) == 0


# a runner of the service ---------------------------------------------------------------------------------------------


def _runner(folder: Path, document: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch) -> JobRunner:
    monkeypatch.setattr("cluster.run.job_runner.log_to_file", lambda path: None)
    monkeypatch.setattr("threading.Timer.start", lambda timer: None)  # the timer would end this process
    assignment = Assignment(job="j", attempt=1, folder=str(folder), document=document, files={}, memory_per_cpu=2**30)
    runner = JobRunner(assignment)
    monkeypatch.setattr(runner, "_prepare", lambda spec, run_dir: prepared(spec))
    return runner


def _state(runner: JobRunner, state: State) -> State:
    """Return the job's state that follows from the runner's answer."""
    ending = runner.ping(0)
    assert not isinstance(ending, bool)
    what = run_events.happening(ending)
    assert what is not None
    return decide(state, what)[0]


def test_a_stored_job_that_this_version_refuses_fails_with_every_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = digits_job().document()
    document["training"]["epochs"] = -1
    document["pipeline"]["schedule"] = "round-robin"
    runner = _runner(tmp_path / "j", document, monkeypatch)
    assert runner.ping(0) is False
    runner.run()
    failed = _state(runner, Starting(attempt=1))
    assert isinstance(failed, Failed)
    assert (failed.kind, failed.mistake) == ("InvalidJob", True)
    first, second = failed.cause.splitlines()
    assert first.startswith("this version of pipetrain refuses the job: training.epochs: got -1")
    assert second.startswith("this version of pipetrain refuses the job: pipeline.schedule: got 'round-robin'")
    assert events(tmp_path / "j")[-1]["cause"] == failed.cause


def test_a_run_directory_that_is_deleted_under_a_job_is_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = _runner(tmp_path / "j", digits_job().document(), monkeypatch)
    monkeypatch.setattr("cluster.run.step_observer._LOOK_EVERY_S", 0.0)

    def delete(log: Any, row: Any, run: Any) -> None:
        shutil.rmtree(tmp_path / "j", ignore_errors=True)

    monkeypatch.setattr("cluster.run.job_runner._RunLog.row", delete)
    runner.run()
    failed = _state(runner, Running(attempt=1))
    assert isinstance(failed, Failed)
    assert failed.kind == "HostFailed"
    assert failed.cause.startswith(f"{tmp_path / 'j'}: the run directory was deleted or moved while the job ran")


def test_a_run_directory_that_cannot_be_made_is_the_cause_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("stands in the way")
    runner = _runner(tmp_path / "file" / "j", digits_job().document(), monkeypatch)
    runner.run()
    failed = _state(runner, Starting(attempt=1))
    assert isinstance(failed, Failed)
    assert "Not a directory" in failed.cause or "not a directory" in failed.cause
    assert not failed.mistake


def test_a_full_disk_reaches_the_service_though_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path / "disk") as disk:
        runner = _runner(disk / "j", digits_job().document(), monkeypatch)

        def take_all(log: Any, row: Any, run: Any) -> None:
            (disk / "j" / RESERVE).unlink(missing_ok=True)
            fill(disk)

        monkeypatch.setattr("cluster.run.job_runner._RunLog.row", take_all)
        runner.run()
        failed = _state(runner, Running(attempt=1))
        assert isinstance(failed, Failed)
        assert failed.cause.startswith("no space left on device: ")

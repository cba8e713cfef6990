from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cluster.trackers import Point, TrackedRun, Trackers, require_trackers, tracking_of
from cluster.trackers import trackers as module
from cluster.trackers.mlflow import parameters
from cluster.trackers.tracker import Outcome
from coordinator.job.spec import JobSpec, parse_job
from coordinator.train.rows import EvalRow, StepRow
from stages.errors import InvalidJob, UserMistake
from tests.jobs import digits_job
from tests.service_units.scripted import scripted

TRAINED: dict[str, list[float]] = {
    "train/loss": [2.5, 1.25, 0.5],
    "train/accuracy": [0.25, 0.5, 0.75],
    "train/grad_norm": [1.0, 2.0, 3.0],
    "train/learning_rate": [0.125] * 3,
    "speed/samples_per_second": [512.0] * 3,
    "speed/step_seconds": [0.125] * 3,
    "pipeline/bubble": [0.375] * 3,
    "pipeline/bubble_predicted": [0.25, 0.25],  # there is none at the first step
}


def rows() -> list[StepRow | EvalRow]:
    """Three steps, an evaluation after them."""
    steps: list[StepRow | EvalRow] = [
        StepRow(
            step=step,
            epoch=1,
            samples=64,
            loss=TRAINED["train/loss"][step - 1],
            seconds=0.125,
            grad_norm=float(step),
            learning_rate=0.125,
            bubble=0.375,
            accuracy=TRAINED["train/accuracy"][step - 1],
            bubble_predicted=0.25 if step > 1 else None,
        )
        for step in (1, 2, 3)
    ]
    return [*steps, EvalRow(step=3, epoch=1, loss=0.75, accuracy=0.875, samples=30)]


def tracked(**tracking: object) -> JobSpec:
    """The digits job with a `tracking` section."""
    return parse_job({**digits_job().document(), "tracking": tracking})


def run(spec: JobSpec, folder: Path, outcome: Outcome = "finished", *, attempt: int = 1, **options: Any) -> list[str]:
    """Feed the trackers as a run does; what they told."""
    told: list[str] = []
    trackers = Trackers(spec, folder, attempt=attempt, warn=told.append, **options)
    for row in rows():
        trackers.row(row)
    trackers.close(outcome)
    return told


# tensorboard -----------------------------------------------------------------------------------------------------


def test_tensorboard_reads_back_every_scalar_and_the_job(tmp_path: Path) -> None:
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="pip install 'pipetrain[tensorboard]'"
    )
    assert run(tracked(tensorboard=True), tmp_path / "digits-1") == []
    events = reader.EventAccumulator(str(tmp_path / "digits-1" / "tensorboard")).Reload()
    assert sorted(events.Tags()["scalars"]) == sorted([*TRAINED, "validation/loss", "validation/accuracy"])
    for tag, values in TRAINED.items():
        found = events.Scalars(tag)
        assert [event.value for event in found] == values
        assert [event.step for event in found] == [1, 2, 3][-len(values) :]
        assert all(abs(event.wall_time - time.time()) < 600 for event in found)
    assert [(event.step, event.value) for event in events.Scalars("validation/accuracy")] == [(3, 0.875)]
    (text,) = events.Tensors("job")
    assert "batch_size: 103" in text.tensor_proto.string_val[0].decode()


def test_runs_of_one_tensorboard_folder_stay_apart_and_so_do_attempts(tmp_path: Path) -> None:
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_multiplexer", reason="pip install 'pipetrain[tensorboard]'"
    )
    spec = tracked(tensorboard=str(tmp_path / "logs"))
    for name, attempt in (("a", 1), ("b", 1), ("b", 2)):
        assert run(spec, tmp_path / name, attempt=attempt) == []
    found = reader.EventMultiplexer().AddRunsFromDirectory(str(tmp_path / "logs")).Reload()
    assert sorted(found.Runs()) == ["a", "b", "b/attempt-2"]
    assert all(len(found.Scalars(name, "train/loss")) == 3 for name in found.Runs())


def test_two_runs_of_the_same_name_do_not_share_a_tensorboard_run(tmp_path: Path) -> None:
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_multiplexer", reason="pip install 'pipetrain[tensorboard]'"
    )
    spec = tracked(tensorboard=str(tmp_path / "logs"))
    for folder, attempt in (("x", 1), ("y", 1), ("y", 2)):
        assert run(spec, tmp_path / folder / "run", attempt=attempt) == []
    found = reader.EventMultiplexer().AddRunsFromDirectory(str(tmp_path / "logs")).Reload()
    assert sorted(found.Runs()) == ["run", "run-2", "run-2/attempt-2"]
    assert all(len(found.Scalars(name, "train/loss")) == 3 for name in found.Runs())


def test_a_tensorboard_folder_that_cannot_be_written_is_told_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="pip install 'pipetrain[tensorboard]'")
    (tmp_path / "logs").write_text("a file stands there")
    (told,) = run(tracked(tensorboard=str(tmp_path / "logs")), tmp_path / "run")
    assert told.startswith("tracker tensorboard: dropped: ")
    assert str(tmp_path / "logs") in told


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
def test_a_full_disk_drops_tensorboard_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard", reason="pip install 'pipetrain[tensorboard]'")
    real = Path.open

    def full(self: Path, mode: str = "r", **options: Any) -> Any:
        return real(Path("/dev/full"), "wb") if "tfevents" in self.name else real(self, mode, **options)

    monkeypatch.setattr(Path, "open", full)
    (told,) = run(tracked(tensorboard=True), tmp_path / "run")
    assert told == "tracker tensorboard: dropped: OSError: [Errno 28] No space left on device"


# mlflow ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def database(tmp_path: Path) -> str:
    for package in ("mlflow", "sqlalchemy", "alembic"):
        pytest.importorskip(package, reason="is not installed: pip install 'pipetrain[mlflow]'")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def mlflow_runs(database: str) -> list[Any]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=database)
    experiment = client.get_experiment_by_name("digits-test")
    assert experiment is not None
    return sorted(client.search_runs([experiment.experiment_id]), key=lambda found: str(found.info.start_time))


def test_mlflow_reads_back_metrics_parameters_and_the_outcome(
    tmp_path: Path, database: str, capfd: pytest.CaptureFixture[str]
) -> None:
    from mlflow.tracking import MlflowClient

    assert run(tracked(mlflow=database), tmp_path / "digits-1") == []
    assert capfd.readouterr().out == ""  # standard output is the user's
    (found,) = mlflow_runs(database)
    assert (found.info.status, found.info.run_name) == ("FINISHED", "digits-1")
    assert found.data.params["training.batch_size"] == "103"
    assert found.data.params["training.optimizer.sgd.learning_rate"] == "0.1"
    assert not any(name.startswith("tracking") for name in found.data.params)
    client = MlflowClient(tracking_uri=database)
    for name, values in {**TRAINED, "validation/loss": [0.75]}.items():
        history = sorted(client.get_metric_history(found.info.run_id, name), key=lambda metric: metric.step)
        assert [metric.value for metric in history] == values
        assert [metric.step for metric in history] == [1, 2, 3][-len(values) :]


def _facts(folder: Path, attempt: int = 1) -> TrackedRun:
    return TrackedRun(name="digits-test", run=folder.name, attempt=attempt, document={}, folder=folder)


def test_mlflow_knows_how_a_run_ended_and_that_a_lost_attempt_is_over(tmp_path: Path, database: str) -> None:
    spec = tracked(mlflow=database)
    for outcome, status in (("stopped", "KILLED"), ("failed", "FAILED")):
        assert run(spec, tmp_path / outcome, outcome) == []  # type: ignore[arg-type]
        assert mlflow_runs(database)[-1].info.status == status
    # an attempt that was killed: it began, and nobody ended it
    from cluster.trackers.mlflow import MLflow

    MLflow(database).start(_facts(tmp_path / "job"))
    assert [found.info.status for found in mlflow_runs(database)].count("RUNNING") == 1
    assert run(spec, tmp_path / "job", attempt=2) == []
    found = {(r.data.tags["pipetrain.run"], r.data.tags["pipetrain.attempt"]): r for r in mlflow_runs(database)}
    assert found["job", "1"].info.status == "FAILED"
    assert found["job", "2"].info.status == "FINISHED"


_KILLED = """
import os, signal, sys
from pathlib import Path
from cluster.trackers import TrackedRun
from cluster.trackers.mlflow import MLflow

folder = Path(sys.argv[2])
facts = TrackedRun(name="digits-test", run=folder.name, attempt=1, document={}, folder=folder)
MLflow(sys.argv[1]).start(facts)
os.kill(os.getpid(), signal.SIGKILL)
"""


def _killed(database: str, folder: Path) -> None:
    """A run whose process was killed."""
    done = subprocess.run([sys.executable, "-c", _KILLED, database, str(folder)], timeout=100, check=False)
    assert done.returncode == -9


def test_a_run_that_was_killed_is_closed_by_the_next_of_this_host(tmp_path: Path, database: str) -> None:
    _killed(database, tmp_path / "killed")
    (killed,) = mlflow_runs(database)
    assert killed.info.status == "RUNNING"
    from cluster.trackers.mlflow import MLflow

    alive = MLflow(database)
    alive.start(_facts(tmp_path / "alive"))
    assert run(tracked(mlflow=database), tmp_path / "next") == []
    found = {r.data.tags["pipetrain.run"]: r.info.status for r in mlflow_runs(database)}
    assert found == {"killed": "FAILED", "alive": "RUNNING", "next": "FINISHED"}
    alive.close("finished")


def test_the_service_closes_what_a_job_left_open_and_is_not_held_up(tmp_path: Path, database: str) -> None:
    async def play() -> int:
        async with scripted(tmp_path / "home") as service:
            await asyncio.to_thread(_killed, database, tmp_path / "home" / "runs" / "job1")
            await service.submit()
            await service.until(lambda: service.state() == "STARTING")
            await service.jobs.stop("job1", now=True)
            await service.jobs.runner_gone("job1", 1, "its runner was ended")
            assert service.state() == "STOPPED"
            turns = 0
            while (tmp_path / "home" / "runs" / "job1" / ".mlflow-run").exists():
                await asyncio.sleep(0.01)
                turns += 1
            await service.jobs.tracking_ended(60)
            return turns

    assert asyncio.run(play()) > 10, "the loop goes on meanwhile"
    assert [found.info.status for found in mlflow_runs(database)] == ["KILLED"]


def test_a_server_that_is_not_there_is_told_once(tmp_path: Path, database: str) -> None:
    (told,) = run(tracked(mlflow="http://127.0.0.1:9"), tmp_path / "run")
    assert told.startswith("tracker mlflow: ")


def test_parameters_are_paths_and_short() -> None:
    found = dict(parameters({"a": {"b": 1, "c": None}, "d": [{"e": 2}], "f": "x" * 7000, "g": {}}))
    assert found == {"a.b": "1", "a.c": "null", "d": '[{"e": 2}]', "f": "x" * 5999 + "…", "g": "{}"}


# trackers that misbehave -------------------------------------------------------------------------------------------


class Recorder:
    """A tracker that keeps what it is told, and can be held up or made to fail at any point."""

    def __init__(self, *, fails: str = "", waits: threading.Event | None = None) -> None:
        self.calls: list[str] = []
        self.points: list[Point] = []
        self.threads: set[int] = set()
        self._fails, self._waits = fails, waits

    def _note(self, call: str) -> None:
        self.calls.append(call)
        self.threads.add(threading.get_ident())
        if self._waits is not None:
            self._waits.wait(30)
        if self._fails == call:
            raise ConnectionError(f"cannot {call}\nsecond line")

    def start(self, run: TrackedRun) -> None:
        self._note("start")

    def write(self, points: Sequence[Point]) -> None:
        self._note("write")
        self.points += points

    def close(self, outcome: Outcome) -> None:
        self._note("close")


def test_a_tracker_has_one_thread_of_its_own_and_gets_every_point_in_order(tmp_path: Path) -> None:
    tracker = Recorder()
    assert run(digits_job(), tmp_path, trackers={"recorder": tracker}) == []
    assert [point.step for point in tracker.points] == [1, 2, 3, 3]
    assert (tracker.calls[0], tracker.calls[-1]) == ("start", "close")
    assert len(tracker.threads) == 1
    assert threading.get_ident() not in tracker.threads
    assert not [thread for thread in threading.enumerate() if thread.name == "tracker-recorder"]


@pytest.mark.parametrize("call", ["start", "write", "close"])
def test_a_tracker_that_fails_is_told_once_and_the_other_goes_on(tmp_path: Path, call: str) -> None:
    broken, fine = Recorder(fails=call), Recorder()
    told = run(digits_job(), tmp_path, trackers={"broken": broken, "fine": fine})
    assert told == [f"tracker broken: dropped: ConnectionError: cannot {call}"]
    assert [point.step for point in fine.points] == [1, 2, 3, 3]


def test_a_tracker_that_hangs_neither_stops_rows_nor_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLOSE_S", 0.2)
    monkeypatch.setattr(module, "_QUEUED_ROWS", 2)
    held = threading.Event()
    told = run(digits_job(), tmp_path, trackers={"slow": Recorder(waits=held)})  # it waits until this has come back
    held.set()
    assert told == [
        "tracker slow: does not keep up; rows are left out for it",
        "tracker slow: did not take everything within 0.2 s after the end; given up",
    ]


def test_rows_that_were_left_out_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_QUEUED_ROWS", 2)
    held, told = threading.Event(), list[str]()
    tracker = Recorder(waits=held)
    trackers = Trackers(digits_job(), tmp_path, warn=told.append, trackers={"slow": tracker})
    for row in rows():
        trackers.row(row)
    held.set()
    trackers.close("finished")
    trackers.close("finished")
    assert told == [
        "tracker slow: does not keep up; rows are left out for it",
        "tracker slow: 2 rows were left out for it",
    ]
    assert [point.step for point in tracker.points] == [1, 2]


def test_a_run_that_ends_by_an_error_has_failed_and_one_that_was_closed_has_not(tmp_path: Path) -> None:
    outcomes: list[Outcome] = []

    class Ends(Recorder):
        def close(self, outcome: Outcome) -> None:
            outcomes.append(outcome)

    with pytest.raises(ZeroDivisionError), Trackers(digits_job(), tmp_path, warn=print, trackers={"x": Ends()}):
        raise ZeroDivisionError
    with Trackers(digits_job(), tmp_path, warn=print, trackers={"x": Ends()}) as trackers:
        trackers.close("stopped")
    assert outcomes == ["failed", "stopped"]


def test_without_trackers_there_is_nothing(tmp_path: Path) -> None:
    before = set(threading.enumerate())  # some may be just ending: those of servers and trackers before
    assert run(digits_job(), tmp_path) == []
    assert not [thread for thread in threading.enumerate() if thread not in before and "tracker" in thread.name]
    assert list(tmp_path.iterdir()) == []


# what a job asks for -------------------------------------------------------------------------------------------------


def test_track_options_are_entries_of_the_job() -> None:
    assert tracking_of([], {}) == {}
    assert tracking_of(["tensorboard"], {}) == {"tensorboard": True}
    assert tracking_of(["tensorboard:logs", "mlflow:http://h:5000"], {}) == {
        "tensorboard": "logs",
        "mlflow": "http://h:5000",
    }
    assert tracking_of(["mlflow"], {"MLFLOW_TRACKING_URI": "http://h:5000"}) == {"mlflow": "http://h:5000"}


@pytest.mark.parametrize(
    ("tracks", "says"),
    [
        (["wandb"], "--track wandb: must be tensorboard, tensorboard:DIR, mlflow or mlflow:URI"),
        (["tensorboard:"], "--track tensorboard:: must be"),
        (["tensorboard", "tensorboard:x"], "--track tensorboard:x: tensorboard is named twice"),
        (["mlflow"], "--track mlflow: to which server or database?"),
    ],
)
def test_a_wrong_track_option_says_what_is_right(tracks: list[str], says: str) -> None:
    with pytest.raises(UserMistake, match=f"^{says.replace('?', '.')}"):
        tracking_of(tracks, {})


def test_tracking_stands_in_the_job_only_where_it_is_on_and_comes_back() -> None:
    assert "tracking" not in digits_job().document()
    assert "tracking" not in tracked(tensorboard=False, mlflow=None).document()
    spec = tracked(tensorboard=True, mlflow="http://h:5000")
    assert spec.document()["tracking"] == {"tensorboard": True, "mlflow": "http://h:5000"}
    assert parse_job(spec.document()) == spec


@pytest.mark.parametrize(
    ("tracking", "says"),
    [
        ({"tensorboard": 3}, "tracking.tensorboard: got 3, must be true .*, false, or a folder"),
        ({"mlflow": "./runs"}, "tracking.mlflow: got './runs', .* sqlite:///mlflow.db"),
        ({"mlflow": "runs"}, "tracking.mlflow: got 'runs', must be the URI of a server or a database"),
        ({"mlfow": "x"}, "tracking.mlfow: got 'x', unknown key; did you mean mlflow?"),
    ],
)
def test_a_wrong_tracking_section_says_what_is_right(tracking: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidJob, match=says):
        tracked(**tracking)


def test_a_missing_package_is_one_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    require_trackers(digits_job())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    require_trackers(digits_job())
    with pytest.raises(UserMistake) as caught:
        require_trackers(tracked(tensorboard=True, mlflow="http://h:5000"))
    first, second = str(caught.value).splitlines()
    assert first.endswith("; pip install 'pipetrain[tensorboard]'")
    assert second.endswith("; pip install 'pipetrain[mlflow]'")


def test_no_tracker_is_loaded_where_none_is_wanted() -> None:
    code = "import sys, cluster.trackers; print(sorted({'tensorboard', 'mlflow', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "tensorboard" not in done.stdout
    assert "mlflow" not in done.stdout

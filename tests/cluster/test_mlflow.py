"""A run's records in MLflow, for each way in which it can end."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster.trackers import TrackedRun
from cluster.trackers.mlflow import parameters
from tests.cluster.tracked_runs import TRAINED, run, tracked
from tests.service_units.scripted import scripted


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database without runs: MLflow takes seconds to make its tables."""
    for package in ("mlflow", "sqlalchemy", "alembic"):
        pytest.importorskip(package, reason="is not installed: pip install 'pipetrain[mlflow]'")
    from mlflow.tracking import MlflowClient

    file = tmp_path_factory.mktemp("mlflow") / "empty.db"
    MlflowClient(tracking_uri=f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def database(tmp_path: Path, empty: Path) -> str:
    return f"sqlite:///{shutil.copy(empty, tmp_path / 'mlflow.db')}"


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
    assert capfd.readouterr().out == ""  # standard output is for the command's own output
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


def test_mlflow_knows_how_a_run_ended_and_a_new_attempt_goes_on_in_the_same_run(tmp_path: Path, database: str) -> None:
    spec = tracked(mlflow=database)
    for outcome, status in (("stopped", "KILLED"), ("failed", "FAILED")):
        assert run(spec, tmp_path / outcome, outcome) == []  # type: ignore[arg-type]
        assert mlflow_runs(database)[-1].info.status == status
    # an attempt whose process was killed, so that its run was not ended
    from cluster.trackers.mlflow import MLflow

    MLflow(database).start(_facts(tmp_path / "job"))
    assert [found.info.status for found in mlflow_runs(database)].count("RUNNING") == 1
    assert run(spec, tmp_path / "job", attempt=2) == []
    found = {(r.data.tags["pipetrain.run"], r.data.tags["pipetrain.attempt"]): r for r in mlflow_runs(database)}
    assert ("job", "1") not in found
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
    """Start a run in a process that is killed."""
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


@pytest.mark.timeout(300)
def test_the_service_closes_what_a_job_left_open_and_is_not_held_up(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.service.tracking._DEADLINE_S", 110.0)  # loading MLflow takes long on a busy machine

    async def play() -> int:
        async with scripted(tmp_path / "home") as service:
            await asyncio.to_thread(_killed, database, tmp_path / "home" / "runs" / "job1")
            await service.submit()
            await service.until(lambda: service.state() == "STARTING")
            await service.jobs.stop("job1", now=True)
            await service.jobs.runner_gone("job1", 1, "its runner was ended")
            assert service.state() == "STOPPED"
            turns = 0
            async with asyncio.timeout(120):
                while (tmp_path / "home" / "runs" / "job1" / ".mlflow-run").exists():
                    await asyncio.sleep(0.01)
                    turns += 1
            await service.jobs.tracking_ended(60)
            return turns

    assert asyncio.run(play()) > 10, "the event loop goes on meanwhile"
    assert [found.info.status for found in mlflow_runs(database)] == ["KILLED"]


def test_a_server_that_is_not_there_is_told_once(tmp_path: Path, database: str) -> None:
    (told,) = run(tracked(mlflow="http://127.0.0.1:9"), tmp_path / "run")
    assert told.startswith("tracker mlflow: ")


def test_parameters_are_paths_and_short() -> None:
    found = dict(parameters({"a": {"b": 1, "c": None}, "d": [{"e": 2}], "f": "x" * 7000, "g": {}}))
    assert found == {"a.b": "1", "a.c": "null", "d": '[{"e": 2}]', "f": "x" * 5999 + "…", "g": "{}"}

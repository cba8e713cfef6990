"""One count of steps: every file and message gives a step the same number, the number of updates after it.

One run of `pipetrain train` makes the files, and a service without processes reads them. The losses of all steps
differ, so a loss shows which step is meant.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from prometheus_client import CollectorRegistry

from benchmarks.recorded_jobs import classifier, jobs_of, record
from cluster.cli import cli
from cluster.dashboard import facts
from cluster.dashboard.live import picture
from cluster.run.run_dir import RunDir
from cluster.run.training import Run, Where
from cluster.service.api import Api
from cluster.service.jobs import Jobs
from cluster.service.metrics import Metrics
from cluster.service.run_events import text
from cluster.service.server import Servers
from cluster.trackers.mlflow import MLflow
from cluster.trackers.tracker import TrackedRun, point_of
from cluster.wire import pipetrain_pb2 as pb
from cluster.wire.convert import row_to_wire
from coordinator.queue.job_states import Succeeded
from coordinator.timing.epoch_means import EpochMeans
from pipetrain import Client, EvalRow, StepRow
from stages.errors import StageFailed, UserMistake
from stages.orders import Fault

N, EPOCH = 12, 6
NUMBERS = list(range(1, N + 1))
LIVE, OVER = "livelive", "overover"


@dataclass(frozen=True, slots=True)
class Told:
    """The results of a run: its folder, and the output of `train --json`."""

    folder: Path
    printed: list[dict[str, Any]]

    def lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / name).read_text().splitlines()]

    def losses(self, kind: str) -> list[float]:
        return [row["loss"] for row in self.lines("metrics.jsonl") if row["kind"] == kind]

    @property
    def training(self) -> dict[int, float]:
        """Return what must hold: the loss of each step by its number."""
        return dict(zip(NUMBERS, self.losses("step"), strict=True))

    @property
    def mean_loss(self) -> float:
        """Return what must be shown as the run's loss: the mean over the rows of its last epoch."""
        means = EpochMeans()
        for row in self.lines("metrics.jsonl"):
            if row["kind"] == "step":
                means.take(epoch=row["epoch"], samples=row["samples"], loss=row["loss"], accuracy=None)
        assert means.loss is not None
        return means.loss

    @property
    def validation(self) -> dict[int, float]:
        """Return what must hold: the loss of each evaluation by the number of the step before it."""
        return dict(zip([EPOCH, N], self.losses("eval"), strict=True))


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """Train two epochs of six steps in two stages, and trace all of them."""
    folder = tmp_path_factory.mktemp("steps")
    (folder / "job.yaml").write_text(classifier(folder, stages=2).to_yaml())
    command = ["train", str(folder / "job.yaml"), "--local", "--run-dir", str(folder / "run"), "--trace", str(N)]
    with contextlib.suppress(ImportError):
        import tensorboard  # noqa: F401

        command += ["--track", f"tensorboard:{folder / 'logs'}"]
    done = CliRunner().invoke(cli, [*command, "--json"])
    assert done.exit_code == 0, done.output
    found = Told(folder / "run", [json.loads(line) for line in done.stdout.splitlines()])
    assert len(set(found.losses("step"))) == N, "each loss says which step it is of"
    return found


@dataclass(frozen=True, slots=True)
class Service:
    """A service that has the run twice: as a job that still runs, and as one that has ended."""

    client: Client
    jobs: Jobs
    metrics: str

    def command(self, *arguments: str) -> str:
        options = ["--address", self.client.address]
        done = CliRunner().invoke(cli, [*arguments, *options], env={"PIPETRAIN_TOKEN": "token"})
        assert done.exit_code == 0, done.output
        return done.stdout


@contextlib.contextmanager
def serving(folder: Path, run: Path) -> Iterator[Service]:
    """Serve the run directory `run` from a home in `folder`."""
    records = [
        replace(record(LIVE, stages=2), steps_total=N),
        replace(record(OVER, stages=2, state=Succeeded(attempt=1)), steps_total=N, step=N),
    ]
    ready: list[Any] = []
    up, stop = threading.Event(), threading.Event()

    async def serve() -> None:
        async with jobs_of(folder / "home", records, run) as jobs:
            metrics = Metrics(CollectorRegistry(), jobs, ray_up=lambda: True)
            nobody: Any = None
            servers = Servers(Api(jobs, nobody, nobody, nobody), "token", metrics)
            try:
                content, _ = await metrics.scrape("text/plain")
                ready.extend((await servers.listen_grpc("127.0.0.1", 0), jobs, content.decode()))
                up.set()
                await asyncio.to_thread(stop.wait)
            finally:
                await servers.stop(0)

    def serve_and_say() -> None:
        try:
            asyncio.run(serve())
        finally:
            up.set()

    thread = threading.Thread(target=serve_and_say, name="service")
    thread.start()
    try:
        assert up.wait(60)
        port, jobs, metrics = ready
        with Client(f"127.0.0.1:{port}", token="token") as client:
            yield Service(client, jobs, metrics)
    finally:
        stop.set()
        thread.join()


@pytest.fixture(scope="module")
def service(told: Told, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("service"), told.folder) as found:
        yield found


def by_step(rows: Sequence[Mapping[str, Any]], kind: str) -> dict[int, float]:
    return {row["step"]: row["loss"] for row in rows if row["kind"] == kind}


def test_files_and_train_tell_the_number_of_updates_made(told: Told) -> None:
    rows = told.lines("metrics.jsonl")
    for found in (rows, told.printed[:-1]):
        assert by_step(found, "step") == told.training
        assert by_step(found, "eval") == told.validation
        assert [row["epoch"] for row in found if row["kind"] == "step"] == [1] * EPOCH + [2] * EPOCH
        assert [row["epoch"] for row in found if row["kind"] == "eval"] == [1, 2]
    for before, after in pairwise(rows):
        if after["kind"] == "eval":
            assert (after["step"], after["epoch"]) == (before["step"], before["epoch"]), "of the step before it"
    assert told.printed[-1]["step"] == N
    accounts = [line["step"] for line in told.lines("accounts.jsonl")]
    assert (accounts[0], accounts[-1], sorted(set(accounts) - set(NUMBERS))) == (1, N, [])
    timeline = json.loads((told.folder / "timeline.json").read_text())
    assert timeline["step"] == N, "the last whole step is always sampled"
    assert facts.timeline_model(timeline).step == N
    assert picture(timeline).summary.startswith(f"Step {N}, ")
    events = {event["event"]: event for event in told.lines("events.jsonl")}
    assert events["finished"]["step"] == events["starting"]["steps_total"] == N
    assert (events["trace saved"]["first"], events["trace saved"]["steps"]) == (1, N)
    assert text(events["trace saved"]) == f"trace.json has {N} steps, from step 1 on"


def test_traces_tell_it_in_every_slice(told: Told) -> None:
    events = json.loads((told.folder / "trace.json").read_text())
    slices = [event for event in events if event["ph"] == "X"]
    assert sorted({event["args"]["step"] for event in slices}) == NUMBERS
    starts = {n: min(event["ts"] for event in slices if event["args"]["step"] == n) for n in NUMBERS}
    assert list(starts.values()) == sorted(starts.values())
    done = CliRunner().invoke(cli, ["show", "1f1b", "--stages", "2", "--micro-batches", "2", "--format", "chrome"])
    shown = [event for event in json.loads(done.output) if event["ph"] == "X"]
    assert {event["args"]["step"] for event in shown} == {1}, "the picture of a schedule shows the first step"


def test_tensorboard_tells_it(told: Told) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="pip install 'pipetrain[tensorboard]'"
    )
    (file,) = (told.folder.parent / "logs").rglob("events.out.*")
    events = accumulator.EventAccumulator(str(file)).Reload()
    for name, expected in (("train/loss", told.training), ("validation/loss", told.validation)):
        found = {event.step: event.value for event in events.Scalars(name)}
        assert found == pytest.approx(expected, rel=1e-6)


def test_mlflow_tells_it(told: Told, service: Service, tmp_path: Path) -> None:
    for package in ("mlflow", "sqlalchemy", "alembic"):
        pytest.importorskip(package, reason="pip install 'pipetrain[mlflow]'")
    from mlflow.tracking import MlflowClient

    database = f"sqlite:///{tmp_path / 'mlflow.db'}"
    tracker = MLflow(database)
    tracker.start(TrackedRun(name="steps", run="run", attempt=1, document={}, folder=tmp_path / "run"))
    tracker.write([point_of(row, 0.0) for row in service.client.get(OVER)])
    tracker.close("finished")
    client = MlflowClient(tracking_uri=database)
    (run,) = client.search_runs([client.get_experiment_by_name("steps").experiment_id])
    for name, expected in (("train/loss", told.training), ("validation/loss", told.validation)):
        history = client.get_metric_history(run.info.run_id, name)
        assert {metric.step: metric.value for metric in history} == expected


def test_the_client_tells_it_in_rows_of_two_types(told: Told, service: Service) -> None:
    job = service.client.get(OVER)
    for steps in (job.steps, lambda: (row for row in job if isinstance(row, StepRow))):
        found = list(steps())
        assert {type(row) for row in found} == {StepRow}
        assert {row.step: row.loss for row in found} == told.training
        assert [row.epoch for row in found] == [1] * EPOCH + [2] * EPOCH
    for evaluations in (job.evaluations, lambda: (row for row in job if isinstance(row, EvalRow))):
        seen = list(evaluations())
        assert {type(row) for row in seen} == {EvalRow}
        assert {row.step: row.loss for row in seen} == told.validation
        assert [row.epoch for row in seen] == [1, 2]
    assert list(job) == list(job.rows())
    assert [row.step for row in job] == [*NUMBERS[:EPOCH], EPOCH, *NUMBERS[EPOCH:], N]


def test_the_state_of_a_job_and_its_figures_tell_it(told: Told, service: Service) -> None:
    job = service.client.get(LIVE)
    figures = job.stats()
    assert figures is not None
    assert job.step == job.steps_total == figures.step == N
    assert job.loss == figures.loss == told.mean_loss == told.printed[-1]["loss"]
    stats = service.jobs.board.jobs[LIVE]
    series = facts.rows_model(stats).series
    for name, expected in (("loss", told.training), ("validation_loss", told.validation)):
        assert dict(zip(series[name].steps, series[name].values, strict=True)) == expected
    assert series["samples_per_second"].steps == series["bubble"].steps == NUMBERS
    accounts = facts.accounts_model(stats, [0, 1])
    assert accounts is not None
    assert accounts.step == N
    assert f'pipetrain_steps_total{{job="{LIVE}"}} {N}\n' in service.metrics
    assert f'pipetrain_loss{{job="{LIVE}",kind="train"}} {told.mean_loss!r}\n' in service.metrics


def test_commands_tell_it(told: Told, service: Service) -> None:
    for options in ((), ("--follow",)):
        rows = [json.loads(line) for line in service.command("metrics", OVER, "--json", *options).splitlines()]
        assert by_step(rows, "step") == told.training
        assert by_step(rows, "eval") == told.validation
        table = [line.split() for line in service.command("metrics", OVER, *options).splitlines()[1:]]
        assert [int(cells[0]) for cells in table] == [row["step"] for row in rows]
        assert [int(cells[1]) for cells in table] == [row["epoch"] for row in rows]
    assert json.loads(service.command("status", LIVE, "--json"))["step"] == N
    assert {job["step"] for job in json.loads(service.command("list", "-o", "json"))} == {N}
    for command in (("status", LIVE), ("list",)):
        assert f"{N}/{N}" in service.command(*command)


def test_a_failure_tells_the_step_that_was_under_way(tmp_path: Path) -> None:
    spec = classifier(tmp_path, stages=2).replace(training__clip_norm=1.0)  # so that steps are reported one by one
    run = Run.prepare(spec, Where(local=True), faults={1: Fault(step=7, action="1F2", what="raise")})
    folder = tmp_path / "run"
    with contextlib.closing(RunDir.create(folder, spec)) as run_dir, pytest.raises(StageFailed) as failed:
        list(run.rows(run_dir))
    assert "in 1F2 of step 7: " in str(failed.value)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert (rows[-1]["kind"], rows[-1]["step"]) == ("eval", 6), "six were made; the seventh failed"
    failure = json.loads((folder / "events.jsonl").read_text().splitlines()[-1])
    assert (failure["event"], failure["cause"]) == ("failed", str(failed.value))


def test_a_failure_in_an_evaluation_tells_the_step_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr("stages.stage.Stage.infer", fails)
    spec = classifier(tmp_path, stages=1)
    run = Run.prepare(spec, Where(local=True))
    with contextlib.closing(RunDir.create(tmp_path / "run", spec)) as run_dir, pytest.raises(StageFailed) as failed:
        list(run.rows(run_dir))
    assert "in 0F0 of the evaluation after step 6: RuntimeError: no" in str(failed.value)


@pytest.mark.parametrize(("kind", "fields_of"), [("steps", StepRow), ("evaluations", EvalRow)])
def test_a_frame_has_the_rows_of_one_kind_by_step(told: Told, service: Service, kind: Any, fields_of: Any) -> None:
    pandas = pytest.importorskip("pandas", reason="pip install 'pipetrain[pandas]'")
    frame = service.client.get(OVER).to_frame(kind)
    expected = {"steps": told.training, "evaluations": told.validation}[kind]
    assert (frame.index.name, frame["loss"].to_dict()) == ("step", expected)
    assert {"step", "attempt", "summed", *frame.columns} == {one.name for one in fields(fields_of)}
    assert {str(dtype) for dtype in frame.dtypes} == {"int64", "float64"}
    assert isinstance(frame, pandas.DataFrame)


@pytest.mark.parametrize("made", [0, 2])
def test_a_frame_has_each_step_once_though_the_job_was_started_again(
    service: Service, monkeypatch: pytest.MonkeyPatch, made: int
) -> None:
    pytest.importorskip("pandas", reason="pip install 'pipetrain[pandas]'")
    job = service.client.get(OVER)
    row = next(job.steps()).as_dict()
    rows = [(1, step) for step in (1, 2, 3)] + [(2, step) for step in range(1, made + 1)]
    messages = [row_to_wire({**row, "step": step, "loss": float(attempt)}, attempt) for attempt, step in rows]
    update = pb.WatchUpdate(job=pb.Job(id=OVER, state=pb.RUNNING, attempt=2), rows=messages)
    monkeypatch.setattr("cluster.client.job.messages_so_far", lambda connection, request: [update])
    frame = job.to_frame()
    assert frame["loss"].to_dict() == dict.fromkeys(range(1, made + 1), 2.0)
    assert str(frame["loss"].dtype) == "float64"
    assert set(job.to_frame("evaluations").columns) == {
        *("epoch", "samples", "loss", "accuracy", "perplexity", "bits_per_byte", "counted")
    }


def test_a_frame_without_pandas_or_of_no_kind_says_what_would_be_right(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = service.client.get(OVER)
    with pytest.raises(UserMistake, match=r"got 'rows', must be one of 'steps', 'evaluations'"):
        job.to_frame("rows")  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserMistake, match=r"needs pandas: pip install 'pipetrain\[pandas\]'"):
        job.to_frame()


def _as_written_before(run: Path) -> None:
    """Rewrite the files of a run as older versions wrote them, with steps and epochs counted from 0."""

    def rewrite(name: str, change: Callable[[dict[str, Any]], None]) -> None:
        lines = [json.loads(line) for line in (run / name).read_text().splitlines()]
        for line in lines:
            change(line)
        (run / name).write_text("".join(json.dumps(line) + "\n" for line in lines))

    def row(line: dict[str, Any]) -> None:
        line["epoch"] -= 1
        line["step"] -= line["kind"] == "step"

    def other(line: dict[str, Any]) -> None:
        line["step"] -= 1

    rewrite("metrics.jsonl", row)
    rewrite("accounts.jsonl", other)
    rewrite("timeline.json", other)


def test_what_a_runner_of_an_older_version_writes_is_told_in_the_same_count(told: Told, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(told.folder, run)
    _as_written_before(run)
    with serving(tmp_path, run) as service:
        job = service.client.get(OVER)
        assert {row.step: row.loss for row in job.steps()} == told.training
        assert {row.step: row.loss for row in job.evaluations()} == told.validation
        assert [row.epoch for row in job.rows()] == [1] * (EPOCH + 1) + [2] * (EPOCH + 1)
        live = service.client.get(LIVE)
        assert live.step == N
        stats = service.jobs.board.jobs[LIVE]
        series = facts.rows_model(stats).series
        for name, expected in (("loss", told.training), ("validation_loss", told.validation)):
            assert dict(zip(series[name].steps, series[name].values, strict=True)) == expected
        assert stats.timeline is not None
        accounts = facts.accounts_model(stats, [0, 1])
        assert accounts is not None
        assert accounts.step == N
        assert picture(stats.timeline).summary.startswith(f"Step {N}, ")

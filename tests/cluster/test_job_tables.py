"""Jobs as tables: nothing is cut off on a terminal of any width, and a file gets more columns."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from rich.console import Console

from cluster.cli.job_tables import jobs_table, left_of
from cluster.cli.output import console
from cluster.client import Client, Job, JobFigures
from cluster.client.connection import Connection
from cluster.run.run_dir import RunDir
from cluster.run.training import Run, Where
from cluster.wire import pipetrain_pb2 as pb
from stages.errors import UnknownJob
from tests.jobs import digits_job, pipetrain_here

REASON = "stage 2, worker 2 on vm in 2B3 of step 7: the gradient of layers[4] (linear) is not finite in micro-batch 3"


def job(**values: Any) -> Job:
    known: dict[str, Any] = {"id": "k7x2abcd", "name": "digits", "submitted_at": 10.0, "started_at": 11.0, "attempt": 1}
    return Job(cast(Connection, None), pb.Job(**{**known, **values}))


RUNNING = job(state=pb.RUNNING, step=345, steps_total=690, loss=0.05, validation_loss=0.0637)
FAILED = job(id="zzzz2222", state=pb.FAILED, step=7, steps_total=690, reason=REASON, ended_at=12.0)


def drawn(width: int, *jobs: Job, left: dict[str, float] | None = None) -> list[str]:
    screen = Console(width=width, color_system=None, force_terminal=True)
    with screen.capture() as captured:
        screen.print(jobs_table(jobs, width=width, left=left))
    return [line.rstrip() for line in captured.get().splitlines()]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 130, 200])
def test_a_reason_is_told_whole_whatever_the_terminal(width: int) -> None:
    lines = drawn(width, RUNNING, FAILED)
    assert not [line for line in lines if "…" in line or len(line) > width]
    begin = lines[0].index("REASON")
    words = " ".join(line[begin:].strip() for line in lines[2:]).split()
    assert "".join(words) == "".join(REASON.split())  # a long word may be broken, too
    assert [line[:8] for line in lines if line[:8].strip()] == ["ID      ", "k7x2abcd", "zzzz2222"]


def test_a_row_tells_how_much_is_done_and_how_long_the_rest_takes() -> None:
    headings, row = drawn(130, RUNNING, left={RUNNING.id: 75.0})
    assert " ".join(headings.split()) == "ID NAME STATE STEP DONE LEFT LOSS VALIDATION AGE TIME REASON"
    assert row.split()[3:8] == ["345/690", "50%", "75s", "0.05", "0.0637"]
    (_, row) = drawn(80, job(state=pb.RUNNING, step=689, steps_total=690))
    assert "99%" in row


def test_the_time_left_follows_the_mean_pace_of_the_attempt() -> None:
    workers = [SimpleNamespace(microseconds={"forward": 2_000_000, "evaluation": 1_000_000})] * 2
    figures = cast(JobFigures, SimpleNamespace(step=300, workers=workers))
    assert left_of([RUNNING], {RUNNING.id: figures}) == {RUNNING.id: pytest.approx(390 * 3.0 / 300)}
    assert left_of([RUNNING, FAILED], {FAILED.id: figures}) == {}
    assert left_of([RUNNING], {RUNNING.id: cast(JobFigures, SimpleNamespace(step=0, workers=workers))}) == {}


def test_what_goes_into_a_pipe_is_never_cut_and_columns_are_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert console().width >= 1000
    monkeypatch.setenv("COLUMNS", "72")
    assert console().width == 72


# commands that take a job or a run directory -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run directory of one epoch's training."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    spec = digits_job().replace(training__epochs=1)
    run_dir = RunDir.create(folder, spec)
    list(Run.prepare(spec, Where(local=True)).rows(run_dir))
    run_dir.close()
    return folder


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch, trained: Path) -> list[Path]:
    """Let the service have one job, `digits-7`; return the folders into which its model was fetched."""
    folders: list[Path] = []

    def fetch(folder: str, what: str) -> None:
        assert what == "model"
        folders.append(Path(folder))
        for name in ("job.yaml", "model.json", "model.safetensors"):
            (Path(folder) / name).write_bytes((trained / name).read_bytes())

    def get(client: Client, text: str) -> Any:
        if text != "digits-7":
            raise UnknownJob(f"no job has the id or the name {text!r}")
        return SimpleNamespace(fetch=fetch)

    monkeypatch.setattr(Client, "get", get)
    monkeypatch.setenv("PIPETRAIN_TOKEN", "t" * 32)
    monkeypatch.setenv("PIPETRAIN_ADDRESS", "127.0.0.1:1")
    return folders


def test_evaluate_and_predict_take_a_job_as_they_take_its_run_directory(
    fetched: list[Path], trained: Path, tmp_path: Path
) -> None:
    here, there = pipetrain_here("evaluate", trained), pipetrain_here("evaluate", "digits-7")
    assert there.returncode == 0, there.stderr
    assert there.stdout == here.stdout
    rows = tmp_path / "rows.npz"
    np.savez(rows, x=np.ones((1, 64)))
    done = pipetrain_here("predict", "digits-7", "--input", rows, "--output", tmp_path / "y.npz")
    assert (done.returncode, "y (1, 10)" in done.stdout) == (0, True), done.stderr
    assert len(fetched) == 2
    assert not [folder for folder in fetched if folder.exists()]


@pytest.mark.usefixtures("fetched")
@pytest.mark.parametrize(
    ("run", "told"),
    [
        ("digits-8", "no run directory of that name here, and no job has the id or the name 'digits-8'"),
        ("runs/digits-7", "runs/digits-7: has no job.yaml"),
    ],
)
def test_what_is_neither_a_run_nor_a_job_says_both(run: str, told: str) -> None:
    done = pipetrain_here("evaluate", run)
    assert done.returncode == 2
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1

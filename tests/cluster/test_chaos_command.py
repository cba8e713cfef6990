"""`pipetrain chaos`: what it refuses, campaigns, and reports. Real faults are in tests/faults."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import yaml

from cluster.actors.fault_marks import claim, marks
from cluster.chaos.asking import inject_fault
from cluster.chaos.leaks import left_in
from cluster.chaos.soak import SoakReport, differences
from cluster.cli.chaos_texts import report_lines
from cluster.run.run_dir import RunDir
from cluster.run.training import Run, Where
from coordinator.chaos.report import Outcome
from stages.errors import Refused
from stages.orders import Fault
from tests.jobs import digits_job, pipetrain_here


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run directory of a run that has ended."""
    folder = tmp_path_factory.mktemp("ended")
    (folder / "job.yaml").write_text(yaml.safe_dump(digits_job(stages=2).document()))
    done = pipetrain_here("train", "--local", folder / "job.yaml", "--run-dir", folder / "run")
    assert done.returncode == 0, done.stderr
    return folder / "run"


def _refused(*arguments: str | Path) -> str:
    done = pipetrain_here("chaos", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    return line.removeprefix("error: ")


def test_a_run_that_has_ended_and_a_folder_that_is_none_are_refused(ended: Path, tmp_path: Path) -> None:
    before = sorted(path.name for path in ended.iterdir())
    assert _refused("kill", ended, "--worker", "1") == (
        f"{ended}: the run finished at step 28; only a run that trains can have a fault"
    )
    assert _refused("kill", tmp_path, "--worker", "1") == f"{tmp_path}: is not a run directory"
    assert _refused("stop", ended, "--worker", "1", "--at", "2X5").startswith("'2X5' is not an action; one looks like")
    assert sorted(path.name for path in ended.iterdir()) == before


def test_workers_that_are_threads_cannot_fail(tmp_path: Path) -> None:
    answers: list[str] = []

    def ask() -> None:
        try:
            answers.append(inject_fault(tmp_path / "run", "kill", worker=1))
        except Refused as refusal:
            answers.append(str(refusal))

    asking = threading.Thread(target=ask)
    slow = Fault(what="slow", step=1, steps=1000, seconds=0.005)
    run = Run.prepare(digits_job(stages=2), Where(local=True), faults={0: slow})
    run_dir = RunDir.create(tmp_path / "run", run.spec)
    for row in run.rows(run_dir):
        if row.step == 2 and not asking.ident:
            asking.start()
        if answers:
            run.stop()
    asking.join()
    run_dir.close()
    assert answers == ["the workers are threads of one process (--local)"]


def test_a_campaign_is_printed_before_anything_runs(ended: Path, tmp_path: Path) -> None:
    arguments = ("chaos", "soak", ended / "job.yaml", "--faults", "7", "--seed", "3", "--dry-run")
    first, again = pipetrain_here(*arguments), pipetrain_here(*arguments)
    assert (first.returncode, first.stderr) == (0, "")
    heading, *rows = first.stdout.splitlines()
    assert heading.split() == ["#", "fault", "worker", "step", "before"]
    assert [row.split()[0] for row in rows] == [*"1234567"]
    assert again.stdout == first.stdout


def test_a_soak_sees_every_difference_and_every_file_that_is_left(ended: Path, tmp_path: Path) -> None:
    import shutil

    other = shutil.copytree(ended, tmp_path / "other")
    assert list(differences(ended, other)) == []
    assert left_in(other) == []
    (last,) = (other / "checkpoints").iterdir()
    momentum = last / "layer-0.safetensors"
    momentum.write_bytes(momentum.read_bytes()[:-1] + b"!")
    rows = (other / "metrics.jsonl").read_text().splitlines()
    row = json.loads(rows[3])
    rows[3] = json.dumps({**row, "loss": row["loss"] + 1e-9})
    (other / "metrics.jsonl").write_text("\n".join([*rows, rows[-1]]))
    (other / "checkpoints" / ".step-00000007-ab").mkdir()
    (other / "checkpoints" / ".step-00000007-ab" / "layer-0.safetensors").touch()
    (other / ".model.safetensors.part").touch()
    found = list(differences(ended, other))
    assert found[0] == f"{last.name}/layer-0.safetensors differs"
    assert found[1].startswith("metrics.jsonl has ")
    assert found[2].startswith("metrics.jsonl: {'kind': 'step', 'step': 4, ")
    assert len(left_in(other)) == 3


def test_the_report_names_what_came_of_each_fault() -> None:
    one = Outcome(number="1", kind="kill", worker=2, step=7, point="2B5", struck=True, found_s=0.11, replaced_s=2.5,
                  steps_lost=3, identical=True)  # fmt: skip
    two = Outcome(number="2", kind="oom", worker=0, step=9, point="update")
    report = SoakReport(
        job="digits", seed=3, folder=Path("runs/x"), steps=28, undisturbed_s=2, disturbed_s=9, faults=(one, two),
        differences=(), left=("/dev/shm/x is left",),
    )  # fmt: skip
    heading, first, second, *rest = report_lines(report)
    assert first.split() == [*["1", "kill", "2", "7", "2B5", "0.11", "s", "2.50", "s", "3", "yes"]]
    assert second.split() == [*["2", "oom", "0", "9", "update", "did", "not", "strike"]]
    assert "found after" in heading
    assert [line.split() for line in rest[:5]] == [
        [],
        ["fault", "replaced", "found", "after", "at", "most", "replaced", "after", "at", "most", "lost"],
        ["kill", "1", "1", "0.11", "s", "0.11", "s", "2.50", "s", "2.50", "s", "3"],
        ["oom", "1", "0", "0"],
        [],
    ]
    assert rest[5:] == [
        "1 fault of 2 struck, 1 worker replaced; 28 steps in 9.0 s, undisturbed 2.0 s",
        "/dev/shm/x is left",
        "identical, but NOT everything is gone",
        "report: runs/x/soak.json",
    ]
    assert not report.ok


def test_a_fault_strikes_in_so_many_processes_and_leaves_a_mark_each(tmp_path: Path) -> None:
    fault = Fault(what="corrupt", step=3, action="1F0", times=2, id="a")
    assert [claim(tmp_path, 1, fault, 3, "1F0", ()) for _ in range(3)] == [True, True, False]
    assert claim(tmp_path, 0, fault, 3, "0F0", ()), "it is another worker's"
    assert [(mark.worker, mark.kind, mark.detail) for mark in marks(tmp_path).values()] == [
        (1, "corrupt", "there was no checkpoint yet"),
        (1, "corrupt", "there was no checkpoint yet"),
        (0, "corrupt", "there was no checkpoint yet"),
    ]

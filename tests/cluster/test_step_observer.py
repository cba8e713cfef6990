"""A run's files about its steps: complete accounts, a timeline, and traces that are bounded and do not end the job."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from cluster.run import step_observer
from cluster.run.run_dir import RunDir
from cluster.run.training import Run, Where
from coordinator.job.spec import JobSpec
from coordinator.run_files import TRACE_REQUEST
from coordinator.trace.chrome_trace import GrowingTrace
from coordinator.train.rows import TrainedStep
from tests.jobs import PIPETRAIN, digits_job


def _train(spec: JobSpec, folder: Path, trace_steps: int = 0) -> tuple[list[TrainedStep], list[dict[str, Any]]]:
    run = Run.prepare(spec, Where(local=True), trace_steps=trace_steps)
    with contextlib.closing(RunDir.create(folder, spec)) as run_dir:
        rows = [row for row in run.rows(run_dir) if isinstance(row, TrainedStep)]
    return rows, [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def test_the_accounts_end_with_all_that_was_done(tmp_path: Path) -> None:
    rows, _ = _train(digits_job(stages=2), tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "accounts.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines]
    assert steps == sorted(steps)
    assert steps[-1] == len(rows)
    before, last = rows[-1].accounts, lines[-1]
    assert before is not None
    for worker in range(2):
        assert last["wall_us"][worker] > before["wall_us"][worker]
        assert last["worker_us"][worker][2] > before["worker_us"][worker][2], "the evaluation after the last step"
    assert last["predicted"] is not None


def test_a_trace_is_bounded_and_says_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_observer, "MOST_ACTIONS", 3 * 2 * 8 * 3)
    _, events = _train(digits_job(stages=2), tmp_path / "run", trace_steps=20)
    (saved,) = [event for event in events if event["event"] == "trace saved"]
    assert (saved["first"], saved["steps"]) == (1, 3)


def test_a_request_that_stands_there_at_the_beginning_is_met_and_answered_by_its_id(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / TRACE_REQUEST).write_text(json.dumps({"steps": 2, "id": "abc"}))
    _, events = _train(digits_job(stages=2), folder)
    (saved,) = [event for event in events if event["event"] == "trace saved"]
    assert (saved["id"], saved["first"], saved["steps"]) == ("abc", 1, 2)
    assert not (folder / TRACE_REQUEST).exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"steps": "many", "id": "a"}', '{"steps": 1}'])
def test_a_request_that_is_none_is_put_away(tmp_path: Path, content: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / TRACE_REQUEST).write_text(content)
    _, events = _train(digits_job(stages=1), folder)
    assert events[-1]["event"] == "finished"
    assert not [event for event in events if event["event"].startswith("trace")]
    assert not (folder / TRACE_REQUEST).exists()


def test_a_trace_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / ".trace.json.part").mkdir(parents=True)
    _, events = _train(digits_job(stages=2), folder, trace_steps=2)
    assert [event["event"] for event in events][-2:] == ["trace not saved", "finished"]
    assert "IsADirectoryError" in events[-2]["cause"]


def test_a_run_that_is_killed_leaves_a_trace_of_the_steps_made_so_far(tmp_path: Path) -> None:
    """A killed process leaves a JSON array of events without its end, which trace viewers can open."""
    job, run = tmp_path / "job.yaml", tmp_path / "run"
    job.write_text(digits_job(stages=2).replace(training__epochs=100_000).to_yaml())
    command = [PIPETRAIN, "train", str(job), "--local", "--run-dir", str(run), "--trace", "100000"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while b'"step":3' not in (file.read_bytes() if (file := run / "trace.json").exists() else b""):
            assert process.poll() is None, "the process has ended"
            assert time.monotonic() < deadline, "no step was traced"
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait(60)
    text = (run / "trace.json").read_text()
    assert text.startswith("[")
    assert not text.rstrip().endswith("]"), "the trace is cut off"
    whole = text[: text.rindex("\n")].rstrip(",") + "]"  # an event in each line; the last line may be cut off
    events = json.loads(whole)
    names = {event["args"]["name"] for event in events if event["ph"] == "M" and "name" in event["args"]}
    assert {"digits-test measured", "worker 0", "worker 1"} <= names
    actions: dict[int, list[str]] = {}
    for event in events:
        if event["ph"] == "X":
            actions.setdefault(event["args"]["step"], []).append(event["name"])
    assert list(actions) == list(range(1, len(actions) + 1))
    assert len(actions) >= 3
    assert all(len(actions[step]) == 2 * 8 * 3 for step in list(actions)[:-1]), "whole steps: F, I and W"


def test_a_second_trace_takes_the_place_of_the_first_when_its_first_step_is_there(tmp_path: Path) -> None:
    with contextlib.closing(RunDir.create(tmp_path / "run", digits_job())) as run_dir:
        with run_dir.begin_trace() as file:
            file.write(b"first")
            file.flush()
            run_dir.show_trace()
        with run_dir.begin_trace() as file:
            assert (tmp_path / "run" / "trace.json").read_bytes() == b"first"
            file.write(b"second")
            file.flush()
            run_dir.show_trace()
            file.write(b" and more")
    assert (tmp_path / "run" / "trace.json").read_bytes() == b"second and more"


def test_a_trace_for_which_room_ends_is_given_up_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(trace: GrowingTrace, *step: Any) -> None:
        if next(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        add(trace, *step)

    add, calls = GrowingTrace.add, itertools.count(1)
    monkeypatch.setattr(GrowingTrace, "add", full)
    _, events = _train(digits_job(stages=2), tmp_path / "run", trace_steps=5)
    assert [event["event"] for event in events][-2:] == ["trace not saved", "finished"]
    assert "No space left on device" in events[-2]["cause"]
    cut = json.loads((tmp_path / "run" / "trace.json").read_text() + "]")
    assert {event["args"]["step"] for event in cut if event["ph"] == "X"} == {1, 2}


def test_a_run_that_ends_before_a_trace_is_complete_saves_what_there_is(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / TRACE_REQUEST).write_text(json.dumps({"steps": 10_000, "id": "long"}))
    rows, events = _train(digits_job(stages=2), folder)
    (saved,) = [event for event in events if event["event"] == "trace saved"]
    assert saved["steps"] == len(rows)

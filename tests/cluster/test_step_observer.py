"""What a run leaves of its steps: accounts to the end, a picture, traces that are bounded and harm nobody."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from cluster import step_observer
from cluster.run_dir import TRACE_REQUEST, RunDir
from cluster.training import Run, Where
from coordinator.job import JobSpec
from coordinator.rows import TrainedStep
from tests.jobs import digits_job


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


def test_a_run_that_ends_before_a_trace_is_complete_saves_what_there_is(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / TRACE_REQUEST).write_text(json.dumps({"steps": 10_000, "id": "long"}))
    rows, events = _train(digits_job(stages=2), folder)
    (saved,) = [event for event in events if event["event"] == "trace saved"]
    assert saved["steps"] == len(rows)

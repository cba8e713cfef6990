"""Traces on request: of a running job, of a waiting job, and the errors if there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stages.errors import Refused, UserMistake
from tests.service.conftest import JobMaker
from tests.service.running import Service, until


def _measured_steps(file: Path) -> list[int]:
    events = json.loads(file.read_text())
    measured = {e["pid"] for e in events if e["name"] == "process_name" and " measured" in e["args"]["name"]}
    return sorted({e["args"]["step"] for e in events if e["ph"] == "X" and e["pid"] in measured})


def test_a_job_that_runs_records_its_next_steps_again_and_again(
    service: Service, small: JobMaker, tmp_path: Path
) -> None:
    job = until(service.client.submit(small(100_000, pipeline__stages=2)), "RUNNING")
    try:
        first = _measured_steps(job.trace(tmp_path / "first", steps=5))
        assert first == list(range(first[0], first[0] + 5))
        done = service.run("trace", job.id[:6], "--steps", "3", "-o", tmp_path / "second.json")
        assert done.returncode == 0, done.stderr
        second = _measured_steps(tmp_path / "second.json")
        assert len(second) == 3
        assert second[0] > first[-1]
        assert _measured_steps(job.trace(tmp_path / "last")) == second, "without steps: the last saved trace"
        with pytest.raises(UserMistake, match="must be from 1 to"):
            job.request_trace(20_000)
        there = service.run("trace", job.id, "--steps", "2", "-o", "/proc/no/trace.json")
        assert (there.returncode, len(there.stderr.splitlines())) == (2, 1)
    finally:
        job.stop(now=True).wait(timeout=120)
    with pytest.raises(Refused, match="is STOPPED; only steps that are still to be made"):
        job.trace(tmp_path, steps=1)


def test_a_job_that_waits_records_its_first_steps(service: Service, small: JobMaker, tmp_path: Path) -> None:
    blocker = until(service.client.submit(small(100_000, pipeline__stages=2)), "RUNNING")
    job = service.client.submit(small(3, pipeline__stages=2))
    job.request_trace(4)
    with pytest.raises(Refused, match="already has a request for a trace"):
        job.request_trace(4)
    blocker.stop(now=True).wait(timeout=120)
    job.wait(timeout=120, check=True)
    assert _measured_steps(job.trace(tmp_path)) == [1, 2, 3, 4]
    assert [event.kind for event in job.events()].count("trace saved") == 1


def test_a_job_without_a_trace_says_so(service: Service, small: JobMaker, tmp_path: Path) -> None:
    job = service.client.submit(small(1)).wait(timeout=120)
    with pytest.raises(Refused, match="has saved no trace"):
        job.trace(tmp_path)

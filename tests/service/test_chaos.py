"""A fault on request in a job of a real service: the worker is replaced, and the job's page can show it."""

from __future__ import annotations

import re

import pytest

from stages.errors import Refused
from tests.service.conftest import JobMaker
from tests.service.running import Service, until


def test_a_worker_of_a_job_is_killed_on_request_and_replaced(service: Service, small: JobMaker) -> None:
    job = until(service.client.submit(small(100_000, pipeline__stages=2)), "RUNNING")
    try:
        done = service.run("chaos", "kill", job.id[:6], "--worker", "1", "--at", "1B1")
        assert (done.returncode, done.stdout) == (0, "chaos: planned: kill of worker 1 before the next 1B1\n"), done
        for update in job.watch(rows=False, timeout=300):
            if any(event.kind == "recovered" for event in update.events):
                break
        story = [
            event for event in job.events() if event.kind in ("fault planned", "fault", "worker lost", "recovered")
        ]
        assert [event.kind for event in story] == ["fault planned", "fault", "worker lost", "recovered"]
        assert re.fullmatch(r"chaos: kill of worker 1 before 1B1 of step \d+", story[1].text)
        assert story[2].details["fault"] == story[1].details["id"]
        again = service.run("chaos", "kill", job.id, "--worker", "1", "--at", "1B1", "--step", "1")
        assert (again.returncode, again.stdout) == (2, "")
        assert re.fullmatch(r"error: step 1 is past: [\d,]+ steps are made\n", again.stderr)
        with pytest.raises(Refused, match="worker 2: the job has workers 0 to 1"):
            job.inject_fault("stop", worker=2)
    finally:
        job.stop(now=True).wait(timeout=120)
    steps = [row.step for row in job.steps()]
    assert steps == list(range(1, len(steps) + 1)), "the store has each row once"
    with pytest.raises(Refused, match="is STOPPED; only a job that is RUNNING can have a fault"):
        job.inject_fault("kill", worker=0)

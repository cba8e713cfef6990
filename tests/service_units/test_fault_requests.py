"""Requests for faults of the service's jobs: only running ones have them, and the runner's answer is the caller's."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from cluster.service.chaos import inject_fault
from cluster.wire import pipetrain_pb2 as pb
from coordinator.run_files import FAULT_REQUEST
from stages.errors import Refused, UserMistake
from tests.service_units.scripted_ray import Scene, play


def asked(**entries: Any) -> pb.FaultRequest:
    return pb.FaultRequest(**{"id": "a", "kind": "kill", "worker": 1, "steps": 1, **entries})


async def _request(made: Scene) -> dict[str, Any]:
    """Return the request that the job's run directory gets."""
    path = made.home.run_directory("a") / FAULT_REQUEST
    while not path.exists():
        await asyncio.sleep(0.01)
    request: dict[str, Any] = json.loads(path.read_text())
    path.unlink()
    return request


def test_the_answer_of_the_run_is_that_of_the_service(tmp_path: Path) -> None:
    async def script(made: Scene) -> None:
        runner = await made.run("a")
        call = asyncio.create_task(inject_fault(made.jobs, "a", asked(at="1B0", step=7)))
        request = await _request(made)
        assert {key: request[key] for key in ("what", "worker", "at", "step")} == {
            "what": "kill",
            "worker": 1,
            "at": "1B0",
            "step": 7,
        }
        runner.tells("fault planned", id=request["id"], kind="kill", worker=1, point="1B0", step=7)
        assert await call == "chaos: planned: kill of worker 1 before 1B0 of step 7"
        call = asyncio.create_task(inject_fault(made.jobs, "a", asked(worker=9)))
        runner.tells("fault refused", id=(await _request(made))["id"], cause="worker 9: the job has worker 0 only")
        with pytest.raises(Refused, match="worker 9: the job has worker 0 only"):
            await call
        call = asyncio.create_task(inject_fault(made.jobs, "a", asked()))
        await _request(made)
        runner.tells("finished", step=10)
        with pytest.raises(Refused, match="job a ended before it took the request"):
            await call

    play(tmp_path, script)


def test_a_job_that_does_not_run_has_no_fault(tmp_path: Path) -> None:
    async def script(made: Scene) -> None:
        runner = await made.run("a")
        with pytest.raises(UserMistake, match=r"'kil' is no kind of fault; .*did you mean kill"):
            await inject_fault(made.jobs, "a", asked(kind="kil"))
        first = asyncio.create_task(inject_fault(made.jobs, "a", asked()))
        while not (made.home.run_directory("a") / FAULT_REQUEST).exists():
            await asyncio.sleep(0.01)
        with pytest.raises(Refused, match="job a already has a request for a fault"):
            await inject_fault(made.jobs, "a", asked())
        first.cancel()
        runner.tells("finished", step=10)
        await made.until_state("a", "SUCCEEDED")
        with pytest.raises(Refused, match="job a is SUCCEEDED; only a job that is RUNNING can have a fault"):
            await inject_fault(made.jobs, "a", asked())

    play(tmp_path, script)

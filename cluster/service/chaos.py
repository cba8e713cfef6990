"""Faults on request. The job's runner reads the request from its run directory, and answers with an event."""

from __future__ import annotations

import asyncio
import contextlib

from cluster.run.fault_desk import put_request
from cluster.service.answers import answer_to
from cluster.service.jobs import Jobs
from cluster.wire import pipetrain_pb2 as pb
from coordinator import run_files
from coordinator.chaos.requests import request_of
from coordinator.chaos.story import PLANNED, REFUSED
from coordinator.queue.job_states import Running
from stages.errors import Refused

_WITHIN_S = 60.0


async def inject_fault(jobs: Jobs, job: str, message: pb.FaultRequest) -> str:
    """Let a running job have a fault; return what is planned as a line of text. Raises Refused, UserMistake."""
    at = message.at if message.HasField("at") else None
    step = message.step if message.HasField("step") else None
    request = request_of(message.kind, message.worker, at, step, message.seconds, message.steps)
    record = jobs.record(job)
    if not isinstance(record.state, Running):
        raise Refused(f"job {job} is {record.state.name}; only a job that is RUNNING can have a fault")
    folder = jobs.home.run_directory(job)
    if not await asyncio.to_thread(put_request, folder, request):
        raise Refused(f"job {job} already has a request for a fault; try again when that is answered")
    try:
        async with asyncio.timeout(_WITHIN_S):
            answer = await answer_to(jobs, job, request.id, (PLANNED, REFUSED))
    except TimeoutError:
        with contextlib.suppress(OSError):
            (folder / run_files.FAULT_REQUEST).unlink()
        raise Refused(f"job {job} did not take the request: it makes no step; try again") from None
    if answer is None:
        raise Refused(f"job {job} ended before it took the request")
    if answer.kind == REFUSED:
        raise Refused(str(answer.details["cause"]))
    return answer.text

"""Traces on request. The job's runner reads the request from its run directory, so it works without Ray's agent."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from pathlib import Path

from cluster.service.answers import answer_to
from cluster.service.jobs import Jobs
from coordinator import run_files
from stages.errors import Refused, UserMistake

MOST_STEPS = 10_000


async def ask_for_trace(jobs: Jobs, job: str, steps: int) -> str:
    """Request that a job records its next `steps` steps; return the request's id. Raises Refused, UserMistake."""
    if not 1 <= steps <= MOST_STEPS:
        raise UserMistake(f"steps: got {steps}, must be from 1 to {MOST_STEPS:,}")
    record = jobs.record(job)
    if record.state.ended:
        raise Refused(f"job {job} is {record.state.name}; only steps that are still to be made can be recorded")
    request = secrets.token_hex(8)
    if not await asyncio.to_thread(_put, jobs.home.run_directory(job), {"steps": steps, "id": request}):
        raise Refused(f"job {job} already has a request for a trace; try again when that trace is saved")
    return request


def _put(folder: Path, content: dict[str, object]) -> bool:
    """Write the request; return False if the job already has one."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / run_files.unfinished(f"{run_files.TRACE_REQUEST}.{content['id']}")
    try:
        temporary.write_text(json.dumps(content), encoding="ascii")
        os.link(temporary, folder / run_files.TRACE_REQUEST)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True


async def trace_saved(jobs: Jobs, job: str, request: str) -> None:
    """Wait until the job has saved the requested trace. Raises Refused if it could not, or ended before."""
    event = await answer_to(jobs, job, request, ("trace saved", "trace not saved"))
    if event is None:
        raise Refused(f"job {job} ended before it had made the steps to record")
    if event.kind == "trace not saved":
        raise Refused(f"job {job} could not save its trace: {event.details.get('cause', event.text)}")


def last_trace(jobs: Jobs, job: str) -> Path:
    """Return the file of the trace that the job saved last. Raises Refused if it has none."""
    file = jobs.home.run_directory(job) / run_files.TRACE
    if not file.exists():
        raise Refused(f"job {job} has saved no trace; `pipetrain trace {job} --steps 10` asks a running job for one")
    return file

"""/api: the pages' figures as JSON, described at /api/openapi.json."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Receive, Scope, Send

from cluster.dashboard import facts, models
from cluster.dashboard.job_list import SORTS, Filters, job_page
from cluster.dashboard.lab_view import LabQuestion, lab_thread, perform_lab, search_lab
from cluster.dashboard.schedule_view import Question, perform
from cluster.dashboard.site import Site
from cluster.dashboard.submission import resume_job, submit_text
from cluster.service.files import RUNNER
from cluster.service.job_stats import JobStats
from cluster.service.peers import is_remote_address
from cluster.service.records import JobRecord
from coordinator.job.limits import MAX_DOCUMENT_BYTES, MAX_PROBLEMS
from coordinator.job.nearest import did_you_mean
from coordinator.schedules import SCHEDULES
from coordinator.train.rows import SERIES
from stages.errors import Refused, UserMistake

JobId = Annotated[str, Path(description="id of a job, the beginning of one, or a name")]
_REFUSALS: dict[int | str, dict[str, Any]] = {
    401: {"model": models.Problems, "description": "the request would change something and has no token"},
    404: {"model": models.Problems, "description": "there is no such job; the problem names the nearest one"},
    409: {"model": models.Problems, "description": "not possible in the job's present state"},
    422: {
        "model": models.Problems,
        "description": "an unknown or wrong parameter, or mistakes in a job, with their lines",
    },
}
_NO_FILE = {**_REFUSALS[404], "description": "there is no such job, or it has no such file"}
_JOB_TEXT = {
    "requestBody": {
        "required": True,
        "description": "a job file; paths in it are those of the service's machine",
        "content": {kind: {"schema": {"type": "string"}} for kind in ("application/yaml", "application/json")},
    }
}


def make_routes(site: Site) -> APIRouter:
    """Return all routes below /api."""
    router = APIRouter(prefix="/api", responses={422: _REFUSALS[422]}, dependencies=[Depends(_known_parameters)])
    _reading(router, site)
    _files(router, site)
    _changing(router, site)
    return router


class NoRoute:
    """The app for requests that match none of `routes`: 405 if one of them matches with another method, else 404."""

    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        self._routes = [route for route in routes if isinstance(route, Route)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raise the HTTPException."""
        near = [route for route in self._routes if route.matches(scope)[0] is not Match.NONE]
        path, methods = scope["path"][:200], ", ".join(sorted({m for route in near for m in route.methods or ()}))
        if not near:
            raise HTTPException(404, f"{path}: no such path; GET /api/openapi.json describes all paths")
        raise HTTPException(405, f"{path}: got {scope['method']}, must be {methods}", {"Allow": methods})


def _known_parameters(request: Request) -> None:
    """Raise UserMistake with each query parameter that the route does not have: FastAPI would ignore it."""
    route = request.scope["route"]
    known = [field.alias for field in route.dependant.query_params]
    wrong = [name for name in dict.fromkeys(request.query_params.keys()) if name not in known]
    must = f"must be {', '.join(known)}" if known else "this path has none"
    if wrong:
        lines = [f"{name[:50]}: unknown parameter, {must}{did_you_mean(name, known)}" for name in wrong[:MAX_PROBLEMS]]
        more = len(wrong) - MAX_PROBLEMS
        raise UserMistake("\n".join([*lines, f"and {more:,} more problems"] if more > 0 else lines))


def _reading(router: APIRouter, site: Site) -> None:
    @router.get("/jobs")
    async def jobs(
        state: Annotated[list[str], Query(description="only jobs in these states")] = [],  # noqa: B006
        search: Annotated[str, Query(description="part of a name, or the beginning of an id")] = "",
        sort: Annotated[str, Query(description=f"one of {', '.join(SORTS)}; empty: newest first")] = "",
        descending: Annotated[bool, Query(description="sort the largest first")] = False,
        limit: Annotated[int, Query(description="jobs on a page, 1 to 500")] = 25,
        page: Annotated[int, Query(description="number of the page, from 0")] = 0,
    ) -> models.JobList:
        """List jobs, newest first unless `sort` is given."""
        filters = Filters(states=tuple(state), search=search, sort=sort, descending=descending, limit=limit, page=page)
        found = await job_page(site.jobs, filters)
        views = [site.jobs.view(record) for record in found.records]
        return models.JobList(jobs=list(map(facts.job_model, views)), total=found.total, counts=found.counts)

    @router.get("/jobs/{job}", responses={404: _REFUSALS[404]})
    async def job(job: JobId) -> models.Job:
        """Return one job."""
        return facts.job_model(site.jobs.view(await site.find(job)))

    @router.get("/jobs/{job}/rows", responses={404: _REFUSALS[404], 409: _REFUSALS[409]})
    async def rows(
        job: JobId,
        series: Annotated[list[str], Query(description="only these series")] = [],  # noqa: B006
    ) -> models.Rows:
        """Return the series of a job, such as its loss, accuracy, throughput and bubble: at most 1,000 points each."""
        return facts.rows_model(await _stats(site, await site.find(job)), _known_series(series))

    @router.get("/jobs/{job}/rows.csv", responses={404: _REFUSALS[404], 409: _REFUSALS[409]})
    async def csv(
        job: JobId,
        series: Annotated[list[str], Query(description="only these series")] = [],  # noqa: B006
        first: Annotated[int, Query(description="only from this step on")] = 1,
        last: Annotated[int, Query(description="only up to this step")] = 2**53,
    ) -> Response:
        """Return the series of a job as CSV: a column for the step and one for each series. A field is empty if the
        series has no point at that step."""
        record = await site.find(job)
        found = facts.rows_model(await _stats(site, record), _known_series(series))
        headers = {"Content-Disposition": f'attachment; filename="{record.name}-{record.id}.csv"'}
        return Response(facts.rows_csv(found, first, last), media_type="text/csv", headers=headers)

    @router.get("/jobs/{job}/accounts", responses={404: _REFUSALS[404], 409: _REFUSALS[409]})
    async def accounts(job: JobId) -> models.AttemptAccounts:
        """Return how every worker spent its wall time, up to the last step."""
        record = await site.find(job)
        stats = await _stats(site, record)
        found = facts.accounts_model(stats, await site.placement(record, stats))
        if found is None and stats.accounts is not None:
            raise Refused(f"job {record.id}: which worker holds which stage is not known yet")
        if found is None:
            raise Refused(f"job {record.id} has done no step yet")
        return found

    @router.get("/jobs/{job}/survival", responses={404: _REFUSALS[404], 409: _REFUSALS[409]})
    async def survival(job: JobId) -> models.Survival:
        """Return the checkpoints of a job, the workers that it lost, and how it went on."""
        return facts.survival_model((await _stats(site, await site.find(job))).survival)

    @router.get("/jobs/{job}/timeline", responses={404: _REFUSALS[404], 409: _REFUSALS[409]})
    async def timeline(job: JobId) -> models.Timeline:
        """Return a sampled step, about the last one: the measured actions of every worker, and those of the schedule's
        dry run."""
        record = await site.find(job)
        content = (await _stats(site, record)).timeline
        if content is None:
            raise Refused(f"job {record.id} has no timeline yet")
        return facts.timeline_model(content)

    @router.get("/jobs/{job}/events", responses={404: _REFUSALS[404]})
    async def events(
        job: JobId, after: Annotated[int, Query(ge=0, lt=2**63, description="only events after this number")] = 0
    ) -> list[models.Event]:
        """Return the events of a job, in order."""
        record = await site.find(job)
        return [
            models.Event(seq=e.seq, time=e.time, kind=e.kind, attempt=e.attempt, text=e.text)
            for e in await site.events(record.id, after)
        ]

    @router.get("/jobs/{job}/logs", responses={404: _REFUSALS[404]})
    async def logs(
        job: JobId,
        worker: Annotated[str | None, Query(description="only this process: a worker's number, or runner (-1)")] = None,
        tail: Annotated[int, Query(ge=1, le=10_000, description="number of the last lines of each process")] = 200,
    ) -> list[models.LogLine]:
        """Return the last lines of output of a job's processes."""
        found = await site.logs(await site.find(job), _worker(worker), tail)
        return [models.LogLine(worker=number, text=text) for number, text in found]

    @router.get("/cluster")
    async def cluster() -> models.Cluster:
        """Return the service, its nodes, and the jobs that run or wait."""
        return await cluster_model(site)

    @router.get("/schedule", response_model=models.Schedule)
    async def schedule(
        schedule: Annotated[str, Query(description=f"one of {', '.join(SCHEDULES)}")] = "1f1b",
        stages: Annotated[int, Query(description="number of stages")] = 4,
        micro_batches: Annotated[int, Query(description="number of micro-batches")] = 8,
        workers: Annotated[int, Query(description="number of workers; 0: the schedule's default")] = 0,
        backward: Annotated[float, Query(description="time of I and of W, in forward passes")] = 1.0,
    ) -> Response:
        """Return the dry run of a schedule, with its bubble and the micro-batches that it keeps in memory."""
        question = Question(schedule, stages, micro_batches, workers, backward)
        return Response(await asyncio.to_thread(_performed, question), media_type="application/json")

    @router.get("/lab", response_model=models.Lab, responses={409: _REFUSALS[409]})
    async def lab(
        stages: Annotated[int, Query(description="number of stages, one a worker")] = 8,
        micro_batches: Annotated[int, Query(description="number of micro-batches")] = 32,
        forward: Annotated[float, Query(description="time of F of a worker's layers, in any unit")] = 1.0,
        input_gradient: Annotated[float, Query(description="time of I")] = 1.0,
        weight_gradient: Annotated[float, Query(description="time of W")] = 1.0,
        latency: Annotated[float, Query(description="time of an array from one worker to the next")] = 0.0,
        memory: Annotated[float, Query(description="most micro-batches that a worker can keep; 0: any")] = 0.0,
        search: Annotated[bool, Query(description="search for a still better schedule, too")] = False,
    ) -> Response:
        """Compare all schedules: step time, bubble, memory and messages."""
        question = LabQuestion(stages, micro_batches, forward, input_gradient, weight_gradient, latency, memory)
        compute = search_lab if search else perform_lab
        found = await lab_thread.run(lambda: compute(question))
        return Response(models.Lab(**found.document).model_dump_json(), media_type="application/json")


def _files(router: APIRouter, site: Site) -> None:
    @router.get("/jobs/{job}/files", responses={404: _REFUSALS[404]})
    async def files(job: JobId) -> list[models.File]:
        """List the files of a job's run directory."""
        record = await site.find(job)
        return [models.File(path=path, size=size) for path, size in await site.files(record.id)]

    @router.get("/jobs/{job}/files/{path:path}", responses={404: _NO_FILE})
    async def file(job: JobId, path: str) -> StreamingResponse:
        """Return one file of a job's run directory."""
        record = await site.find(job)
        size, content = await site.open_file(record.id, path)
        name = f"{record.name}-{record.id}-{path.replace('/', '-')}"
        headers = {
            "Content-Length": str(size),
            "Content-Disposition": f'attachment; filename="{name}"',
        }
        return StreamingResponse(content, media_type="application/octet-stream", headers=headers)


def _changing(router: APIRouter, site: Site) -> None:
    refusals: dict[int | str, dict[str, Any]] = {status: _REFUSALS[status] for status in (401, 404, 409)}

    @router.post(
        "/jobs", status_code=201, responses={401: _REFUSALS[401], 409: _REFUSALS[409]}, openapi_extra=_JOB_TEXT
    )
    async def submit(
        request: Request,
        name: Annotated[str, Query(description="replaces the name in the job file")] = "",
        priority: Annotated[int, Query(description="jobs of a higher priority start first; −1000 to 1000")] = 0,
        submission_id: Annotated[str, Query(description="submitting again with it returns the same job")] = "",
        preempt: Annotated[bool, Query(description="running jobs of a lower priority make room for it")] = False,
    ) -> models.Job:
        """Submit the job file in the body."""
        text = await _text(request)
        stored = await submit_text(
            site.api,
            text,
            name=name,
            priority=priority,
            submission_id=submission_id,
            preempt=preempt,
            remote=_is_remote(request),
        )
        return facts.job_model(site.jobs.view(stored))

    @router.post("/jobs/{job}/resume", status_code=201, responses=refusals)
    async def resume(job: JobId, request: Request, wanted: models.ResumeRequest | None = None) -> models.Job:
        """Submit a new job that goes on from the newest checkpoint of a job that has ended."""
        found, wanted = await site.find(job), wanted or models.ResumeRequest()
        stored = await resume_job(
            site,
            found.id,
            wanted.changes,
            priority=wanted.priority,
            preempt=wanted.preempt,
            remote=_is_remote(request),
        )
        return facts.job_model(site.jobs.view(stored))

    @router.post("/jobs/{job}/stop", responses=refusals)
    async def stop(job: JobId, request: models.StopRequest | None = None) -> models.Job:
        """Request that a job stops. A job that has ended stays as it is."""
        asked = request or models.StopRequest()
        record = await site.jobs.stop((await site.find(job)).id, asked.now, asked.grace)
        return facts.job_model(site.jobs.view(record))

    @router.delete("/jobs/{job}", responses=refusals)
    async def delete(job: JobId) -> models.Deleted:
        """Delete a job that has ended, with its run directory."""
        record = await site.find(job)
        await site.jobs.delete(record.id)
        return models.Deleted(id=record.id)

    @router.post("/jobs/{job}/trace", status_code=202, responses=refusals)
    async def trace(job: JobId, request: models.TraceRequest | None = None) -> models.TraceRequested:
        """Request a trace of a job's next steps."""
        wanted = request or models.TraceRequest()
        return models.TraceRequested(id=await site.trace(job, wanted.steps), steps=wanted.steps)


def _is_remote(request: Request) -> bool:
    return is_remote_address(request.client.host if request.client else None)


async def cluster_model(site: Site) -> models.Cluster:
    """Return the present state of the service and its cluster."""
    jobs, keeper = site.jobs, site.keeper
    counts = await asyncio.to_thread(jobs.store.counts)
    return models.Cluster(
        version=version("pipetrain"),
        ray=keeper.state,
        ray_address=keeper.ray_address,
        nodes=[models.Node(**{key: node[key] for key in models.Node.model_fields}) for node in jobs.nodes],
        counts=counts,
        active=[facts.job_model(jobs.view(record)) for record in jobs.active()],
        waiting=[facts.job_model(jobs.view(record)) for record in jobs.waiting(20)],
        max_queued=jobs.max_queued,
    )


def _known_series(names: Sequence[str]) -> Sequence[str]:
    """Return the names. Raises UserMistake if one is no series."""
    wrong = [name for name in names if name not in SERIES]
    if wrong:
        raise UserMistake(f"series: got {wrong[0][:50]}, must be one of {', '.join(SERIES)}")
    return names


def _worker(text: str | None) -> int | None:
    if text is None or text == "runner":
        return None if text is None else RUNNER
    if not re.fullmatch(r"-1|[0-9]{1,7}", text):
        raise UserMistake(f"worker: got {text[:50]!r}, must be a worker's number, such as 0, or runner")
    return int(text)


def _performed(question: Question) -> str:
    return facts.schedule_model(question, perform(question)).model_dump_json()


async def _stats(site: Site, record: JobRecord) -> JobStats:
    stats = await site.archive.stats(record)
    if stats is None:
        raise Refused(f"job {record.id} is {record.state.name}; it has not started yet")
    return stats


async def _text(request: Request) -> str:
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > MAX_DOCUMENT_BYTES:
            raise UserMistake(f"the body has more than {MAX_DOCUMENT_BYTES:,} bytes, the most that a job may have")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserMistake("the body is not text in UTF-8, so it is no job file") from None

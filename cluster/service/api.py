"""The gRPC interface: checks requests, and turns results into answers. Other modules do the work."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from cluster.checkpoints.at_url import require_target
from cluster.data.rules import local_files, require_rules
from cluster.service.chaos import inject_fault
from cluster.service.entry import Entry
from cluster.service.files import file_parts, files_to_fetch, log_lines, require_worker
from cluster.service.going_on import drop_checkpoints, require_resumable, take_checkpoints
from cluster.service.health import Health
from cluster.service.job_ids import new_job_id
from cluster.service.jobs import Jobs
from cluster.service.listing import Listing
from cluster.service.messages import grace_of, job_message
from cluster.service.outside import Outside
from cluster.service.peers import is_remote_peer
from cluster.service.planning import choose_settings, plan_job, schedule_workers, wrong_paths
from cluster.service.problems import errors_as_status
from cluster.service.ray_keeper import RayKeeper
from cluster.service.records import JobDocument, JobRecord
from cluster.service.stats_message import stats_message
from cluster.service.traces import ask_for_trace, last_trace, trace_saved
from cluster.service.uploads import PART_BYTES, Uploads, upload_path
from cluster.service.watch import Watcher
from cluster.trackers import require_trackers, require_tracking
from cluster.wire import pipetrain_pb2 as pb
from cluster.wire.convert import state_name
from coordinator.job.checkpoint_section import CheckpointSection
from coordinator.job.limits import document_problem, encodable
from coordinator.job.resuming import AUTO_REFUSED
from coordinator.job.spec import JobSpec, parse_job
from coordinator.plan.layout import Room, layout_without_data, workers_with_room
from coordinator.queue.job_queue import Needs
from coordinator.queue.job_states import Queued
from coordinator.texts import counted, size
from stages.errors import InvalidJob, Refused, UserMistake

_STATS_AT_ONCE = 100
_MOST_PRIORITY = 1000
_UPLOAD_SILENCE_S = 60.0
_LARGE_DOCUMENT = 64 * 1024  # characters; larger documents are parsed in a thread


class Api:
    """The methods of the service `pipetrain.v1.Pipetrain`."""

    def __init__(self, jobs: Jobs, keeper: RayKeeper, uploads: Uploads, outside: Outside) -> None:
        self._jobs, self._keeper, self._uploads, self._outside = jobs, keeper, uploads, outside
        self._listing, self.health = Listing(jobs), Health(jobs, keeper)
        self._started_at = time.time()

    async def Submit(self, request: pb.SubmitRequest, context: Any) -> pb.Job:
        """See the .proto for this method and the following ones."""
        async with errors_as_status(context):
            spec = await self._spec(request.document, request.name if request.HasField("name") else None)
            stored, document = await self.take_in(
                spec,
                files=dict(request.files),
                priority=request.priority,
                submission_id=request.submission_id,
                force=request.force,
                resume=request.resume,
                preempt=request.preempt,
                remote=is_remote_peer(context.peer()),
            )
            return job_message(self._jobs.view(stored), document)
        raise AssertionError("errors_as_status ends the call")

    async def Get(self, request: pb.GetRequest, context: Any) -> pb.Job:
        async with errors_as_status(context):
            job = await self._jobs.find(request.id)
            record = self._jobs.record(job)
            return job_message(self._jobs.view(record), self._jobs.store.document(job), whole=True)
        raise AssertionError("errors_as_status ends the call")

    async def List(self, request: pb.ListRequest, context: Any) -> AsyncIterator[bytes]:
        async with errors_as_status(context):
            states = [state_name(state) for state in request.states]
            if request.limit < 0:
                raise UserMistake(f"limit: got {request.limit}, must be at least 0")
            async for part in self._listing.parts(states, request.name, request.limit):
                yield part
                await asyncio.sleep(0)  # let shorter calls run in between

    async def Watch(self, request: pb.WatchRequest, context: Any) -> AsyncIterator[bytes]:
        async with errors_as_status(context):
            watcher = Watcher(self._jobs, await self._jobs.find(request.id), request)
            async for update in watcher.updates():
                yield update

    async def Logs(self, request: pb.LogsRequest, context: Any) -> AsyncIterator[pb.LogChunk]:
        async with errors_as_status(context):
            job = await self._jobs.find(request.id)
            worker = request.worker if request.HasField("worker") else None
            record = self._jobs.record(job)
            require_worker(record, worker)
            entry = self._jobs.entries.get(job) or Entry(record)
            folder = self._jobs.home.run_directory(job)
            lines = log_lines(folder, entry, worker=worker, follow=request.follow, tail=request.tail)
            async for number, text in lines:
                yield pb.LogChunk(worker=number, text=text)

    async def Stop(self, request: pb.StopRequest, context: Any) -> pb.Job:
        async with errors_as_status(context):
            record = await self._jobs.stop(await self._jobs.find(request.id), request.now, grace_of(request))
            return job_message(self._jobs.view(record))
        raise AssertionError("errors_as_status ends the call")

    async def Delete(self, request: pb.DeleteRequest, context: Any) -> pb.DeleteResponse:
        async with errors_as_status(context):
            job = await self._jobs.find(request.id)
            await self._jobs.delete(job)
            return pb.DeleteResponse(id=job)
        raise AssertionError("errors_as_status ends the call")

    async def Fetch(self, request: pb.FetchRequest, context: Any) -> AsyncIterator[pb.FetchChunk]:
        async with errors_as_status(context):
            job = await self._jobs.find(request.id)
            folder = self._jobs.home.run_directory(job)
            try:
                files = files_to_fetch(folder, model=request.what == pb.FetchRequest.MODEL)
            except Refused as error:
                raise Refused(f"job {job} is {self._jobs.record(job).state.name}: {error}") from None
            async for chunk in self._chunks(job, files):
                yield chunk

    async def Trace(self, request: pb.TraceRequest, context: Any) -> AsyncIterator[pb.FetchChunk]:
        async with errors_as_status(context):
            job = await self._jobs.find(request.id)
            if request.steps:
                asked = await ask_for_trace(self._jobs, job, request.steps)
                if request.only_ask:
                    return
                await trace_saved(self._jobs, job, asked)
            async for chunk in self._chunks(job, [last_trace(self._jobs, job)]):
                yield chunk

    async def InjectFault(self, request: pb.FaultRequest, context: Any) -> pb.FaultResponse:
        async with errors_as_status(context):
            return pb.FaultResponse(text=await inject_fault(self._jobs, await self._jobs.find(request.id), request))
        raise AssertionError("errors_as_status ends the call")

    async def UploadData(self, requests: AsyncIterator[pb.UploadRequest], context: Any) -> pb.UploadResponse:
        async with errors_as_status(context):
            first = await _next(requests)
            if first is None or not first.HasField("header"):
                raise UserMistake("header: missing, the first message must be one")
            header = first.header
            received, complete = await self._uploads.take(
                header.sha256, header.size, header.extension, header.offset, _parts(requests)
            )
            return pb.UploadResponse(received=received, complete=complete)
        raise AssertionError("errors_as_status ends the call")

    async def Plan(self, request: pb.PlanRequest, context: Any) -> pb.PlanResponse:
        async with errors_as_status(context):
            spec = await self._spec(request.document, None)
            self._require_files(request.files)
            plan, refusals = await self.plan(spec, request.files, remote=is_remote_peer(context.peer()))
            return pb.PlanResponse(plan=plan, refusals=refusals)
        raise AssertionError("errors_as_status ends the call")

    async def Stats(self, request: pb.StatsRequest, context: Any) -> pb.StatsResponse:
        async with errors_as_status(context):
            if len(request.ids) > _STATS_AT_ONCE:
                raise UserMistake(f"ids: got {len(request.ids)} of them, must be at most {_STATS_AT_ONCE}")
            found = [self._jobs.board.jobs[job] for job in request.ids if job in self._jobs.board.jobs]
            return pb.StatsResponse(jobs=map(stats_message, found))
        raise AssertionError("errors_as_status ends the call")

    async def Cluster(self, request: pb.ClusterRequest, context: Any) -> pb.ClusterState:
        async with errors_as_status(context):
            jobs, keeper = self._jobs, self._keeper
            nodes = [
                pb.Node(
                    id=node["id"],
                    host=node["host"],
                    address=node["address"],
                    alive=True,
                    cpus=node["cpus"],
                    cpus_used=node["cpus_used"],
                    memory=node["memory"],
                    memory_used=node["memory_used"],
                )
                for node in jobs.nodes
            ]
            return pb.ClusterState(
                version=version("pipetrain"),
                started_at=self._started_at,
                ray=keeper.state,
                ray_address=keeper.ray_address,
                nodes=nodes,
                jobs=await asyncio.to_thread(jobs.store.counts),
                active=[job_message(jobs.view(record)) for record in jobs.active()],
                waiting=[job_message(jobs.view(record)) for record in jobs.waiting(20)],
                max_queued=jobs.max_queued,
                home=str(jobs.home.folder),
                problems=(await self.health.look())["problems"],
            )
        raise AssertionError("errors_as_status ends the call")

    # used by this interface and by the pages -------------------------------------------------------------------------

    async def take_in(
        self,
        spec: JobSpec,
        *,
        files: Mapping[str, str] | None = None,
        priority: int = 0,
        submission_id: str = "",
        force: bool = False,
        resume: str = "",
        preempt: bool = False,
        remote: bool = False,
    ) -> tuple[JobRecord, JobDocument]:
        """Submit a job; return its record and document. `files` maps a path in the job to the SHA-256 of its upload.
        `resume` names the job that it goes on with, `preempt`: see JobRecord. `remote`: the request came from another
        host, so the job may not read addresses of this host.

        Raises UserMistake if the request is invalid, Refused if the cluster is too small or the queue is full.
        """
        if abs(priority) > _MOST_PRIORITY:
            raise UserMistake(f"priority: got {priority}, must be from -{_MOST_PRIORITY} to {_MOST_PRIORITY}")
        if len(submission_id) > 200 or not encodable(submission_id):
            raise UserMistake("submission_id: must have at most 200 characters, all of which UTF-8 can hold")
        rules, files = self._jobs.rules.for_job(remote=remote), files or {}
        require_tracking(spec, rules)
        require_target(spec.checkpoint, rules)
        require_trackers(spec)
        self._require_files(files)
        require_rules(spec, self._jobs.rules, files)
        wrong = await self.wrong_paths([path for path in local_files(spec) if path not in files])
        if wrong:
            raise UserMistake("\n".join(f"{path}: {what}" for path, what in wrong.items()))
        if resume and spec.pipeline.is_auto:
            raise InvalidJob([AUTO_REFUSED])
        spec, choice = await choose_settings(self._outside, spec, self._places(files), rules, self._room(spec))
        document = JobDocument(document=_json(spec.document()), files=files)
        job, needs = new_job_id(), await self._needs(spec, document.files)
        before = await self._jobs.find(resume) if resume else ""
        step = await asyncio.to_thread(require_resumable, self._jobs, before, spec) if before else 0
        record = JobRecord(
            id=job,
            name=spec.name,
            submission_id=submission_id or job,
            priority=priority,
            order=0,
            needs=needs,
            state=Queued(why=f"goes on after step {step} of job {before}" if before else choice),
            step=step,
            stages=needs.workers if spec.pipeline.stages == "auto" else spec.pipeline.stages,
            schedule=spec.pipeline.schedule,
            batch_size=spec.training.batch_size,
            events=1,  # its submission
            submitted_at=time.time(),
            force=force,
            remote=remote,
            preempt=preempt,
            resumed_from=before,
        )
        self._require_room(record.needs)
        if before:
            await asyncio.to_thread(take_checkpoints, self._jobs.home, before, job)
        stored = None
        try:
            stored = await self._jobs.submit(record, document)
        finally:
            if before and (stored is None or stored.id != job):  # refused, or submitted before
                await asyncio.to_thread(drop_checkpoints, self._jobs.home, job)
        return stored, document

    async def plan(self, spec: JobSpec, files: Mapping[str, str], *, remote: bool) -> tuple[str, list[str]]:
        """Return the plan as JSON, and a line for each worker with too little memory. Raises UserMistake, JobFailed."""
        places = self._places(files)
        require_rules(spec, self._jobs.rules, places)
        rules = self._jobs.rules.for_job(remote=remote)
        return await plan_job(self._outside, spec, places, rules, self._room(spec))

    async def wrong_paths(self, paths: Sequence[str], *, exists: bool = False) -> dict[str, str]:
        """Return the problem of each wrong path: it leads to a place on this host that jobs may not read or, with
        `exists`, it is not a file."""
        return await wrong_paths(self._outside, paths, self._jobs.rules, exists=exists)

    async def _chunks(self, job: str, files: Sequence[Path]) -> AsyncIterator[pb.FetchChunk]:
        """Yield the files in chunks. Raises UnknownJob if the job is deleted meanwhile, Refused if a running job moves
        one of the files away."""
        for file in files:
            parts = file_parts(self._jobs.home.run_directory(job), file)
            try:
                while (part := await asyncio.to_thread(next, parts, None)) is not None:
                    yield pb.FetchChunk(path=part.path, size=part.size, data=part.data, sha256=part.sha256)
            except FileNotFoundError:
                self._jobs.record(job)
                raise Refused(f"job {job}: {file.name} was moved while the files were sent; try again") from None

    # checks --------------------------------------------------------------------------------------------------------

    async def _spec(self, document: str, name: str | None) -> JobSpec:
        if wrong := document_problem(document):
            raise InvalidJob([f"document: {wrong}"])
        if len(document) > _LARGE_DOCUMENT:
            return await asyncio.to_thread(_read_spec, document, name)
        return _read_spec(document, name)

    def _require_files(self, files: Mapping[str, str]) -> None:
        missing = [path for path, sha256 in files.items() if not self._uploads.has(sha256, path)]
        if missing:
            raise Refused(
                "\n".join(f"{path}: its content was not uploaded; send it with UploadData" for path in missing)
            )

    def _places(self, files: Mapping[str, str]) -> dict[str, str]:
        return {path: str(upload_path(self._jobs.home, sha256, path)) for path, sha256 in files.items()}

    async def _needs(self, spec: JobSpec, files: Mapping[str, str]) -> Needs:
        workers, resources = spec.pipeline.n_workers, spec.resources
        if spec.pipeline.stages == "auto":
            workers = (await asyncio.to_thread(layout_without_data, spec, self._room(spec))).workers
        elif workers is None:  # a schedule file has a line for each worker
            path, rules = spec.pipeline.schedule, self._jobs.rules
            place = str(upload_path(self._jobs.home, files[path], path)) if path in files else path
            rules = rules.with_files([place] if path in files else [])
            workers = await schedule_workers(self._outside, path, place, rules)
        return Needs(workers=workers, cpus=resources.cpus_per_worker, memory=resources.memory_per_worker or 0)

    def _room(self, spec: JobSpec) -> int:
        """Return how many workers of this job the empty cluster holds."""
        nodes = [Room(cpus=node["cpus"], memory=node["memory"]) for node in self._jobs.nodes]
        return workers_with_room(nodes, spec.resources.cpus_per_worker, spec.resources.memory_per_worker or 0)

    def _require_room(self, needs: Needs) -> None:
        """Raise Refused if the job can never fit into the service's own cluster, which does not grow."""
        if needs.total_cpus >= 2**31 or needs.total_memory >= 2**63 or needs.workers >= 2**31:
            raise UserMistake("resources: all workers together need more CPUs or memory than any cluster has")
        nodes = self._jobs.nodes
        if not self._keeper.own or not nodes:
            return
        workers = counted(needs.workers, "worker")
        cpus = math.floor(sum(node["cpus"] for node in nodes))
        if needs.total_cpus > cpus:
            raise Refused(
                f"the job needs {counted(needs.total_cpus, 'CPU')} ({workers} of {needs.cpus}), this cluster has "
                f"{cpus}; fewer stages, or `pipetrain up --workers {needs.total_cpus}`"
            )
        memory = sum(node["memory"] for node in nodes)
        if needs.total_memory > memory:
            raise Refused(
                f"the job needs {size(needs.total_memory, 'up')} of memory ({workers} of "
                f"{size(needs.memory, 'up')}), this cluster has {size(memory, 'down')}; change "
                "resources.memory_per_worker"
            )


def _read_spec(document: str, name: str | None) -> JobSpec:
    try:
        parsed = json.loads(document)
    except ValueError as error:
        raise InvalidJob([f"document: is not JSON: {error}"]) from None
    except RecursionError:
        raise InvalidJob(["document: is nested too deeply"]) from None
    if isinstance(parsed, dict):
        parsed.setdefault("checkpoint", CheckpointSection.default().document())
        if name is not None:
            parsed["name"] = name
    return parse_job(parsed)


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, separators=(",", ":"))


async def _next(requests: AsyncIterator[pb.UploadRequest]) -> pb.UploadRequest | None:
    try:
        async with asyncio.timeout(_UPLOAD_SILENCE_S):
            return await anext(requests, None)
    except DecodeError:
        raise UserMistake("the request is not an UploadRequest") from None
    except TimeoutError:
        raise Refused(
            f"no data for {_UPLOAD_SILENCE_S:g} s; the service keeps what it has: continue from there"
        ) from None


async def _parts(requests: AsyncIterator[pb.UploadRequest]) -> AsyncIterator[bytes]:
    while (request := await _next(requests)) is not None:
        if not request.HasField("data") or not 0 < len(request.data) <= PART_BYTES:
            raise UserMistake(f"data: must follow the header, in parts of 1 to {PART_BYTES} bytes")
        yield request.data

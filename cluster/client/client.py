"""The way in: a service, its jobs and its nodes."""

from __future__ import annotations

import copy
import json
import re
import uuid
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cluster.client.address import find_service
from cluster.client.cluster_state import ClusterState
from cluster.client.connection import LONG_CALL_S, Connection
from cluster.client.figures import JobFigures, figures_from_wire
from cluster.client.job import Job
from cluster.client.messages import node_from_wire
from cluster.client.upload import OnUpload, upload_files
from cluster.wire import pipetrain_pb2 as pb
from cluster.wire.convert import moment, state_number
from coordinator.job.limits import encodable
from coordinator.job.overrides import apply_override
from coordinator.job.spec import JobSpec, load_job, parse_job
from stages.errors import InvalidJob, UserMistake

AnyJob = str | Path | dict[str, Any] | JobSpec
"""A job file, a job as a dict, or a job that was read already."""


class Client:
    """A connection to the job service. Everything waits no longer than it says; close it, or use it with `with`.

    with Client() as client:
        job = client.submit("digits.yaml", overrides=["training.epochs=3"])
        print(job.wait().state)

    The address is the argument, PIPETRAIN_ADDRESS, or what the file service.json of `home` says; the token the
    argument, PIPETRAIN_TOKEN, or the file `token` of `home`; `home` the argument, PIPETRAIN_HOME, or ~/.pipetrain.
    Nothing is sent before the first call. Raises NoService where no address is found.
    """

    def __init__(self, address: str | None = None, *, home: str | Path | None = None, token: str | None = None) -> None:
        self._connection = Connection(partial(find_service, address, None if home is None else Path(home), token))

    @property
    def address(self) -> str:
        """HOST:PORT of the service."""
        return self._connection.address.target

    def submit(
        self,
        job: AnyJob,
        *,
        name: str | None = None,
        priority: int = 0,
        submission_id: str | None = None,
        overrides: Sequence[str] = (),
        force: bool = False,
        upload: bool = True,
        on_upload: OnUpload | None = None,
    ) -> Job:
        """Hand a job to the service, with the local files that it names. When this comes back, it will be run.

        `overrides` are `a.b=c` as `--set` takes them; `name` stands instead of the job's own; of two jobs that wait,
        the one of larger `priority` (-1000 to 1000) goes first. The same `submission_id` submits once: a second call
        gives the job of the first. `force` begins though a worker's memory is predicted not to do. `upload=False`
        sends no files: the cluster's hosts have them under the same paths. `on_upload` is told how far each file is.

        Raises InvalidJob with every mistake in the job, InvalidData for a file that cannot be read, Refused where the
        queue is full or the cluster can never hold the job, NoService.
        """
        spec = _spec(job, overrides, name)
        _storable(submission_id or "", "submission_id")
        _storable(name or "", "name")
        files = upload_files(self._connection, spec, on_upload) if upload else {}
        request = pb.SubmitRequest(
            document=json.dumps(spec.document(), separators=(",", ":")),
            files=files,
            name=name,
            priority=_within(priority, "priority"),
            submission_id=submission_id or uuid.uuid4().hex,
            force=force,
        )
        return Job(self._connection, self._connection.call("Submit", request, deadline_s=LONG_CALL_S))

    def get(self, job_id: str) -> Job:
        """The job of this id, beginning of an id, or name. Raises UnknownJob if none or several match, with the nearest
        or with all of them."""
        _storable(job_id, "id")
        return Job(self._connection, self._connection.call("Get", pb.GetRequest(id=job_id)))

    def job(self, job_id: str) -> Job:
        """The same as `get`."""
        return self.get(job_id)

    def list(
        self,
        states: Iterable[str] | str | None = None,
        name: str | None = None,
        limit: int = 0,
        *,
        timeout: float = LONG_CALL_S,
    ) -> list[Job]:
        """Jobs, newest first: those in one of `states` and of this `name`, at most `limit` (0: all).

        Raises NoService after `timeout` seconds without all of them.
        """
        wanted = [states] if isinstance(states, str) else list(states or ())
        try:
            numbers = [state_number(state) for state in wanted]
        except ValueError as error:
            raise UserMistake(f"states: {error}") from None
        _storable(name or "", "name")
        request = pb.ListRequest(states=numbers, name=name or "", limit=_within(limit, "limit"))
        connection = self._connection
        call = connection.calls.List(request, timeout=timeout, metadata=connection.metadata)
        try:
            with connection.failures(timeout):
                return [Job(connection, message) for part in call for message in part.jobs]
        finally:
            call.cancel()

    def plan(self, job: AnyJob, *, overrides: Sequence[str] = (), on_upload: OnUpload | None = None) -> dict[str, Any]:
        """What a job would take, as `pipetrain plan --json` prints it; nothing runs. `refusals` says where it cannot.

        Uploads the job's files, for the service reads them.
        """
        spec = _spec(job, overrides, None)
        files = upload_files(self._connection, spec, on_upload)
        request = pb.PlanRequest(document=json.dumps(spec.document(), separators=(",", ":")), files=files)
        answer = self._connection.call("Plan", request, deadline_s=LONG_CALL_S)
        return {**json.loads(answer.plan), "refusals": list(answer.refusals)}

    def stats(self, *ids: str) -> dict[str, JobFigures]:
        """Figures by id: of those of these jobs (whole ids, at most 100) that run, or ended a few minutes ago."""
        answer = self._connection.call("Stats", pb.StatsRequest(ids=ids))
        return {message.id: figures_from_wire(message) for message in answer.jobs}

    def cluster(self) -> ClusterState:
        """The service, its nodes, and the jobs that run and wait."""
        state = self._connection.call("Cluster", pb.ClusterRequest())
        return ClusterState(
            version=state.version,
            started_at=moment(state.started_at),
            ray=state.ray,
            ray_address=state.ray_address,
            problems=tuple(state.problems),
            nodes=tuple(map(node_from_wire, state.nodes)),
            jobs=dict(state.jobs),
            active=tuple(Job(self._connection, job) for job in state.active),
            waiting=tuple(Job(self._connection, job) for job in state.waiting),
            max_queued=state.max_queued,
            home=state.home,
        )

    def close(self) -> None:
        """End the connection; jobs go on."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Client of the service at {self.address}>"


def _spec(job: AnyJob, overrides: Sequence[str], name: str | None) -> JobSpec:
    """The job, read and validated, with what is changed in it. Raises InvalidJob with every mistake."""
    try:
        return _changed(job, overrides, name)
    except InvalidJob as error:  # what reads the job knows the option of the command line
        raise InvalidJob([re.sub("^--set ", "overrides: ", line) for line in error.problems]) from None


def _changed(job: AnyJob, overrides: Sequence[str], name: str | None) -> JobSpec:
    if isinstance(job, str | Path):
        return load_job(Path(job), overrides, name=name)
    if isinstance(job, JobSpec) and not overrides and name is None:
        return job
    document = job.document() if isinstance(job, JobSpec) else copy.deepcopy(job)
    problems = [line for override in overrides for line in apply_override(document, override)]
    if problems:
        raise InvalidJob(problems)
    spec = parse_job(document)
    return spec if name is None else spec.replace(name=name)


def _storable(text: str, what: str) -> None:
    """Raise UserMistake for a text that the wire cannot carry: an argument whose bytes are not UTF-8 is one."""
    if not encodable(text):
        raise UserMistake(f"{what}: got {text!r}, must be text that UTF-8 can hold, without half of a surrogate pair")


def _within(number: int, what: str) -> int:
    """A number that the wire can carry; the service says which it takes."""
    if not isinstance(number, int) or not -(2**31) <= number < 2**31:
        raise UserMistake(f"{what}: got {number!r}, must be a whole number within 32 bits")
    return number

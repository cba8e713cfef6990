"""The class Client: a connection to the job service."""

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
from coordinator import run_files
from coordinator.job.limits import encodable
from coordinator.job.overrides import apply_override
from coordinator.job.spec import JobSpec, changed_job, load_job, parse_job
from stages.errors import InvalidJob, UserMistake

AnyJob = str | Path | dict[str, Any] | JobSpec
"""The path of a job file, a job as a dict, or a job that was read already."""


class Client:
    """A connection to the job service. Close it after use, or use it in a `with` statement.

    with Client() as client:
        job = client.submit("digits.yaml", overrides=["training.epochs=3"])
        print(job.wait().state)

    The address is the argument, else PIPETRAIN_ADDRESS, else the one in the file service.json of `home`. The token is
    the argument, else PIPETRAIN_TOKEN, else the one in the file `token` of `home`. `home` is the argument, else
    PIPETRAIN_HOME, else ~/.pipetrain. The client sends nothing before the first call. No call waits longer than its
    description says.

    Raises NoService if no address is found.
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
        preempt: bool = False,
        upload: bool = True,
        on_upload: OnUpload | None = None,
    ) -> Job:
        """Submit a job to the service, with the local files that it names. When the call returns, the service has
        stored the job and will run it.

        `overrides` are `a.b=c`, as for `--set`; `name` replaces the name in the job. Waiting jobs of a higher
        `priority` (-1000 to 1000) start first. A second call with the same `submission_id` submits nothing and returns
        the job of the first call. `force` starts the job even if its plan needs more memory than a worker may use. With
        `preempt`, running jobs of a lower priority make room for it: they save a checkpoint, wait, and go on later.
        `upload=False` uploads no files: the cluster's hosts must have them at the same paths. `on_upload` is called
        with the progress of each file.

        Raises InvalidJob with every mistake in the job, InvalidData for a file that cannot be read, Refused if the
        queue is full or the cluster can never hold the job, NoService if no service answers.
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
            preempt=preempt,
        )
        return Job(self._connection, self._connection.call("Submit", request, deadline_s=LONG_CALL_S))

    def resume(
        self,
        job_id: str,
        *,
        overrides: Sequence[str] = (),
        name: str | None = None,
        priority: int = 0,
        submission_id: str | None = None,
        force: bool = False,
        preempt: bool = False,
        **replacements: object,
    ) -> Job:
        """Submit a new job that goes on from the newest checkpoint of a job that has ended. The old job stays as it is.

        `overrides` are `a.b=c`, and `replacements` such as `stages=3`: see docs/checkpoints.md for what may change. All
        else is as in `submit`. Raises InvalidJob with a line for each change that is not possible, Refused if the job
        has not ended or has no checkpoint.
        """
        before = self.get(job_id)
        _storable(submission_id or "", "submission_id")
        spec = changed_job(before.document, overrides, name=name, **replacements)
        request = pb.SubmitRequest(
            document=json.dumps(spec.document(), separators=(",", ":")),
            files=before.files,
            priority=_within(priority, "priority"),
            submission_id=submission_id or uuid.uuid4().hex,
            force=force,
            preempt=preempt,
            resume=before.id,
        )
        return Job(self._connection, self._connection.call("Submit", request, deadline_s=LONG_CALL_S))

    def get(self, job_id: str) -> Job:
        """Return the job of this id, beginning of an id, or name. Raises UnknownJob if no job matches, with the nearest
        one, or if several match, with all of them."""
        _storable(job_id, "id")
        return Job(self._connection, self._connection.call("Get", pb.GetRequest(id=job_id)))

    def job(self, job_id: str) -> Job:
        """Return the job of this id or name, as `get` does."""
        return self.get(job_id)

    def list(
        self,
        states: Iterable[str] | str | None = None,
        name: str | None = None,
        limit: int = 0,
        *,
        timeout: float = LONG_CALL_S,
    ) -> list[Job]:
        """Return jobs, newest first: those in one of `states` and of this `name`, at most `limit` (0: all).

        Raises NoService if they have not all arrived after `timeout` seconds.
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
        """Return the plan of a job, as `pipetrain plan --json` prints it, without running the job. Its entry `refusals`
        lists why the job would be refused; it is empty if the job can run.

        The client uploads the job's files, because the service reads them for the plan.
        """
        spec = _spec(job, overrides, None)
        files = upload_files(self._connection, spec, on_upload)
        request = pb.PlanRequest(document=json.dumps(spec.document(), separators=(",", ":")), files=files)
        answer = self._connection.call("Plan", request, deadline_s=LONG_CALL_S)
        return {**json.loads(answer.plan), "refusals": list(answer.refusals)}

    def stats(self, *ids: str) -> dict[str, JobFigures]:
        """Return the figures of these jobs by id (whole ids, at most 100). Jobs that have not run, or ended more than a
        few minutes ago, are missing."""
        answer = self._connection.call("Stats", pb.StatsRequest(ids=ids))
        return {message.id: figures_from_wire(message) for message in answer.jobs}

    def cluster(self) -> ClusterState:
        """Return the state of the service: its nodes, and the jobs that run or wait."""
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
        """Close the connection; jobs continue."""
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
    """Read and validate the job with its overrides and its name, with the model of the run that `model.weights` names.
    Raises InvalidJob with every mistake."""
    try:
        spec = _changed(job, overrides, name)
        model = Path(spec.model.weights or "") / run_files.MODEL
        return spec.replace(model__weights=str(model)) if model.is_file() else spec
    except InvalidJob as error:  # the reader's messages name the command line's option
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
    """Raise UserMistake for a text that a message cannot carry, such as an argument whose bytes are not UTF-8."""
    if not encodable(text):
        raise UserMistake(f"{what}: got {text!r}, must be text that UTF-8 can hold, without half of a surrogate pair")


def _within(number: int, what: str) -> int:
    """Return the number if a message can carry it, else raise UserMistake. The service itself checks the range."""
    if not isinstance(number, int) or not -(2**31) <= number < 2**31:
        raise UserMistake(f"{what}: got {number!r}, must be a whole number within 32 bits")
    return number

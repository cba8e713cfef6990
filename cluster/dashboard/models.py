"""What /api answers: pydantic models, so that OpenAPI describes each field with its unit."""

from __future__ import annotations

from pydantic import BaseModel, Field

from coordinator.train.rows import SERIES


class ProblemLine(BaseModel):
    """A problem of a job file, where it stands."""

    line: int | None = Field(description="line of the text, from 1; null for what concerns all of it")
    text: str = Field(description="path in the job, what was found, what would be right")


class Problems(BaseModel):
    """Why a request was turned away."""

    problems: list[str] = Field(description="one sentence a problem")
    lines: list[ProblemLine] = Field(
        default=[], description="the same with lines, for a job that was submitted as text"
    )


class Job(BaseModel):
    """A job, with the keys of `pipetrain status --json`. Times are ISO 8601, UTC."""

    id: str
    name: str
    state: str = Field(description="QUEUED, STARTING, RUNNING, RECOVERING, SUCCEEDED, FAILED or STOPPED")
    reason: str = Field(description="why it is in this state; may be empty")
    attempt: int = Field(description="lives of its processes so far; 0 before the first")
    step: int = Field(description="updates made in this attempt so far: the number of its last step")
    steps_total: int | None = Field(description="steps of the whole job; null until its data was read")
    loss: float | None = Field(description="mean training loss of the last step")
    validation_loss: float | None = Field(description="mean loss over the validation rows, last evaluation")
    validation_accuracy: float | None = Field(description="share of validation rows that are right, 0 to 1")
    submitted_at: str
    started_at: str | None
    ended_at: str | None
    exit_code: int | None = Field(description="0 succeeded, 1 failed, 2 a mistake in job or data, 130 stopped")
    model_saved: bool
    priority: int = Field(description="larger goes first")
    queue_position: int | None = Field(description="from 1; only while QUEUED")
    queue_length: int | None = Field(description="jobs that are QUEUED; only while QUEUED")
    submission_id: str
    workers: int = Field(description="processes that hold its stages")
    cpus: int = Field(description="CPUs of all workers together")
    memory: int = Field(
        description="bytes of all workers together; 0: the job names none, and each has its CPUs' share of its node"
    )


class JobList(BaseModel):
    """A page of jobs, newest first."""

    jobs: list[Job]
    total: int = Field(description="jobs that fit the filters, on all pages")
    counts: dict[str, int] = Field(description="all jobs of the service by state")


class Points(BaseModel):
    """A series, thinned evenly: at most 1,000 points."""

    steps: list[int] = Field(description="updates made at each point: the first step is 1")
    values: list[float | None] = Field(description="the value at each; null where it was not finite")


class Rows(BaseModel):
    """Series of the present attempt."""

    attempt: int
    series: dict[str, Points] = Field(description=f"by name: {', '.join(SERIES)}; shares are from 0 to 1")


class StageAccount(BaseModel):
    """Where a worker's time went for one of its stages, in seconds since the attempt began."""

    stage: int
    worker: int
    seconds: dict[str, float]
    bubble: float = Field(
        description="share of the worker's time that it waited or was held up sending, last one to two seconds, 0 to 1"
    )
    bubble_predicted: float | None = Field(description="the same by the schedule's dry run, with measured times")


class WorkerAccount(BaseModel):
    """What a worker did for none of its stages alone, in seconds. With its stages' seconds it sums to its wall time."""

    worker: int
    wall_seconds: float
    seconds: dict[str, float]


class Link(BaseModel):
    """What one worker sent another since the attempt began."""

    sender: int
    receiver: int
    messages: int
    bytes: int


class AttemptAccounts(BaseModel):
    """Every worker's wall time by what it went into, without a remainder."""

    attempt: int
    step: int = Field(description="updates made so far: the last step that counts")
    ended: float = Field(description="when it ended, seconds UTC")
    stages: list[StageAccount]
    workers: list[WorkerAccount]
    links: list[Link]


class TimedAction(BaseModel):
    """An action of a worker; microseconds from the step's first action on."""

    worker: int
    stage: int
    kind: str = Field(description="F forward, I input gradient, W weight gradient")
    micro_batch: int
    start_us: int
    end_us: int


class StageBytes(BaseModel):
    """Bytes that a stage holds."""

    stage: int
    worker: int
    weights: int
    gradients: int
    optimizer: int
    activations: int = Field(description="peak of what it kept between forward and weight gradient")
    activations_predicted: int = Field(description="what the plan says of that")


class WorkerProcess(BaseModel):
    """A worker process."""

    worker: int
    host: str
    pid: int | None
    peak_rss_bytes: int | None = Field(description="largest resident size of the process since its stages were built")
    peak_job_bytes: int | None = Field(description="the part of it that is the job's, which the limit is for")
    limit_bytes: int | None = Field(description="what it may take beside its runtime; null without a limit")
    clock_offset_seconds: float = Field(description="added to its clock to have the runner's")
    clock_error_seconds: float = Field(description="how far that may be wrong")


class Timeline(BaseModel):
    """One sampled step, about the last one: what every worker did when, and what the schedule's dry run says."""

    attempt: int
    step: int = Field(description="the step, from 1: updates made once it is done")
    zero: float = Field(description="when its first action began, seconds UTC")
    seconds: float = Field(description="from there to its last action's end")
    actions: list[TimedAction]
    predicted: list[TimedAction]
    memory: list[StageBytes]
    workers: list[WorkerProcess]


class Event(BaseModel):
    """Something that happened to a job."""

    seq: int = Field(description="from 1, without gaps")
    time: float = Field(description="seconds UTC")
    kind: str
    attempt: int
    text: str


class LogLine(BaseModel):
    """A line that a process of the job printed."""

    worker: int = Field(description="-1 is the job's runner")
    text: str


class File(BaseModel):
    """A file of the run directory; GET it at `files/{path}`."""

    path: str
    size: int = Field(description="bytes")


class Node(BaseModel):
    """A machine of the Ray cluster."""

    id: str
    host: str
    address: str
    cpus: float
    cpus_used: float
    memory: int = Field(description="bytes that jobs may reserve")
    memory_used: int = Field(description="bytes that jobs have reserved, whether they fill them or not")


class Cluster(BaseModel):
    """The service and the cluster that it uses."""

    version: str
    ray: str = Field(description="up; or else what is the matter")
    ray_address: str
    nodes: list[Node]
    counts: dict[str, int] = Field(description="jobs by state")
    active: list[Job] = Field(description="jobs that have processes")
    waiting: list[Job] = Field(description="the first 20 that wait, in their order, each with what it waits for")
    max_queued: int


class ScheduleStage(BaseModel):
    """What a schedule asks of a stage."""

    stage: int
    worker: int
    peak_alive: int = Field(description="most micro-batches whose activations it keeps at once")
    bubble: float = Field(description="idle share of its worker, 0 to 1")


class Schedule(BaseModel):
    """A schedule's dry run. Times are in forward passes of a micro-batch: F = I = W = 1 unless asked otherwise."""

    schedule: str
    stages: int
    workers: int
    micro_batches: int
    makespan: float
    bubble: float = Field(description="idle share of all workers' time, 0 to 1")
    peak_alive: int = Field(description="most micro-batches that any worker keeps, over all of its stages")
    by_stage: list[ScheduleStage]
    actions: list[tuple[int, str, float, float]] = Field(description="worker, action such as 2F0, start, end")


class StopRequest(BaseModel):
    """How a job shall end."""

    now: bool = Field(default=False, description="without finishing the steps under way and saving the weights")


class TraceRequest(BaseModel):
    """What shall be traced."""

    steps: int = Field(default=10, ge=1, le=10_000, description="steps, from the next one on")


class TraceRequested(BaseModel):
    """Taken in: trace.json is among the job's files once they are made, and an event says so."""

    id: str
    steps: int


class Deleted(BaseModel):
    """The job is forgotten."""

    id: str

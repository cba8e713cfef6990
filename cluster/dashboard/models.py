"""The answers of /api as pydantic models, so that OpenAPI describes each field with its unit."""

from __future__ import annotations

from pydantic import BaseModel, Field

from coordinator.train.rows import SERIES


class ProblemLine(BaseModel):
    """A problem of a job file and its line."""

    line: int | None = Field(description="line of the text, from 1; null if the problem concerns the whole text")
    text: str = Field(description="path in the job, the value found, the values allowed")


class Problems(BaseModel):
    """The reasons why a request was rejected."""

    problems: list[str] = Field(description="one sentence for each problem")
    lines: list[ProblemLine] = Field(
        default=[], description="the same with lines, for a job that was submitted as text"
    )


class Job(BaseModel):
    """A job, with the keys of `pipetrain status --json`. Times are ISO 8601, UTC."""

    id: str
    name: str
    state: str = Field(description="QUEUED, STARTING, RUNNING, RECOVERING, SUCCEEDED, FAILED or STOPPED")
    reason: str = Field(description="the reason for the state; may be empty")
    attempt: int = Field(description="number of the present attempt, from 1; 0 before the first one")
    step: int = Field(description="number of steps done in this attempt")
    steps_total: int | None = Field(description="number of steps of the whole job; null until its data was read")
    loss: float | None = Field(description="mean training loss over the rows of the present epoch so far")
    validation_loss: float | None = Field(description="mean loss over the validation rows, last evaluation")
    validation_accuracy: float | None = Field(description="share of validation rows classified correctly, 0 to 1")
    validation_perplexity: float | None = Field(description="perplexity in the last evaluation; jobs on text only")
    validation_bits_per_byte: float | None = Field(
        description="bits for a byte of the validation text in the last evaluation; jobs on text only"
    )
    submitted_at: str
    started_at: str | None
    ended_at: str | None
    exit_code: int | None = Field(
        description="0 succeeded, 1 failed, 2 failed because of a mistake in the job or its data, 130 stopped, 3 "
        "stopped without a checkpoint of its last steps"
    )
    model_saved: bool
    priority: int = Field(description="jobs of a higher priority start first")
    queue_position: int | None = Field(description="place in the queue, from 1; null unless QUEUED")
    queue_length: int | None = Field(description="number of QUEUED jobs; null unless QUEUED")
    submission_id: str
    workers: int = Field(description="number of worker processes")
    cpus: int = Field(description="CPUs of all workers together")
    memory: int = Field(
        description="bytes of all workers together; 0: the job sets no limit, and each worker may use its CPUs' share "
        "of its node's memory"
    )


class JobList(BaseModel):
    """A page of jobs, newest first."""

    jobs: list[Job]
    total: int = Field(description="number of jobs that match the filters, on all pages")
    counts: dict[str, int] = Field(description="number of all jobs of the service by state")


class Points(BaseModel):
    """A series, thinned evenly: at most 1,000 points."""

    steps: list[int] = Field(description="number of the step of each point; the first step is 1")
    values: list[float | None] = Field(description="value of each point; null if it was not finite")


class Rows(BaseModel):
    """Series of the present attempt. Training losses and accuracies are those of each step; a loss that is a sum is
    given per row."""

    attempt: int
    series: dict[str, Points] = Field(description=f"by name: {', '.join(SERIES)}; shares are from 0 to 1")


class StageAccount(BaseModel):
    """How a worker spent its time on one of its stages, in seconds since the attempt began."""

    stage: int
    worker: int
    seconds: dict[str, float]
    bubble: float = Field(
        description="share of the worker's time, over the last one to two seconds, in which it waited for an array of "
        "this stage or was held up sending one, 0 to 1"
    )
    bubble_predicted: float | None = Field(description="the same in the schedule's dry run with measured times")


class WorkerAccount(BaseModel):
    """How a worker spent the time that belongs to no single stage, in seconds. With the seconds of its stages, these
    sum to its wall time."""

    worker: int
    wall_seconds: float
    seconds: dict[str, float]


class Link(BaseModel):
    """The messages from one worker to another since the attempt began."""

    sender: int
    receiver: int
    messages: int
    bytes: int


class AttemptAccounts(BaseModel):
    """Every worker's wall time by kind of work, without a remainder."""

    attempt: int
    step: int = Field(description="number of the last step that is included")
    ended: float = Field(description="end of that step, seconds since 1970, UTC")
    stages: list[StageAccount]
    workers: list[WorkerAccount]
    links: list[Link]


class SavedCheckpoint(BaseModel):
    """A checkpoint that the job wrote on its way."""

    step: int = Field(description="number of updates that it has")
    time: float = Field(description="when it was whole, seconds since 1970, UTC")
    bytes: int
    seconds: float = Field(description="how long the slowest worker wrote its files, in the background")
    stall_seconds: float = Field(description="how long training stood still for it")


class LostWorker(BaseModel):
    """The loss of a worker, and how it was made good. What is not known yet is null."""

    attempt: int
    time: float = Field(description="when the loss was told, seconds since 1970, UTC")
    worker: int | None = Field(description="null if only a link between workers was lost")
    step: int = Field(description="number of updates that the job had made")
    loss: str = Field(description="what happened, such as process lost or hang")
    cause: str
    found_s: float | None = Field(description="within how many seconds the loss was found")
    replaced_s: float | None = Field(description="seconds from there until all workers were ready to go on")
    first_step_s: float | None = Field(description="seconds from finding the loss to the first new step")
    from_step: int | None = Field(description="the step after which the job went on; 0: from the beginning")
    steps_lost: int | None = Field(description="number of steps that were made again")
    identical: bool | None = Field(description="whether they came out with the same bits")


class StruckFault(BaseModel):
    """A fault on request that has struck."""

    step: int = Field(description="number of the step that was under way")
    kind: str = Field(description="such as kill or stop")
    worker: int


class Survival(BaseModel):
    """The checkpoints and the recoveries of a job since its first attempt. Lists have the last 50, the oldest
    first."""

    checkpoints: list[SavedCheckpoint]
    written: int
    failed: int = Field(description="checkpoints that could not be written")
    damaged: int = Field(description="checkpoints that were found damaged when the job had to go on")
    losses: list[LostWorker]
    faults: list[StruckFault]
    lost: int = Field(description="workers that were lost")
    recoveries: int
    recovery_seconds: float = Field(description="from finding a loss to the first new step, summed")
    steps_again: int = Field(description="steps that were made again")


class TimedAction(BaseModel):
    """An action of a worker. Times are microseconds since the step's first action."""

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
    activations: int = Field(description="peak of the activations kept between forward and weight gradient")
    activations_predicted: int = Field(description="the same peak as the plan predicts it")


class WorkerProcess(BaseModel):
    """A worker process."""

    worker: int
    host: str
    pid: int | None
    peak_rss_bytes: int | None = Field(description="largest resident size of the process since its stages were built")
    peak_job_bytes: int | None = Field(description="the part of it that belongs to the job; the limit applies to it")
    limit_bytes: int | None = Field(description="limit for the job's part; null without a limit")
    clock_offset_seconds: float = Field(description="seconds to add to its clock to get the runner's")
    clock_error_seconds: float = Field(description="largest possible error of that, in seconds")


class Timeline(BaseModel):
    """A sampled step, about the last one: the measured actions of every worker, and those of the schedule's dry run."""

    attempt: int
    step: int = Field(description="number of the step, from 1")
    zero: float = Field(description="start of its first action, seconds since 1970, UTC")
    seconds: float = Field(description="seconds from there to the end of its last action")
    actions: list[TimedAction]
    predicted: list[TimedAction]
    memory: list[StageBytes]
    workers: list[WorkerProcess]


class Event(BaseModel):
    """An event of a job."""

    seq: int = Field(description="from 1, without gaps")
    time: float = Field(description="seconds since 1970, UTC")
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
    ray: str = Field(description="up, or the problem")
    ray_address: str
    nodes: list[Node]
    counts: dict[str, int] = Field(description="jobs by state")
    active: list[Job] = Field(description="jobs that have processes")
    waiting: list[Job] = Field(description="the first 20 waiting jobs, in their order, each with what it waits for")
    max_queued: int


class ScheduleStage(BaseModel):
    """A stage in a schedule's dry run."""

    stage: int
    worker: int
    peak_alive: int = Field(description="most micro-batches whose activations the stage keeps at once")
    bubble: float = Field(description="idle share of its worker, 0 to 1")


class Schedule(BaseModel):
    """A schedule's dry run, as workers perform it: a B is its I, which is sent, and then its W. Times are in forward
    passes of a micro-batch: F = I = W = 1 unless `backward` changes it."""

    schedule: str
    stages: int
    workers: int
    micro_batches: int
    makespan: float
    bubble: float = Field(description="idle share of all workers' time, 0 to 1")
    bubble_rate: float = Field(description="the zero-bubble papers' rate, which leaves out the staggered begin and end")
    papers_bubble: float | None = Field(description="the bubble as papers count it, if a B is one action there")
    peak_alive: int = Field(description="most micro-batches that any worker keeps, over all of its stages")
    by_stage: list[ScheduleStage]
    actions: list[tuple[int, str, float, float]] = Field(description="worker, action such as 2F0, start, end")


class LabTimes(BaseModel):
    """Times of one worker's layers and one micro-batch, in any unit."""

    F: float
    I: float  # noqa: E741
    W: float


class LabSchedule(BaseModel):
    """One schedule of a comparison. Times are in the unit of F, I and W. A schedule that cannot be built has only its
    name and `left_out`."""

    schedule: str
    left_out: str | None = Field(default=None, description="why it cannot be built for these numbers")
    stages: int | None = None
    step: float | None = Field(default=None, description="from the first action to the last one")
    in_a_row: float | None = Field(default=None, description="a step if the next one begins before all have ended it")
    bubble: float | None = Field(default=None, description="idle share of all workers' time, 0 to 1")
    bubble_rate: float | None = Field(default=None, description="the zero-bubble papers' rate: of steps in a row")
    kept: float | None = Field(default=None, description="most micro-batches that a worker keeps")
    fits: bool | None = Field(default=None, description="whether it keeps at most `memory`")
    messages: int | None = None
    origin: str | None = Field(default=None, description="where the step comes from: program, law or estimate")
    estimated_from: list[list[int]] | None = Field(
        default=None, description="workers and micro-batches of the programs from which the step is estimated"
    )
    missed: float | None = Field(default=None, description="error of the same estimate for the largest of these")


class Lab(BaseModel):
    """All schedules side by side, as `pipetrain lab --json` prints them."""

    workers: int
    micro_batches: int
    times: LabTimes
    latency: float
    memory: float | None
    shortest: str | None = Field(description="the schedule with the shortest step of those that fit")
    gain: float | None = Field(description="by which share the searched schedule is shorter than the best built-in one")
    schedules: list[LabSchedule]


class StopRequest(BaseModel):
    """How to stop a job."""

    now: bool = Field(default=False, description="end it without finishing its steps and without saving its weights")
    grace: float | None = Field(
        default=None, ge=0, le=86_400, description="seconds that it may take to save; else checkpoint.grace of the job"
    )


class ResumeRequest(BaseModel):
    """How a new job goes on from the newest checkpoint of one that has ended."""

    changes: list[str] = Field(
        default=[], max_length=100, description="changes of the job, such as training.epochs=40 or pipeline.stages=3"
    )
    priority: int = Field(default=0, description="jobs of a higher priority start first; −1000 to 1000")
    preempt: bool = Field(default=False, description="running jobs of a lower priority make room for it")


class TraceRequest(BaseModel):
    """The steps to trace."""

    steps: int = Field(default=10, ge=1, le=10_000, description="number of steps, from the next one on")


class TraceRequested(BaseModel):
    """The request was accepted. trace.json is among the job's files once the steps are done, and an event reports
    it."""

    id: str
    steps: int


class Deleted(BaseModel):
    """The job was deleted."""

    id: str

"""The metrics of /metrics with their help texts. Names follow Prometheus' conventions: base units, `_total` for
counters, `_ratio` for values from 0 to 1.

Labels are few and bounded: ids of jobs that are active or ended lately, stages, workers, and words from short lists. No
label holds a step or a micro-batch.
"""

from __future__ import annotations

from dataclasses import dataclass

from cluster.service.job_stats import STATS_KEPT_S
from coordinator.train.rows import EVAL_FIGURES, STEP_FIGURES, Metric

_KEPT = f"Series of a job disappear {STATS_KEPT_S:.0f} s after its end."


@dataclass(frozen=True, slots=True)
class Family:
    """A metric. `kind` is counter, gauge or histogram; `labels` are the names of its labels."""

    kind: str
    name: str
    help: str
    labels: tuple[str, ...] = ()

    def head(self, openmetrics: bool) -> str:
        """Return the lines before its samples, in OpenMetrics' or Prometheus' text format."""
        name = self.name.removesuffix("_total") if openmetrics and self.kind == "counter" else self.name
        return f"# HELP {name} {self.help}\n# TYPE {name} {self.kind}\n"


# of the service ----------------------------------------------------------------------------------------------------

BUILD_INFO = Family(
    "gauge",
    "pipetrain_build_info",
    "Always 1; the labels give the versions of the service and of Python.",
    ("version", "python"),
)
START_TIME = Family("gauge", "pipetrain_service_start_time_seconds", "When the service started, in seconds UTC.")
RAY_UP = Family("gauge", "pipetrain_ray_up", "1 while the service is connected to Ray, else 0.")
JOBS = Family("gauge", "pipetrain_jobs", "Jobs that the service knows, by state.", ("state",))
JOBS_ENDED = Family("counter", "pipetrain_jobs_ended_total", "Jobs that ended since the service started.", ("state",))
JOB_FAILURES = Family(
    "counter",
    "pipetrain_job_failures_total",
    "Jobs that failed since the service started, by kind of error.",
    ("kind",),
)
RESTARTS = Family(
    "counter",
    "pipetrain_worker_restarts_total",
    "Times that a job's workers had to be started again since the service started, by what ended them.",
    ("cause",),
)
QUEUE_LIMIT = Family("gauge", "pipetrain_queue_limit_jobs", "The most jobs that may wait in the queue.")
QUEUE_WAIT = Family(
    "histogram",
    "pipetrain_queue_wait_seconds",
    "From the submission of a job to its admission, since the service started.",
)
QUEUE_OLDEST = Family(
    "gauge", "pipetrain_queue_oldest_wait_seconds", "How long the oldest waiting job has waited; 0 if no job waits."
)
NODES = Family("gauge", "pipetrain_cluster_nodes", "Nodes of the Ray cluster.")
CPUS = Family("gauge", "pipetrain_cluster_cpus", "CPUs that the Ray cluster gives to workers.")
CPUS_USED = Family("gauge", "pipetrain_cluster_cpus_used", "CPUs of the Ray cluster that are reserved by jobs.")
MEMORY = Family("gauge", "pipetrain_cluster_memory_bytes", "Memory that the Ray cluster gives to workers.")
MEMORY_USED = Family(
    "gauge", "pipetrain_cluster_memory_used_bytes", "Memory of the Ray cluster that is reserved by jobs."
)
RPCS = Family("counter", "pipetrain_rpcs_total", "Calls that were answered, by gRPC status code.", ("method", "code"))
RPCS_OPEN = Family("gauge", "pipetrain_rpcs_open", "Calls that are being answered.", ("method",))
RPC_SECONDS = Family(
    "histogram",
    "pipetrain_rpc_duration_seconds",
    "Time to answer a call that has one answer; calls that stream their answers are not counted.",
    ("method",),
)

# of jobs -----------------------------------------------------------------------------------------------------------

JOB_INFO = Family(
    "gauge", "pipetrain_job_info", f"Always 1; the label name is the job's name. {_KEPT}", ("job", "name")
)
JOB_STATE = Family(
    "gauge", "pipetrain_job_state", "1 for the state that the job is in, 0 for the others.", ("job", "state")
)
JOB_FAILURE = Family(
    "gauge", "pipetrain_job_failure_info", "1 for a failed job; the label kind is the kind of error.", ("job", "kind")
)
JOB_STARTED = Family(
    "gauge", "pipetrain_job_start_time_seconds", "When the job was first admitted, in seconds UTC.", ("job",)
)
JOB_ENDED = Family("gauge", "pipetrain_job_end_time_seconds", "When the job ended, in seconds UTC.", ("job",))
JOB_WAIT = Family(
    "gauge", "pipetrain_job_queue_wait_seconds", "From the job's submission to its first admission.", ("job",)
)
ATTEMPT = Family("gauge", "pipetrain_job_attempt", "Number of the job's present attempt, from 1.", ("job",))
STEPS_PLANNED = Family("gauge", "pipetrain_job_planned_steps", "Steps that the job makes in all.", ("job",))
LOST_ATTEMPTS = Family(
    "counter", "pipetrain_job_lost_attempts_total", "Attempts of the job that ended with Ray, unplanned.", ("job",)
)
STEPS = Family(
    "counter", "pipetrain_steps_total", "Updates made in the present attempt: the number of its last step.", ("job",)
)
SAMPLES = Family("counter", "pipetrain_samples_total", "Rows trained on in the present attempt.", ("job",))
LAST_STEP = Family(
    "gauge", "pipetrain_last_step_timestamp_seconds", "When the last step ended, in seconds UTC.", ("job",)
)
STEP_SECONDS = Family(
    "histogram",
    "pipetrain_step_duration_seconds",
    "From the end of one step to the end of the next, without evaluations between them. Its sum divided by its count "
    "is the mean.",
    ("job",),
)
BUBBLE = Family(
    "gauge",
    "pipetrain_bubble_ratio",
    "Share of the last second or two in which workers waited for arrays or were held up sending; mean of the workers.",
    ("job",),
)
STAGE_BUBBLE = Family(
    "gauge",
    "pipetrain_stage_bubble_ratio",
    "Share of its worker's time in the last second or two in which the stage waited for arrays or was held up sending.",
    ("job", "stage"),
)
STAGE_BUBBLE_PREDICTED = Family(
    "gauge",
    "pipetrain_stage_bubble_predicted_ratio",
    "Share of its worker's time in which the stage would wait by the schedule with the measured times, if sending took "
    "no time.",
    ("job", "stage"),
)
STAGE_SECONDS = Family(
    "counter",
    "pipetrain_stage_seconds_total",
    "Where the workers' time goes: all series of a worker sum to its wall time in the present attempt. The label cause "
    "divides waits into warmup, steady and drain. Checkpoint, recovery, evaluation and other belong to the whole "
    "worker and are shown at its first stage.",
    ("job", "stage", "worker", "kind", "cause"),
)
STAGE_BYTES = Family(
    "gauge",
    "pipetrain_stage_held_bytes",
    "Bytes of arrays that a stage holds: weights, gradients, optimizer state, and the peak of kept activations.",
    ("job", "stage", "worker", "kind"),
)
STAGE_BYTES_PREDICTED = Family(
    "gauge",
    "pipetrain_stage_predicted_activation_bytes",
    "The predicted peak of a stage's kept activations.",
    ("job", "stage", "worker"),
)
LINK_BYTES = Family(
    "counter",
    "pipetrain_link_bytes_total",
    "Bytes of arrays that one worker sent to another in the present attempt.",
    ("job", "from_worker", "to_worker"),
)
LINK_MESSAGES = Family(
    "counter",
    "pipetrain_link_messages_total",
    "Arrays that one worker sent to another in the present attempt.",
    ("job", "from_worker", "to_worker"),
)
WORKER_RSS = Family(
    "gauge",
    "pipetrain_worker_peak_resident_bytes",
    "The most memory that the worker's process held since its stages were built, including Python and libraries.",
    ("job", "worker"),
)
WORKER_LIMIT = Family(
    "gauge",
    "pipetrain_worker_memory_limit_bytes",
    "The most memory that the job may take in the worker, without Python and libraries; missing if there is no limit.",
    ("job", "worker"),
)
WORKER_JOB_PEAK = Family(
    "gauge",
    "pipetrain_worker_peak_job_bytes",
    "The most memory that the job took in the worker, without what the process held before. The limit applies to it.",
    ("job", "worker"),
)
CHECKPOINT_STEP = Family("gauge", "pipetrain_checkpoint_step", "Updates in the job's newest checkpoint.", ("job",))
CHECKPOINT_TIME = Family(
    "gauge",
    "pipetrain_checkpoint_timestamp_seconds",
    "When the newest checkpoint became whole, in seconds UTC.",
    ("job",),
)
CHECKPOINT_BYTES = Family("gauge", "pipetrain_checkpoint_bytes", "Size of the newest checkpoint.", ("job",))
CHECKPOINT_SECONDS = Family(
    "gauge",
    "pipetrain_checkpoint_write_seconds",
    "How long the slowest worker wrote its files of the newest checkpoint, in the background.",
    ("job",),
)
CHECKPOINT_STALL = Family(
    "gauge", "pipetrain_checkpoint_stall_seconds", "How long training stood still for the newest checkpoint.", ("job",)
)
CHECKPOINT_INTERVAL = Family(
    "gauge",
    "pipetrain_checkpoint_interval_seconds",
    "From the checkpoint before, or from the start of training, to the newest checkpoint.",
    ("job",),
)
CHECKPOINTS = Family(
    "counter",
    "pipetrain_checkpoints_total",
    "Checkpoints of all attempts that were written, could not be written (failed), or were found damaged when the job "
    "had to go on; without the one at the end of the run.",
    ("job", "result"),
)
WORKERS_LOST = Family(
    "counter",
    "pipetrain_workers_lost_total",
    "Workers that were lost in all attempts, by what happened.",
    ("job", "cause"),
)
RECOVERIES = Family(
    "counter", "pipetrain_recoveries_total", "Times that the job replaced a lost worker and went on.", ("job",)
)
RECOVERY_SECONDS = Family(
    "counter",
    "pipetrain_recovery_seconds_total",
    "From finding a lost worker to the first new step, summed over all recoveries.",
    ("job",),
)
LAST_RECOVERY = Family(
    "gauge",
    "pipetrain_last_recovery_seconds",
    "From finding a lost worker to the first new step, in the last recovery.",
    ("job",),
)
STEPS_AGAIN = Family(
    "counter",
    "pipetrain_steps_made_again_total",
    "Steps since the newest checkpoint that had to be made again after a worker or an attempt was lost.",
    ("job",),
)


def _of_figure(metric: Metric) -> Family:
    return Family("gauge", metric.name, metric.help, ("job",) if metric.kind is None else ("job", "kind"))


FIGURES = {
    one.shown.series: (_of_figure(one.shown.metric), one.shown.metric.kind)
    for one in (*STEP_FIGURES, *EVAL_FIGURES)
    if one.shown.metric is not None
}
"""The family of each series that has one, and its value of the label `kind` (None without that label)."""
OF_FIGURES = tuple(dict.fromkeys(family for family, _ in FIGURES.values()))
ALL = (*(family for family in tuple(globals().values()) if isinstance(family, Family)), *OF_FIGURES)
"""Every metric, in the order in which docs/metrics.md lists them."""

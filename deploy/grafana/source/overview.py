"""The dashboard of all jobs and of the cluster."""

from __future__ import annotations

from deploy.grafana.source.model import Dashboard, Mark, Query, Row
from deploy.grafana.source.panels import lines, number, table

_TO_JOB = {"title": "Its pipeline", "url": "/d/pipetrain-job/?var-job=${__data.fields.job}&${__url_time_range}"}
_UP = {"0": ("no", "red"), "1": ("yes", "green")}


def _now(expr: str) -> Query:
    return Query(expr, instant=True, form="table")


JOBS = Row(
    "Jobs",
    (
        number(
            "Service answers",
            "Whether Prometheus reached the job service at its last try.",
            Query('min(up{job="pipetrain"})'),
            words=_UP,
        ),
        number(
            "Ray connected",
            "Whether the service is connected to its Ray cluster.",
            Query("min(pipetrain_ray_up)"),
            words=_UP,
        ),
        number("Running", "Jobs that make steps now.", Query('sum(pipetrain_jobs{state="RUNNING"})')),
        number(
            "Waiting",
            "Jobs that wait for room in the cluster, for the first time or again.",
            Query('sum(pipetrain_jobs{state=~"QUEUED|RECOVERING"})'),
        ),
        number(
            "Longest wait",
            "How long the oldest waiting job has waited; 0 if no job waits.",
            Query("max(pipetrain_queue_oldest_wait_seconds)"),
            "s",
        ),
        number(
            "Failed in this time",
            "Jobs that failed in the time range shown, with any kind of error.",
            Query("sum(increase(pipetrain_job_failures_total[$__range]))", instant=True),
            limits=((None, "green"), (1, "red")),
        ),
        table(
            "Jobs that run or ended lately",
            "A line for each job, until five minutes after its end. Its id is a link to the dashboard of its pipeline.",
            {
                "": _now("max by (job, name) (pipetrain_job_info)"),
                "step": _now("max by (job) (pipetrain_steps_total)"),
                "done": _now("max by (job) (pipetrain_steps_total / pipetrain_job_planned_steps)"),
                "loss": _now('max by (job) (pipetrain_loss{kind="train"})'),
                "samples/s": _now("sum by (job) (rate(pipetrain_samples_total[$__rate_interval]))"),
                "bubble": _now("max by (job) (pipetrain_bubble_ratio)"),
                "predicted": _now("max by (job) (pipetrain_bubble_predicted_ratio)"),
                "since last step": _now("time() - max by (job) (pipetrain_last_step_timestamp_seconds)"),
                "since checkpoint": _now("time() - max by (job) (pipetrain_checkpoint_timestamp_seconds)"),
                "workers lost": _now("sum by (job) (pipetrain_workers_lost_total)"),
            },
            units={
                **dict.fromkeys(("done", "bubble", "predicted"), "percentunit"),
                **dict.fromkeys(("since last step", "since checkpoint"), "s"),
            },
            link=_TO_JOB,
        ),
        lines(
            "Jobs by state",
            "Jobs that have not ended, by state.",
            Query('sum by (state) (pipetrain_jobs{state=~"QUEUED|STARTING|RUNNING|RECOVERING"})', "{{state}}"),
            stack="normal",
            width=8,
            decimals=0,
        ),
        lines(
            "Ends of jobs",
            "Jobs that ended in each interval, by their final state.",
            Query("sum by (state) (increase(pipetrain_jobs_ended_total[$__rate_interval]))", "{{state}}"),
        ),
        lines(
            "Failures by kind",
            "Jobs that failed in each interval, by kind of error. Lost workers and NonFinite have alerts.",
            Query("sum by (kind) (increase(pipetrain_job_failures_total[$__rate_interval]))", "{{kind}}"),
        ),
    ),
)

TRAINING = Row(
    "Training",
    (
        lines(
            "Samples a second",
            "Rows that each job trains on in a second.",
            Query("sum by (job) (rate(pipetrain_samples_total[$__rate_interval]))", "{{job}}"),
            stack="normal",
        ),
        lines(
            "Training loss",
            "Mean loss of each job over its present epoch so far. Different loss functions are not comparable.",
            Query('max by (job) (pipetrain_loss{kind="train"})', "{{job}}"),
        ),
        lines(
            "Bubble above prediction",
            "The part of each job's bubble that its schedule does not explain. If it is far above zero, time is lost "
            "to sending, waking up, or a busy host.",
            Query("max by (job) (pipetrain_bubble_ratio - pipetrain_bubble_predicted_ratio)", "{{job}}"),
            unit="percentunit",
        ),
    ),
)

QUEUE = Row(
    "Queue",
    (
        lines(
            "Wait before the start",
            "From submission to admission: half and 95 % of the jobs of the last hour waited at most this time.",
            *(
                Query(f"histogram_quantile({q}, sum by (le) (increase(pipetrain_queue_wait_seconds_bucket[1h])))", name)
                for q, name in ((0.5, "half"), (0.95, "95 %"))
            ),
            unit="s",
        ),
        lines(
            "Room in the queue",
            "Waiting jobs, and the limit of the queue. At the limit the service refuses Submit.",
            Query('sum(pipetrain_jobs{state="QUEUED"})', "waiting"),
            Query("sum(pipetrain_queue_limit_jobs)", "limit"),
        ),
        lines(
            "Workers started again",
            "Times that a job's workers were started again in each interval, because Ray was lost.",
            Query("sum by (cause) (increase(pipetrain_worker_restarts_total[$__rate_interval]))", "{{cause}}"),
        ),
        lines(
            "Workers lost",
            "Workers that running jobs lost in each interval, by what happened; jobs replace them and go on.",
            Query("sum by (cause) (increase(pipetrain_workers_lost_total[$__rate_interval]))", "{{cause}}"),
            stack="normal",
            width=24,
        ),
    ),
)

CLUSTER = Row(
    "Cluster",
    (
        lines(
            "CPUs",
            "CPUs of the cluster that jobs have reserved, and all CPUs.",
            Query("sum(pipetrain_cluster_cpus_used)", "reserved"),
            Query("sum(pipetrain_cluster_cpus)", "all"),
            min=0,
        ),
        lines(
            "Memory",
            "Memory that jobs have reserved, the peak of their workers, and all memory of the cluster.",
            Query("sum(pipetrain_cluster_memory_used_bytes)", "reserved"),
            Query("sum(pipetrain_worker_peak_resident_bytes)", "peak of workers"),
            Query("sum(pipetrain_cluster_memory_bytes)", "all"),
            unit="bytes",
            min=0,
        ),
        number("Nodes", "Machines in the Ray cluster.", Query("sum(pipetrain_cluster_nodes)")),
        number(
            "Service up since",
            "How long the service's process has been running.",
            Query("time() - min(pipetrain_service_start_time_seconds)"),
            "s",
        ),
    ),
)

SERVICE = Row(
    "Service",
    (
        lines(
            "Calls a second",
            "Calls that the gRPC port answered, by method and status code.",
            Query(
                "sum by (method, code) (rate(pipetrain_rpcs_total[$__rate_interval]))",
                "{{method}} {{code}}",
            ),
            unit="reqps",
        ),
        lines(
            "Time to answer",
            "95 % of the calls with one answer took at most this time in the last five minutes, by method.",
            Query(
                "histogram_quantile(0.95, sum by (method, le) (rate(pipetrain_rpc_duration_seconds_bucket[5m])))",
                "{{method}}",
            ),
            unit="s",
        ),
        lines(
            "Open calls",
            "Calls that are being answered, mostly those that watch a job or follow a log.",
            Query("sum by (method) (pipetrain_rpcs_open)", "{{method}}"),
            decimals=0,
        ),
        lines(
            "Scrape",
            "How long Prometheus waited for /metrics. 50 jobs of 8 stages take at most 50 ms.",
            Query('max(scrape_duration_seconds{job="pipetrain"})', "scrape"),
            unit="s",
        ),
        table(
            "Version",
            "The running versions of pipetrain and Python.",
            {"": _now("max by (version, python) (pipetrain_build_info)")},
            units={},
            width=8,
        ),
    ),
)

OVERVIEW = Dashboard(
    uid="pipetrain-overview",
    title="pipetrain: jobs and cluster",
    description="All jobs of the service, the queue, the cluster under it, and the service itself.",
    rows=(JOBS, TRAINING, QUEUE, CLUSTER, SERVICE),
    marks=(
        Mark("Job began", "pipetrain_job_start_time_seconds * 1000", "{{job}}", "blue", value_is_time=True),
        Mark("Job ended", "pipetrain_job_end_time_seconds * 1000", "{{job}}", "purple", value_is_time=True),
        Mark(
            "Job failed",
            "1000 * pipetrain_job_failure_info * on (job) group_left () pipetrain_job_end_time_seconds",
            "{{job}}: {{kind}}",
            "red",
            value_is_time=True,
        ),
        Mark("Workers started again", "changes(pipetrain_job_attempt[$__interval]) > 0", "{{job}}", "orange"),
    ),
)

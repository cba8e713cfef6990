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
            "How long the job that was submitted first has been waiting; 0 if none does.",
            Query("max(pipetrain_queue_oldest_wait_seconds)"),
            "s",
        ),
        number(
            "Failed in this time",
            "Jobs that failed in the time shown, of every kind of error.",
            Query("sum(increase(pipetrain_job_failures_total[$__range]))", instant=True),
            limits=((None, "green"), (1, "red")),
        ),
        table(
            "Jobs that run or ended lately",
            "One line a job, until five minutes after its end; its id leads to the dashboard of its pipeline.",
            {
                "": _now("max by (job, name) (pipetrain_job_info)"),
                "step": _now("max by (job) (pipetrain_steps_total)"),
                "done": _now("max by (job) (pipetrain_steps_total / pipetrain_job_planned_steps)"),
                "loss": _now('max by (job) (pipetrain_loss{kind="train"})'),
                "samples/s": _now("sum by (job) (rate(pipetrain_samples_total[$__rate_interval]))"),
                "bubble": _now("max by (job) (pipetrain_bubble_ratio)"),
                "predicted": _now("max by (job) (pipetrain_bubble_predicted_ratio)"),
                "since last step": _now("time() - max by (job) (pipetrain_last_step_timestamp_seconds)"),
            },
            units={"done": "percentunit", "bubble": "percentunit", "predicted": "percentunit", "since last step": "s"},
            link=_TO_JOB,
        ),
        lines(
            "Jobs by state",
            "Jobs that have not ended, by state: what waits, starts, runs, or starts again.",
            Query('sum by (state) (pipetrain_jobs{state=~"QUEUED|STARTING|RUNNING|RECOVERING"})', "{{state}}"),
            stack="normal",
            width=8,
            decimals=0,
        ),
        lines(
            "Ends of jobs",
            "Jobs that ended within each interval, by how they ended.",
            Query("sum by (state) (increase(pipetrain_jobs_ended_total[$__rate_interval]))", "{{state}}"),
        ),
        lines(
            "Failures by kind",
            "Jobs that failed within each interval, by kind of error; lost workers and NonFinite have alerts.",
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
            "Loss of each job's last step; jobs with different losses do not compare.",
            Query('max by (job) (pipetrain_loss{kind="train"})', "{{job}}"),
        ),
        lines(
            "Bubble above prediction",
            "How much larger the measured bubble of each job is than its schedule explains; what is far above zero is "
            "lost to sending, waking up, or a busy host.",
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
            "From submission to admission: half and 95 % of the jobs admitted in the hour before waited at most that.",
            *(
                Query(f"histogram_quantile({q}, sum by (le) (increase(pipetrain_queue_wait_seconds_bucket[1h])))", name)
                for q, name in ((0.5, "half"), (0.95, "95 %"))
            ),
            unit="s",
        ),
        lines(
            "Room in the queue",
            "Jobs that wait beside the most that the queue takes; at the limit Submit is refused.",
            Query('sum(pipetrain_jobs{state="QUEUED"})', "waiting"),
            Query("sum(pipetrain_queue_limit_jobs)", "limit"),
        ),
        lines(
            "Workers started anew",
            "Jobs whose workers were started again because what they ran on was lost, within each interval.",
            Query("sum by (cause) (increase(pipetrain_worker_restarts_total[$__rate_interval]))", "{{cause}}"),
        ),
    ),
)

CLUSTER = Row(
    "Cluster",
    (
        lines(
            "CPUs",
            "CPUs of the cluster that jobs have reserved, and all that there are.",
            Query("sum(pipetrain_cluster_cpus_used)", "reserved"),
            Query("sum(pipetrain_cluster_cpus)", "all"),
            min=0,
        ),
        lines(
            "Memory",
            "Memory that jobs have reserved, what their workers held at their peak, and all that there is.",
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
            "95 % of the calls with one answer took at most that in the five minutes before, by method.",
            Query(
                "histogram_quantile(0.95, sum by (method, le) (rate(pipetrain_rpc_duration_seconds_bucket[5m])))",
                "{{method}}",
            ),
            unit="s",
        ),
        lines(
            "Open calls",
            "Calls that are being answered: those who watch a job or follow a log, above all.",
            Query("sum by (method) (pipetrain_rpcs_open)", "{{method}}"),
            decimals=0,
        ),
        lines(
            "Scrape",
            "How long Prometheus waited for /metrics; 50 jobs of 8 stages take 50 ms at most.",
            Query('max(scrape_duration_seconds{job="pipetrain"})', "scrape"),
            unit="s",
        ),
        table(
            "Version",
            "What runs: the version of pipetrain and of Python.",
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
        Mark("Workers started anew", "changes(pipetrain_job_attempt[$__interval]) > 0", "{{job}}", "orange"),
    ),
)

"""The dashboard of one job's pipeline."""

from __future__ import annotations

from deploy.grafana.source.model import Choice, Dashboard, Mark, Query, Row
from deploy.grafana.source.panels import buckets, history, lines, matrix, number, states
from deploy.grafana.source.queries import OF_JOB, OF_STAGES, rate, seconds
from deploy.grafana.source.survival import MARKS, SURVIVAL

_COLORS = {
    "QUEUED": "yellow",
    "STARTING": "light-blue",
    "RUNNING": "green",
    "RECOVERING": "orange",
    "SUCCEEDED": "blue",
    "FAILED": "red",
    "STOPPED": "purple",
}
_BACK = {
    "title": "All jobs",
    "type": "link",
    "url": "/d/pipetrain-overview",
    "icon": "arrow-left",
    "keepTime": True,
    "targetBlank": False,
}


def _duration(quantile: float) -> Query:
    inner = f"sum by (le) ({rate('pipetrain_step_duration_seconds_bucket')})"
    return Query(f"histogram_quantile({quantile}, {inner})", f"{quantile:.0%} at most")


_MEAN_DURATION = Query(
    f"sum({rate('pipetrain_step_duration_seconds_sum')}) / sum({rate('pipetrain_step_duration_seconds_count')})", "mean"
)

HEALTH = Row(
    "Health",
    (
        number(
            "State",
            "The state of the job. `pipetrain status` shows the reason.",
            Query(f"pipetrain_job_state{{{OF_JOB}}} == 1", "{{state}}", instant=True),
            text="name",
        ),
        number(
            "Name",
            "The name in the job file.",
            Query(f"pipetrain_job_info{{{OF_JOB}}}", "{{name}}", instant=True),
            text="name",
        ),
        number(
            "Done",
            "Share of the job's steps that the present attempt has done.",
            Query(f"pipetrain_steps_total{{{OF_JOB}}} / pipetrain_job_planned_steps{{{OF_JOB}}}"),
            "percentunit",
        ),
        number(
            "Time left",
            "Time for the remaining steps at the present speed, including the time that evaluations take.",
            Query(
                f"(pipetrain_job_planned_steps{{{OF_JOB}}} - pipetrain_steps_total{{{OF_JOB}}}) "
                f"/ {rate('pipetrain_steps_total')}"
            ),
            "s",
        ),
        number(
            "Since the last step",
            "Time since the last step. If it is far above the usual step time, the job hangs, evaluates, or has ended.",
            Query(f"time() - pipetrain_last_step_timestamp_seconds{{{OF_JOB}}}"),
            "s",
        ),
        number(
            "Attempt",
            "Number of the job's present attempt. Above 1, its workers were lost and started again.",
            Query(f"pipetrain_job_attempt{{{OF_JOB}}}"),
            limits=((None, "green"), (2, "orange")),
        ),
        states(
            "States",
            "The job's states over time.",
            Query(f"pipetrain_job_state{{{OF_JOB}}} == 1", "{{state}}"),
            _COLORS,
            width=16,
        ),
        number(
            "Waited in the queue",
            "From its submission to its first admission.",
            Query(f"pipetrain_job_queue_wait_seconds{{{OF_JOB}}}"),
            "s",
        ),
        number(
            "Tightest memory",
            "The largest share of its memory limit that the job took in any worker. At 100 % the job fails.",
            Query(
                f"max(pipetrain_worker_peak_job_bytes{{{OF_JOB}}} / pipetrain_worker_memory_limit_bytes{{{OF_JOB}}})"
            ),
            "percentunit",
            limits=((None, "green"), (0.8, "orange"), (0.95, "red")),
        ),
    ),
)

THROUGHPUT = Row(
    "Throughput",
    (
        lines(
            "Samples a second",
            "Rows trained on in a second.",
            Query(f"sum({rate('pipetrain_samples_total')})", "samples/s"),
            min=0,
        ),
        lines(
            "Steps a second",
            "Updates of the weights in a second.",
            Query(f"sum({rate('pipetrain_steps_total')})", "steps/s"),
            min=0,
        ),
        lines(
            "Step duration",
            "Half, 95 % and 99 % of the steps take at most this time, without evaluations between steps. Steps that "
            "were held up count in the mean, and hardly in the half.",
            _MEAN_DURATION,
            _duration(0.5),
            _duration(0.95),
            _duration(0.99),
            unit="s",
            min=0,
        ),
        buckets(
            "Step durations",
            "The number of steps by duration. Two bright bands are two kinds of steps.",
            Query(
                f"sum by (le) (increase(pipetrain_step_duration_seconds_bucket{{{OF_JOB}}}[$__rate_interval]))",
                "{{le}}",
                form="heatmap",
            ),
            unit="s",
        ),
        lines(
            "Learning rate and gradient norm",
            "The learning rate of the last step, and the norm of all stages' gradients before clipping.",
            Query(f"pipetrain_learning_rate{{{OF_JOB}}}", "learning rate"),
            Query(f"pipetrain_gradient_norm{{{OF_JOB}}}", "gradient norm"),
            width=12,
        ),
        lines(
            "Loss",
            "Training: mean over the rows of the present epoch so far. Validation: the last evaluation, on other rows.",
            Query(f"pipetrain_loss{{{OF_JOB}}}", "{{kind}}"),
            width=12,
        ),
        lines(
            "Accuracy",
            "Share of rows that are classified right; classifiers only.",
            Query(f"pipetrain_accuracy_ratio{{{OF_JOB}}}", "{{kind}}"),
            unit="percentunit",
            width=12,
            max=1,
        ),
        lines(
            "Perplexity and bits per byte",
            "Of the validation text in the last evaluation; jobs on text only.",
            Query(f"pipetrain_validation_perplexity{{{OF_JOB}}}", "perplexity"),
            Query(f"pipetrain_validation_bits_per_byte{{{OF_JOB}}}", "bits per byte"),
            width=12,
            min=0,
        ),
    ),
)

_SPENT_ON = (
    f'label_replace(label_replace(sum by (stage, kind, cause) ({seconds()}), "spent_on", "$1", "kind", "(.*)"), '
    '"spent_on", "wait, $1", "cause", "(.+)")'
)

PIPELINE = Row(
    "Pipeline",
    (
        matrix(
            "Where each stage's time goes",
            "Share of a stage's time by kind. Waits and sends are its bubble. Checkpoint, recovery, evaluation and "
            "other belong to the whole worker and are shown at its first stage.",
            Query(
                f"sum by (stage, spent_on) ({_SPENT_ON}) / on (stage) group_left () sum by (stage) ({seconds()})",
                instant=True,
                form="table",
            ),
            row="stage",
            column="spent_on",
            unit="percentunit",
            min=0,
            max=1,
            decimals=1,
        ),
        lines(
            "Bubble, measured and predicted",
            "Share of the workers' time, without evaluations, that waits and sends take; and the bubble that the "
            "schedule has with the measured times of its actions. Messages or a busy host cause the difference.",
            Query(
                f"sum({seconds('wait|send', OF_JOB)}) "
                f"/ (sum({seconds('.+', OF_JOB)}) - sum({seconds('evaluation', OF_JOB)}))",
                "measured",
            ),
            Query(f"pipetrain_bubble_predicted_ratio{{{OF_JOB}}}", "predicted"),
            unit="percentunit",
            width=12,
            min=0,
        ),
        history(
            "Bubble by stage",
            "The bubble of each stage in the last one to two seconds before the scrape.",
            Query(f"pipetrain_stage_bubble_ratio{{{OF_STAGES}}}", "stage {{stage}}"),
            unit="percentunit",
            min=0,
            max=1,
        ),
        lines(
            "Stage bubble above prediction",
            "The part of each stage's bubble that its schedule does not explain.",
            Query(
                f"pipetrain_stage_bubble_ratio{{{OF_STAGES}}} - pipetrain_stage_bubble_predicted_ratio{{{OF_STAGES}}}",
                "stage {{stage}}",
            ),
            unit="percentunit",
        ),
        lines(
            "Time by kind",
            "All time of the chosen stages by kind, as shares.",
            Query(f"sum by (kind) ({seconds()})", "{{kind}}"),
            unit="percentunit",
            stack="percent",
        ),
        lines(
            "Waits by cause",
            "Mean share of time that the chosen stages wait for arrays: until the first backward action (warm-up), "
            "after the last forward action (drain), and between (steady). A good schedule has few steady waits.",
            Query(f"avg by (cause) ({seconds('wait')})", "{{cause}}"),
            unit="percentunit",
            stack="normal",
        ),
        lines(
            "Compute by stage",
            "Share of time that each stage computes. The highest is the bottleneck; a better partition evens them out.",
            Query(
                f"sum by (stage) ({seconds('forward|input_gradient|weight_gradient|update')})",
                "stage {{stage}}",
            ),
            unit="percentunit",
            width=12,
            min=0,
        ),
        lines(
            "Stalls",
            "Mean share of time in which workers make no steps, because they save checkpoints, recover or evaluate.",
            Query(f"avg by (kind) ({seconds('checkpoint|recovery|evaluation')})", "{{kind}}"),
            unit="percentunit",
            stack="normal",
            width=12,
            min=0,
        ),
    ),
)

MEMORY = Row(
    "Memory",
    (
        lines(
            "Arrays of the stages",
            "Bytes of arrays that the chosen stages hold, by kind; of kept activations, the peak.",
            Query(f"sum by (kind) (pipetrain_stage_held_bytes{{{OF_STAGES}}})", "{{kind}}"),
            unit="bytes",
            stack="normal",
            min=0,
        ),
        lines(
            "Kept activations by stage",
            "The peak of the activations that each stage keeps, and its prediction from the schedule.",
            Query(f'pipetrain_stage_held_bytes{{{OF_STAGES}, kind="activations"}}', "stage {{stage}}"),
            Query(f"pipetrain_stage_predicted_activation_bytes{{{OF_STAGES}}}", "stage {{stage}}, predicted"),
            unit="bytes",
            min=0,
        ),
        lines(
            "Workers against their limit",
            "The most memory that the job took in each worker, as a share of the limit.",
            Query(
                f"pipetrain_worker_peak_job_bytes{{{OF_JOB}}} / pipetrain_worker_memory_limit_bytes{{{OF_JOB}}}",
                "worker {{worker}}",
            ),
            unit="percentunit",
            min=0,
            max=1,
        ),
        lines(
            "Peak of the workers",
            "The most memory that each worker's process held: its arrays, its data, Python and libraries.",
            Query(f"pipetrain_worker_peak_resident_bytes{{{OF_JOB}}}", "worker {{worker}}"),
            unit="bytes",
            width=24,
            min=0,
        ),
    ),
)

LINKS = Row(
    "Links",
    (
        lines(
            "Bytes a second",
            "Bytes of activations and gradients that workers send each other.",
            Query(rate("pipetrain_link_bytes_total"), "{{from_worker}} to {{to_worker}}"),
            unit="Bps",
            min=0,
        ),
        lines(
            "Messages a second",
            "Arrays that workers send each other: one for each micro-batch and direction.",
            Query(rate("pipetrain_link_messages_total"), "{{from_worker}} to {{to_worker}}"),
            unit="ops",
            min=0,
        ),
        lines(
            "Size of a message",
            "Mean size of a sent array. Sending a small one takes about as long as sending a large one.",
            Query(
                f"{rate('pipetrain_link_bytes_total')} / {rate('pipetrain_link_messages_total')}",
                "{{from_worker}} to {{to_worker}}",
            ),
            unit="bytes",
            min=0,
        ),
    ),
)

JOB = Dashboard(
    uid="pipetrain-job",
    title="pipetrain: one job's pipeline",
    description="What one job does, how fast it is, and what slows it down.",
    rows=(HEALTH, THROUGHPUT, PIPELINE, SURVIVAL, MEMORY, LINKS),
    choices=(
        Choice("job", "Job", "label_values(pipetrain_job_info, job)"),
        Choice("stage", "Stage", f"label_values(pipetrain_stage_seconds_total{{{OF_JOB}}}, stage)", many=True),
    ),
    marks=(
        Mark("Began", f"pipetrain_job_start_time_seconds{{{OF_JOB}}} * 1000", "{{job}}", "blue", value_is_time=True),
        Mark("Ended", f"pipetrain_job_end_time_seconds{{{OF_JOB}}} * 1000", "{{job}}", "purple", value_is_time=True),
        Mark(
            "Failed",
            f"1000 * pipetrain_job_failure_info{{{OF_JOB}}} * on (job) group_left () pipetrain_job_end_time_seconds",
            "{{kind}}",
            "red",
            value_is_time=True,
        ),
        Mark(
            "Workers started again",
            f"changes(pipetrain_job_attempt{{{OF_JOB}}}[$__rate_interval]) > 0",
            "{{job}}",
            "orange",
        ),
        *MARKS,
    ),
    links=(_BACK,),
)

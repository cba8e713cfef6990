"""The row of a job's dashboard about its checkpoints and recoveries, and the marks of these over all panels."""

from __future__ import annotations

from deploy.grafana.source.model import Mark, Query, Row
from deploy.grafana.source.panels import lines, number
from deploy.grafana.source.queries import OF_JOB, seconds


def _more(metric: str) -> str:
    return f"increase({metric}{{{OF_JOB}}}[$__rate_interval])"


SURVIVAL = Row(
    "Checkpoints and recoveries",
    (
        number(
            "Newest checkpoint",
            "How long ago the newest checkpoint became whole. What was trained since then is made again after a loss.",
            Query(f"time() - pipetrain_checkpoint_timestamp_seconds{{{OF_JOB}}}"),
            "s",
        ),
        number(
            "Its step",
            "Updates in the newest checkpoint.",
            Query(f"pipetrain_checkpoint_step{{{OF_JOB}}}"),
        ),
        number(
            "Its size", "Bytes of the newest checkpoint.", Query(f"pipetrain_checkpoint_bytes{{{OF_JOB}}}"), "bytes"
        ),
        number(
            "Workers lost",
            "Workers that the job has lost in all its attempts.",
            Query(f"sum(pipetrain_workers_lost_total{{{OF_JOB}}})"),
            limits=((None, "green"), (1, "orange")),
        ),
        number(
            "Last recovery",
            "From finding the last lost worker to the first new step.",
            Query(f"pipetrain_last_recovery_seconds{{{OF_JOB}}}"),
            "s",
        ),
        number(
            "Steps made again",
            "Steps that had to be made again because they were later than the newest checkpoint.",
            Query(f"pipetrain_steps_made_again_total{{{OF_JOB}}}"),
        ),
        lines(
            "Steps since the newest checkpoint",
            "The steps that a loss at this moment would cost.",
            Query(f"pipetrain_steps_total{{{OF_JOB}}} - pipetrain_checkpoint_step{{{OF_JOB}}}", "steps"),
            min=0,
        ),
        lines(
            "Time of a checkpoint",
            "How long the slowest worker wrote its files of the newest checkpoint, in the background, and how long "
            "training stood still for it.",
            Query(f"pipetrain_checkpoint_write_seconds{{{OF_JOB}}}", "writing"),
            Query(f"pipetrain_checkpoint_stall_seconds{{{OF_JOB}}}", "training stood still"),
            unit="s",
            min=0,
        ),
        lines(
            "Share of time for checkpoints and recoveries",
            "Share of all workers' time in which they copied their state for a checkpoint, and in which they made no "
            "step because a lost worker was found and replaced.",
            *(
                Query(f"sum({seconds(kind, OF_JOB)}) / sum({seconds('.+', OF_JOB)})", kind)
                for kind in ("checkpoint", "recovery")
            ),
            unit="percentunit",
            min=0,
        ),
        lines(
            "Checkpoints",
            "Checkpoints in each interval that were written, could not be written, or were found damaged.",
            Query(f"sum by (result) ({_more('pipetrain_checkpoints_total')})", "{{result}}"),
        ),
        lines(
            "Workers lost by cause",
            "Workers that were lost in each interval, by what happened to them.",
            Query(f"sum by (cause) ({_more('pipetrain_workers_lost_total')})", "{{cause}}"),
            stack="normal",
        ),
        lines(
            "Time to recover",
            "Mean time of the recoveries in each interval, from finding the loss to the first new step.",
            Query(
                f"{_more('pipetrain_recovery_seconds_total')} / ({_more('pipetrain_recoveries_total')} > 0)", "recovery"
            ),
            unit="s",
            min=0,
        ),
    ),
)

MARKS = (
    Mark(
        "Checkpoint",
        f"pipetrain_checkpoint_timestamp_seconds{{{OF_JOB}}} * 1000",
        "{{job}}",
        "green",
        value_is_time=True,
    ),
    Mark("Worker lost", f"sum by (cause) ({_more('pipetrain_workers_lost_total')}) > 0", "{{cause}}", "red"),
    Mark("Recovered", f"{_more('pipetrain_recoveries_total')} > 0", "{{job}}", "light-green"),
)

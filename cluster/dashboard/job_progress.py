"""The progress of a job: per cent, time left, and the title of its browser tab. This module does not depend on the
web."""

from __future__ import annotations

from cluster.service.job_stats import JobStats
from cluster.service.records import JobRecord
from coordinator.texts import span

SIGNS = {
    "QUEUED": "…",
    "STARTING": "◔",
    "RECOVERING": "↻",
    "RUNNING": "▶",
    "SUCCEEDED": "✓",
    "FAILED": "✗",
    "STOPPED": "■",
}


def percent(record: JobRecord) -> int | None:
    """Return the share of the steps that are finished in whole per cent, 100 only at the end; None if their number is
    not known yet."""
    return None if not record.steps_total else 100 * record.step // record.steps_total


def time_left(record: JobRecord, stats: JobStats | None) -> str:
    """Return the time left, such as `5 min left`, at the speed of the last steps and without evaluations; empty if it
    is not known."""
    return left_text(record.state.name, record.step, record.steps_total, stats)


def left_text(state: str, step: int, steps_total: int | None, stats: JobStats | None) -> str:
    """Return the same as `time_left`, for a job that has done `step` steps."""
    if state != "RUNNING" or not steps_total or stats is None or not stats.steps:
        return ""
    rate = stats.recent.samples_per_second
    if not rate:
        return ""
    samples_a_step = stats.samples / stats.steps
    return f"{span((steps_total - step) * samples_a_step / rate)} left"


def tab_title(record: JobRecord) -> str:
    """Return a tab title such as `▶ 14% digits`: a sign for the state, the per cent of a running job, and its name."""
    done = percent(record) if record.state.name == "RUNNING" else None
    return f"{SIGNS[record.state.name]} {'' if done is None else f'{done}% '}{record.name}"

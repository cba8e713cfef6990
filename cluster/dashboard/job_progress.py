"""How far a job is: per cent, time left, and the title of its browser tab. Nothing here knows the web."""

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
    """Whole per cent of the steps that are finished, 100 only at the end; None if their number is not known yet."""
    return None if not record.steps_total else 100 * record.step // record.steps_total


def time_left(record: JobRecord, stats: JobStats | None) -> str:
    """`5 min left`, at the speed of the last steps and without evaluations; empty if nothing can be said."""
    if record.state.name != "RUNNING" or not record.steps_total or stats is None or not stats.steps:
        return ""
    rate = stats.recent.samples_per_second
    if not rate:
        return ""
    samples_a_step = stats.samples / stats.steps
    return f"{span((record.steps_total - record.step) * samples_a_step / rate)} left"


def tab_title(record: JobRecord) -> str:
    """`▶ 14% digits`: a sign for the state, and the per cent of a job that runs."""
    done = percent(record) if record.state.name == "RUNNING" else None
    return f"{SIGNS[record.state.name]} {'' if done is None else f'{done}% '}{record.name}"

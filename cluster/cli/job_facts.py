"""The facts of one job, a line each."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from cluster.cli.job_tables import run_time
from cluster.cli.texts import clock, one_line, since, steps
from cluster.client import Job
from coordinator.texts import counted, number, share, size, text_measures


def print_facts(job: Job) -> None:
    """Print the facts: names in one column, values in the other."""
    for name, value in facts(job):
        click.echo(f"{name:<12}{one_line(value)}")


def facts(job: Job) -> list[tuple[str, str]]:
    """Return (name, value) of each fact that is known."""
    now = datetime.now(UTC)
    resources = f"{counted(job.workers, 'worker')}, {counted(job.cpus, 'CPU')}"
    resources += f", {size(job.memory)}" if job.memory else ""  # 0: the job sets no memory limit
    ago = f" ({since(job.submitted_at, now)} ago)"
    found = [
        ("id", job.id),
        ("name", job.name),
        ("state", job.state),
        ("reason", one_line(job.reason)),
        ("queue", "" if job.queue_position is None else f"{job.queue_position} of {job.queue_length}"),
        ("priority", f"{job.priority}" if job.priority else ""),
        ("step", steps(job)),
        ("mean loss", number(job.loss, "")),
        (
            "validation",
            ", accuracy ".join(filter(None, (number(job.validation_loss, ""), share(job.validation_accuracy, 2, "")))),
        ),
        ("text", ", ".join(text_measures(job.validation_perplexity, job.validation_bits_per_byte))),
        ("submitted", clock(job.submitted_at) + ago),
        ("started", clock(job.started_at)),
        ("ended", clock(job.ended_at)),
        ("took" if job.done else "running for", run_time(job, now)),
        ("attempt", f"{job.attempt}" if job.attempt > 1 else ""),
        ("resources", resources),
        ("model", "saved" if job.model_saved else "none yet" if not job.done else "none"),
        ("exit code", "" if job.exit_code is None else f"{job.exit_code}"),
    ]
    return [(name, value) for name, value in found if value]

"""Jobs and nodes as tables."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cluster.cli.texts import number, one_line, share, since, size, span, steps
from cluster.client import Job, Node

_WIDTH = 130  # where no terminal says how wide it is
_STYLES = {
    "QUEUED": "dim",
    "STARTING": "cyan",
    "RUNNING": "cyan",
    "RECOVERING": "yellow",
    "SUCCEEDED": "green",
    "FAILED": "red",
    "STOPPED": "yellow",
}


def console() -> Console:
    """Standard output: as wide as the terminal, or wide enough for a file."""
    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(highlight=False, width=max(_WIDTH, shutil.get_terminal_size((_WIDTH, 24)).columns))


def jobs_table(jobs: Iterable[Job], *, wide: bool = False) -> Table:
    """A line a job. What it waits for, or why it failed, fills what is left of the line."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("ID", no_wrap=True, min_width=8)
    table.add_column("NAME", overflow="fold")
    table.add_column("STATE", no_wrap=True, min_width=6)
    table.add_column("STEP", no_wrap=True, justify="right")
    table.add_column("LOSS", no_wrap=True, justify="right")
    table.add_column("AGE", no_wrap=True, justify="right")
    table.add_column("TIME", no_wrap=True, justify="right")
    if wide:
        for heading in ("VALIDATION", "ACCURACY", "WORKERS", "CPUS", "MEMORY", "PRIORITY", "ATTEMPT"):
            table.add_column(heading, no_wrap=True, justify="right")
    table.add_column("REASON", no_wrap=not wide, overflow="fold" if wide else "ellipsis", ratio=1)
    now = datetime.now(UTC)
    for job in jobs:
        cells: list[str | Text] = [
            job.id,
            job.name,
            Text(job.state, style=_STYLES.get(job.state, "")),
            steps(job) if job.step or job.steps_total is not None else "",
            number(job.loss),
            since(job.submitted_at, now),
            run_time(job, now),
        ]
        if wide:
            cells += [
                number(job.validation_loss),
                share(job.validation_accuracy),
                str(job.workers),
                str(job.cpus),
                size(job.memory),
                str(job.priority),
                str(job.attempt),
            ]
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in cells), Text(one_line(job.reason)))
    return table


def nodes_table(nodes: Iterable[Node]) -> Table:
    """A line a machine: what of it is given away to workers."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("NODE", "HOST", "ADDRESS", "STATE"):
        table.add_column(heading, no_wrap=heading != "HOST")
    for heading in ("CPUS", "MEMORY"):
        table.add_column(heading, no_wrap=True, justify="right")
    for node in nodes:
        table.add_row(
            Text(node.id[:12]),
            Text(node.host),
            Text(node.address),
            Text("alive" if node.alive else "GONE", style="" if node.alive else "red"),
            f"{node.cpus_used:g}/{node.cpus:g}",
            f"{size(node.memory_used)} of {size(node.memory)}",
        )
    return table


def run_time(job: Job, now: datetime) -> str:
    """How long it has been at it, from its admission to now or to its end."""
    if job.started_at is None:
        return ""
    return span(((job.ended_at or now) - job.started_at).total_seconds())

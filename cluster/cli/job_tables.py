"""Jobs and nodes as tables."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.console import Console
from rich.measure import Measurement
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


def print_jobs(jobs: Iterable[Job], *, wide: bool) -> None:
    """The table on standard output; a wide one is never cut, the terminal breaks its lines."""
    screen = console()
    table = jobs_table(jobs, width=screen.width, wide=wide)
    if wide:
        screen.width = max(
            screen.width, Measurement.get(screen, screen.options.update(max_width=10_000), table).maximum
        )
    screen.print(table)


def jobs_table(jobs: Iterable[Job], *, width: int, wide: bool = False) -> Table:
    """A line a job. What it waits for, or why it failed, fills what is left of the line.

    Where the terminal is narrow, times and loss are left out first; `wide` shows everything, whatever the width.
    """
    now = datetime.now(UTC)
    columns = [column for column in _COLUMNS if (wide or not column.only_wide) and (wide or width >= column.from_width)]
    table = _table()
    for column in columns:
        table.add_column(column.heading, no_wrap=not column.yields, justify="right" if column.right else "left")
    for job in jobs:
        table.add_row(*(_cell(column, job, now) for column in columns))
    return table


@dataclass(frozen=True, slots=True)
class _Column:
    """A column; one that `yields` becomes shorter where the line is full."""

    heading: str
    text: Callable[[Job, datetime], str]
    right: bool = False
    yields: bool = False
    from_width: int = 0
    only_wide: bool = False


_COLUMNS = (
    _Column("ID", lambda job, now: job.id),
    _Column("NAME", lambda job, now: job.name, yields=True),
    _Column("STATE", lambda job, now: job.state),
    _Column("STEP", lambda job, now: steps(job) if job.step or job.steps_total is not None else "", right=True),
    _Column("LOSS", lambda job, now: number(job.loss), right=True, from_width=60),
    _Column("AGE", lambda job, now: since(job.submitted_at, now), right=True, from_width=90),
    _Column("TIME", lambda job, now: run_time(job, now), right=True, from_width=75),
    _Column("VALIDATION", lambda job, now: number(job.validation_loss), right=True, only_wide=True),
    _Column("ACCURACY", lambda job, now: share(job.validation_accuracy), right=True, only_wide=True),
    _Column("WORKERS", lambda job, now: f"{job.workers}", right=True, only_wide=True),
    _Column("CPUS", lambda job, now: f"{job.cpus}", right=True, only_wide=True),
    _Column("MEMORY", lambda job, now: size(job.memory) if job.memory else "", right=True, only_wide=True),
    _Column("PRIORITY", lambda job, now: f"{job.priority}", right=True, only_wide=True),
    _Column("ATTEMPT", lambda job, now: f"{job.attempt}", right=True, only_wide=True),
    _Column("REASON", lambda job, now: one_line(job.reason), yields=True),
)


def _cell(column: _Column, job: Job, now: datetime) -> Text:
    style = _STYLES.get(job.state, "") if column.heading == "STATE" else ""
    return Text(column.text(job, now), style=style, no_wrap=True, overflow="ellipsis")


def _table() -> Table:
    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")


def nodes_table(nodes: Iterable[Node]) -> Table:
    """A line a machine: what of it is given away to workers."""
    table = _table()
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

"""Jobs and nodes as tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from cluster.cli.output import console
from cluster.cli.texts import one_line, since, steps
from cluster.client import Job, JobFigures, Node
from coordinator.texts import number, share, size, span

_STYLES = {
    "QUEUED": "dim",
    "STARTING": "cyan",
    "RUNNING": "cyan",
    "RECOVERING": "yellow",
    "SUCCEEDED": "green",
    "FAILED": "red",
    "STOPPED": "yellow",
}


def print_jobs(jobs: Iterable[Job], *, wide: bool, left: Mapping[str, float] | None = None) -> None:
    """Print the table of jobs. A wide table is printed with unbroken lines, even if the terminal is narrower."""
    screen = console()
    table = jobs_table(jobs, width=screen.width, wide=wide, left=left)
    if wide:
        screen.width = max(
            screen.width, Measurement.get(screen, screen.options.update(max_width=10_000), table).maximum
        )
    screen.print(table)


def jobs_table(
    jobs: Iterable[Job], *, width: int, wide: bool = False, left: Mapping[str, float] | None = None
) -> Table:
    """Return a table with a row for each job. The reason stands last and takes the rest of the line, or several lines.

    A narrow terminal omits columns, times and losses first; `wide` shows every column at any width. `left` has the
    seconds that running jobs still need, by job id.
    """
    now = datetime.now(UTC)
    columns = [column for column in _COLUMNS if (wide or not column.only_wide) and (wide or width >= column.from_width)]
    table = _table()
    for column in columns:
        table.add_column(
            column.heading,
            no_wrap=not column.wraps,
            overflow="fold",
            justify="right" if column.right else "left",
        )
    for job in jobs:
        line = _Line(job, now, (left or {}).get(job.id))
        table.add_row(*(_cell(column, line) for column in columns))
    return table


def left_of(jobs: Iterable[Job], figures: Mapping[str, JobFigures]) -> dict[str, float]:
    """Return the seconds that running jobs still need at the mean pace of their attempt, evaluations included, by
    id."""
    found = {}
    for job in jobs:
        now = figures.get(job.id)
        if now is None or job.state != "RUNNING" or job.steps_total is None or not now.step or not now.workers:
            continue
        seconds = max(sum(worker.microseconds.values()) for worker in now.workers) / 1e6
        if seconds > 0:
            found[job.id] = max(0, job.steps_total - now.step) * seconds / now.step
    return found


@dataclass(frozen=True, slots=True)
class _Line:
    """The content of a row: a job, the present time, and the seconds that the job still needs, None if not known."""

    job: Job
    now: datetime
    left: float | None


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of the table of jobs. If it `wraps`, long text takes several lines."""

    heading: str
    text: Callable[[_Line], str]
    right: bool = False
    wraps: bool = False
    from_width: int = 0
    only_wide: bool = False


_COLUMNS = (
    _Column("ID", lambda line: line.job.id),
    _Column("NAME", lambda line: line.job.name, wraps=True),
    _Column("STATE", lambda line: line.job.state),
    _Column("STEP", lambda line: _steps(line.job), right=True, from_width=50),
    _Column("DONE", lambda line: done(line.job), right=True, from_width=75),
    _Column(
        "LEFT", lambda line: "" if line.left is None else span(line.left, compact=True), right=True, from_width=100
    ),
    _Column("LOSS", lambda line: number(line.job.loss, ""), right=True, from_width=85),
    _Column("VALIDATION", lambda line: number(line.job.validation_loss, ""), right=True, from_width=110),
    _Column("AGE", lambda line: since(line.job.submitted_at, line.now), right=True, from_width=120),
    _Column("TIME", lambda line: run_time(line.job, line.now), right=True, from_width=95),
    _Column("ACCURACY", lambda line: share(line.job.validation_accuracy, 2, ""), right=True, only_wide=True),
    _Column("WORKERS", lambda line: f"{line.job.workers}", right=True, only_wide=True),
    _Column("CPUS", lambda line: f"{line.job.cpus}", right=True, only_wide=True),
    _Column("MEMORY", lambda line: size(line.job.memory) if line.job.memory else "", right=True, only_wide=True),
    _Column("PRIORITY", lambda line: f"{line.job.priority}", right=True, only_wide=True),
    _Column("ATTEMPT", lambda line: f"{line.job.attempt}", right=True, only_wide=True),
    _Column("REASON", lambda line: line.job.reason, wraps=True),
)


def _steps(job: Job) -> str:
    return steps(job) if job.step or job.steps_total is not None else ""


def done(job: Job) -> str:
    """Return the share of the job's steps that are done, such as `14%`: 100% only if all are; empty if their number is
    not known yet."""
    return f"{100 * job.step // job.steps_total}%" if job.steps_total else ""


def _cell(column: _Column, line: _Line) -> Text:
    return Text(one_line(column.text(line)), style=_STYLES.get(line.job.state, "") if column.heading == "STATE" else "")


def _table() -> Table:
    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")


def nodes_table(nodes: Iterable[Node]) -> Table:
    """Return a table with a line for each machine: its CPUs and memory, and how much of them workers have reserved."""
    table = _table()
    for heading in ("NODE", "HOST", "ADDRESS", "STATE"):
        table.add_column(heading, no_wrap=heading != "HOST")
    for heading in ("CPUS", "MEMORY"):
        table.add_column(heading, no_wrap=True, justify="right")
    for node in nodes:
        table.add_row(
            Text(node.id[:12]),
            Text(one_line(node.host)),
            Text(node.address),
            Text("alive" if node.alive else "GONE", style="" if node.alive else "red"),
            f"{node.cpus_used:g}/{node.cpus:g}",
            f"{size(node.memory_used)} of {size(node.memory)}",
        )
    return table


def run_time(job: Job, now: datetime) -> str:
    """Return how long the job has run, from its first start until now or its end; empty if it has not started."""
    if job.started_at is None:
        return ""
    return span(((job.ended_at or now) - job.started_at).total_seconds(), compact=True)

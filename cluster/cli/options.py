"""Options that several commands share, and reading a job with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from coordinator.job import JobSpec

F = TypeVar("F", bound=Callable[..., Any])


def job_options(command: F) -> F:
    """JOB.yaml, --stages, --schedule and --set, for `read_job`."""
    decorators = [
        click.argument("job", type=click.Path(path_type=Path), metavar="JOB.yaml"),
        click.option("--stages", type=int, help="Instead of pipeline.stages; the partition becomes auto."),
        click.option("--schedule", help="Instead of pipeline.schedule."),
        click.option(
            "--set", "overrides", multiple=True, metavar="A.B=C", help="Instead of any entry; may be repeated."
        ),
    ]
    for decorator in reversed(decorators):
        command = decorator(command)
    return command


def where_options(command: F) -> F:
    """--local and --address."""
    command = click.option("--address", metavar="RAY", help="A running Ray cluster instead of an embedded one.")(
        command
    )
    return click.option("--local", is_flag=True, help="Workers as threads of this process; no Ray.")(command)


def read_job(job: Path, overrides: tuple[str, ...], *, stages: int | None, schedule: str | None) -> JobSpec:
    """The job with what the command line changes. Raises InvalidJob."""
    from coordinator.job import load_job

    partition = (
        "auto" if stages is not None and not any(o.startswith("pipeline.partition=") for o in overrides) else None
    )
    return load_job(job, overrides, stages=stages, schedule=schedule, partition=partition)


def counted(number: int, word: str) -> str:
    """`1 stage`, `3 micro-batches`."""
    plural = "es" if word.endswith("ch") else "s"
    return f"{number} {word}{plural if number != 1 else ''}"

"""Options that several commands share, and reading a job with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from coordinator.job.spec import JobSpec

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


def track_option(command: F) -> F:
    """--track, for `read_job`."""
    return click.option(
        "--track",
        "tracks",
        multiple=True,
        metavar="TRACKER",
        help="Tell TRACKER of the run too: tensorboard[:DIR] or mlflow[:URI]; may be repeated.",
    )(command)


def read_job(
    job: Path, overrides: tuple[str, ...], *, stages: int | None, schedule: str | None, tracks: tuple[str, ...] = ()
) -> JobSpec:
    """The job with what the command line changes. Raises InvalidJob, UserMistake."""
    from cluster.trackers.options import tracking_of
    from coordinator.job.spec import load_job

    partition = (
        "auto" if stages is not None and not any(o.startswith("pipeline.partition=") for o in overrides) else None
    )
    tracking = {f"tracking__{name}": where for name, where in tracking_of(tracks).items()}
    return load_job(job, overrides, stages=stages, schedule=schedule, partition=partition, **tracking)

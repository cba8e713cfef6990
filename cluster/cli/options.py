"""Options that several commands share, and the reading of a job with them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from stages.errors import UserMistake

if TYPE_CHECKING:
    from cluster.run.training import Where
    from coordinator.job.spec import JobSpec

F = TypeVar("F", bound=Callable[..., Any])


def job_options(*, required: bool = True) -> Callable[[F], F]:
    """Add JOB.yaml, --stages, --schedule and --set, for `read_job`."""
    decorators = [
        click.argument("job", type=click.Path(path_type=Path), metavar="JOB.yaml", required=required),
        click.option("--stages", type=int, help="Replace pipeline.stages; the partition becomes auto."),
        click.option("--schedule", help="Replace pipeline.schedule."),
        set_option,
    ]

    def add(command: F) -> F:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return add


class PathOrUrl(click.ParamType):  # type: ignore[type-arg]
    """A path, or a URL of checkpoints, which has the methods of a path."""

    name = "place"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See click.ParamType."""
        if isinstance(value, str) and "://" in value:
            from cluster.checkpoints.at_url import place_of

            return place_of(value)
        return Path(value)


class NumberRange(click.FloatRange):
    """A range of numbers: without NaN, and without infinity."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See click.ParamType."""
        number = super().convert(value, param, ctx)
        return number if math.isfinite(number) else self.fail(f"{value} is not a number.", param, ctx)


def set_option(command: F) -> F:
    """Add --set."""
    return click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="A.B=C",
        help="Set any entry of the job file, such as training.epochs=5; may be repeated.",
    )(command)


def where_options(command: F) -> F:
    """Add --local and --address."""
    command = click.option(
        "--address", metavar="RAY", help="Use this running Ray cluster instead of starting a Ray for this command."
    )(command)
    return click.option("--local", is_flag=True, help="Run the workers as threads of this process, without Ray.")(
        command
    )


def grace_option(command: F) -> F:
    """Add --grace."""
    return click.option(
        "--grace",
        type=NumberRange(0, 86_400),
        metavar="SECONDS",
        help="How long the run may take to save when it is stopped; else checkpoint.grace, which is 30 by default.",
    )(command)


def track_option(command: F) -> F:
    """Add --track, for `read_job`."""
    return click.option(
        "--track",
        "tracks",
        multiple=True,
        metavar="TRACKER",
        help="Also send the metrics to TRACKER: tensorboard[:DIR] or mlflow[:URI]; may be repeated.",
    )(command)


def read_job(
    job: Path, overrides: tuple[str, ...], *, stages: int | None, schedule: str | None, tracks: tuple[str, ...] = ()
) -> JobSpec:
    """Read a job file and apply the options of the command line. Raises InvalidJob, UserMistake."""
    from coordinator.job.spec import load_job

    return load_job(job, overrides, **changes_of(overrides, stages=stages, schedule=schedule, tracks=tracks))


def changes_of(
    overrides: tuple[str, ...], *, stages: int | None, schedule: str | None, tracks: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return the replacements in a job (see `load_job`) that the options stand for. Raises UserMistake."""
    from cluster.trackers.options import tracking_of

    given = any(override.startswith("pipeline.partition=") for override in overrides)
    tracking = {f"tracking__{name}": where for name, where in tracking_of(tracks).items()}
    partition = "auto" if stages is not None and not given else None
    return {"stages": stages, "schedule": schedule, "partition": partition, **tracking}


def where_of(*, local: bool, address: str | None) -> Where:
    """Return where the workers run. Raises UserMistake if both options are given."""
    from cluster.run.training import Where

    if local and address:
        raise UserMistake("--local and --address exclude each other: choose threads here, or a Ray cluster")
    return Where(local=local, address=address)

"""The argument RUN of commands: a run directory, or a job of the service by its id or name."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from stages.errors import InvalidData, NoService, UnknownJob

if TYPE_CHECKING:
    from cluster.run.saved_model import FinishedRun

F = TypeVar("F", bound=Callable[..., Any])


def run_argument(command: F) -> F:
    """Add RUN, and --address and --home of the service that has the job."""
    from cluster.cli.service_options import complete_jobs

    decorators = [
        click.argument("run", metavar="RUN", shell_complete=complete_jobs),
        click.option("--address", metavar="HOST:PORT", help="The address of the job service, if RUN is a job."),
        click.option(
            "--home",
            type=click.Path(path_type=Path, file_okay=False),
            help="The home of the job service, if RUN is a job.",
        ),
    ]
    for decorator in reversed(decorators):
        command = decorator(command)
    return command


@contextlib.contextmanager
def trained_run(run: str, *, address: str | None, home: Path | None) -> Iterator[FinishedRun]:
    """Open the run in the folder `run`. If there is no such folder, fetch the model of the job with that id or name
    into a temporary folder. Raises InvalidData if there is neither, Refused if the job has no model."""
    from cluster.run.saved_model import open_run

    folder = Path(run)
    if folder.exists() or os.sep in run:
        yield open_run(folder)
        return
    from cluster.client import Client

    with tempfile.TemporaryDirectory(prefix="pipetrain-model-") as fetched:
        try:
            with Client(address, home=home) as client:
                client.get(run).fetch(fetched, "model")
        except (NoService, UnknownJob) as error:
            raise InvalidData(f"{run}: there is no run directory of that name here, and {error}") from None
        yield open_run(Path(fetched))

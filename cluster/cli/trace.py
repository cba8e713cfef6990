"""`pipetrain trace`: record steps of a running job for Perfetto."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cluster.cli.service_options import job_argument, service_command

if TYPE_CHECKING:
    from cluster.client import Client


@click.command()
@job_argument
@click.option(
    "--steps",
    type=click.IntRange(0, 10_000),
    default=10,
    show_default=True,
    metavar="N",
    help="Record the next N steps; with 0, download the last trace that the job saved.",
)
@click.option(
    "-o",
    "--output",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("trace.json"),
    show_default=True,
    help="Where to put the trace; a file of that name is replaced.",
)
@service_command
def trace(client: Client, job_id: str, steps: int, file: Path) -> None:
    """Record steps of a running job as a Chrome trace, which Perfetto (ui.perfetto.dev) opens.

    The trace shows the measured actions of every worker and, below them, those that the schedule predicts.
    """
    import tempfile

    from coordinator.texts import size
    from stages.errors import UserMistake

    job = client.get(job_id)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=".pipetrain-trace-") as folder:
            job.trace(folder, steps).replace(file)
    except OSError as error:
        raise UserMistake(f"--output {file}: cannot be written: {error.strerror}") from None
    click.echo(f"{file}: {size(file.stat().st_size)}")

"""`pipetrain fetch`: download the run directory of a job."""

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
    "-o",
    "--output",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="DIR",
    help="Where to put the files; files of the same names are replaced.",
)
@click.option(
    "--model",
    is_flag=True,
    help="Download only what the network needs: job.yaml, model.json, model.safetensors, and, if it has them, "
    "preprocessing.json and tokenizer.json.",
)
@service_command
def fetch(client: Client, job_id: str, folder: Path, model: bool) -> None:
    """Download a job's run directory: metrics, events, logs and the trained network.

    `pipetrain evaluate DIR` and `pipetrain predict DIR` can then use it.
    """
    from coordinator.texts import counted, size

    files = client.get(job_id).fetch(folder, "model" if model else "run")
    total = sum(file.stat().st_size for file in files)
    click.echo(f"{folder}: {counted(len(files), 'file')}, {size(total)}")

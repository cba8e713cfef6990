"""`pipetrain delete`: delete jobs that have ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cluster.cli.service_options import job_arguments, service_command
from cluster.cli.texts import harmless

if TYPE_CHECKING:
    from cluster.client import Client, Job


@click.command()
@job_arguments
@service_command
def delete(client: Client, job_ids: tuple[str, ...]) -> int:
    """Delete jobs that have ended, with their run directories.

    If a job cannot be deleted, the command deletes the other ones and exits with 2.
    """
    from stages.errors import Refused, UnknownJob

    code = 0
    found: dict[str, Job] = {}
    for job_id in job_ids:  # before any job is deleted: after that, a prefix of its id could match another job
        try:
            job = client.get(job_id)
            found.setdefault(job.id, job)
        except UnknownJob as error:
            click.echo(f"error: {harmless(str(error))}", err=True)
            code = error.exit_code
    for job in found.values():
        try:
            job.delete()
            click.echo(f"deleted {job.id} ({job.name})")
        except (Refused, UnknownJob) as error:
            click.echo(f"error: {harmless(str(error))}", err=True)
            code = error.exit_code
    return code

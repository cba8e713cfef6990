"""`pipetrain stop`: the end of a job, in whatever state it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cluster.cli.service_options import detaching, hint, job_argument, service_command
from cluster.cli.texts import one_line, outcome

if TYPE_CHECKING:
    from cluster.client import Client


@click.command()
@job_argument
@click.option("--now", is_flag=True, help="End its processes at once; nothing is saved.")
@click.option("--wait/--no-wait", "waiting", default=True, help="Wait until it has stopped (default), or only ask.")
@service_command
def stop(client: Client, job_id: str, now: bool, waiting: bool) -> None:
    """Stop a job. It finishes the steps under way and saves its weights, unless --now is given.

    A job that has ended already stays as it is, and the command succeeds.
    """
    job = client.get(job_id)
    if job.done:
        click.echo(f"{job.id} has ended already: {outcome(job)}")
        return
    job.stop(now=now)
    if not job.done and not waiting:
        click.echo(f"{job.id}: {one_line(job.reason)}")
        return
    if not job.done:
        click.echo(f"{job.id}: {one_line(job.reason)}", err=True)
        with detaching(lambda: f"{job.id} was asked to stop and will; {hint('status', job.id)} tells of it"):
            job.wait()
    click.echo(f"{job.id} {outcome(job)}")

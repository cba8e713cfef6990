"""`pipetrain stop`: stop a job."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cluster.cli.options import grace_option
from cluster.cli.service_options import detaching, hint, job_argument, service_command
from cluster.cli.texts import one_line, outcome
from stages.errors import UserMistake

if TYPE_CHECKING:
    from cluster.client import Client


@click.command()
@job_argument
@click.option("--now", is_flag=True, help="End the job's processes at once; nothing is saved.")
@click.option(
    "--wait/--no-wait", "waiting", default=True, help="Wait until the job has stopped (default), or return at once."
)
@grace_option
@service_command
def stop(client: Client, job_id: str, now: bool, waiting: bool, grace: float | None) -> None:
    """Stop a job. The job finishes the steps in progress and saves its state and its weights, unless --now is given.
    The exit code of whoever follows it is 130 if its last step is saved, else 3.

    If the job has ended already, the command changes nothing and succeeds.
    """
    if now and grace is not None:
        raise UserMistake("--grace: with --now nothing is saved; give one of them")
    job = client.get(job_id)
    if job.done:
        click.echo(f"{job.id} has ended already: {outcome(job)}")
        return
    job.stop(now=now, grace=grace)
    if not job.done and not waiting:
        click.echo(f"{job.id}: {one_line(job.reason)}")
        return
    if not job.done:
        click.echo(f"{job.id}: {one_line(job.reason)}", err=True)
        with detaching(lambda: f"{job.id} is stopping; {hint('status', job.id)} shows its state"):
            job.wait()
    click.echo(f"{job.id} {outcome(job)}")

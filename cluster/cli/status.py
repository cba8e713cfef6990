"""`pipetrain status`: one job at present."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from cluster.cli.service_options import job_argument, json_option, service_command

if TYPE_CHECKING:
    from cluster.client import Client


@click.command()
@job_argument
@json_option("The job as a JSON object; its keys are always the same.")
@service_command
def status(client: Client, job_id: str, as_json: bool) -> None:
    """Show the present state of a job, and why it is in it."""
    job = client.get(job_id)
    if as_json:
        click.echo(json.dumps(job.as_dict()))
        return
    from cluster.cli.job_facts import print_facts

    print_facts(job)

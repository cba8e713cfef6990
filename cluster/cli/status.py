"""`pipetrain status`: show the state of a job."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from cluster.cli.service_options import job_argument, json_option, service_command

if TYPE_CHECKING:
    from cluster.client import Client


@click.command()
@job_argument
@json_option("Print the job as a JSON object; its keys are always the same.")
@service_command
def status(client: Client, job_id: str, as_json: bool) -> None:
    """Show the present state of a job and the reason for it.

    The JSON object of a job has these keys in every command: id, name, state, reason, attempt, step,
    steps_total, loss, validation_loss, validation_accuracy, validation_perplexity, validation_bits_per_byte,
    submitted_at, started_at, ended_at, exit_code, model_saved, priority, queue_position, queue_length, submission_id,
    workers, cpus, memory. Times are ISO 8601 in UTC, memory is in bytes; a value that is not known, or not yet, is
    null.
    """
    job = client.get(job_id)
    if as_json:
        click.echo(json.dumps(job.as_dict()))
        return
    from cluster.cli.job_facts import print_facts

    print_facts(job)

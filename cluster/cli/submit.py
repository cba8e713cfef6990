"""`pipetrain submit`: a job to the job service, followed until it has ended."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cluster.cli.options import job_options, read_job, track_option
from cluster.cli.service_options import hint, json_option, service_command

if TYPE_CHECKING:
    from cluster.client import Client, Job


@click.command()
@job_options
@click.option("--name", help="Instead of the job's own name.")
@click.option(
    "--priority", type=click.IntRange(-1000, 1000), default=0, show_default=True, help="Larger goes first in the queue."
)
@click.option(
    "--submission-id",
    metavar="TEXT",
    help="Submitting again with the same one gives the job that is there, so that a script can try again.",
)
@click.option("--force", is_flag=True, help="Begin though `plan` says that a worker's memory will not do.")
@click.option(
    "--follow/--no-wait", "following", default=True, help="Follow the job to its end (default), or print only its id."
)
@click.option(
    "--upload/--no-upload",
    default=True,
    help="Upload the data files that are here (default), or leave their paths to the hosts that will read them.",
)
@click.option(
    "--trace",
    "trace_steps",
    type=click.IntRange(0, 10_000),
    default=0,
    metavar="STEPS",
    help="Record the first STEPS steps to trace.json in its run directory.",
)
@track_option
@json_option("A JSON object a row, the last one the job; with --no-wait only the job.")
@service_command
def submit(
    client: Client,
    job: Path,
    stages: int | None,
    schedule: str | None,
    overrides: tuple[str, ...],
    name: str | None,
    priority: int,
    submission_id: str | None,
    force: bool,
    following: bool,
    upload: bool,
    trace_steps: int,
    tracks: tuple[str, ...],
    as_json: bool,
) -> int:
    """Hand JOB.yaml to the job service, with the data files that it names, and follow it.

    The exit code is the job's: 0 succeeded, 1 failed, 2 failed by a mistake in the job or its data, 130 stopped.
    Ctrl-C leaves the job to itself. Any prefix of a job's id that no other job has names it.
    """
    import json

    from cluster.cli.uploads import upload_display, warn_of_missing

    spec = read_job(job, overrides, stages=stages, schedule=schedule, tracks=tracks)
    if upload:
        warn_of_missing(spec)
    with upload_display(sys.stderr) as on_upload:
        submitted = client.submit(
            spec,
            name=name,
            priority=priority,
            submission_id=submission_id,
            force=force,
            upload=upload,
            on_upload=on_upload,
        )
    if trace_steps:
        _ask_for_trace(submitted, trace_steps)
    if following:
        from cluster.cli.follow import follow

        return follow(submitted, as_json=as_json)
    click.echo(json.dumps(submitted.as_dict()) if as_json else submitted.id)
    if not as_json:
        click.echo(f"{hint('wait', submitted.id)} waits for it, {hint('status', submitted.id)} tells of it", err=True)
    return 0


def _ask_for_trace(job: Job, steps: int) -> None:
    """The job is accepted and matters more: where it cannot be traced any more, that is only said."""
    from stages.errors import Refused

    try:
        job.request_trace(steps)
    except Refused as error:
        click.echo(f"note: no trace: {error}", err=True)

"""`pipetrain submit`: submit a job to the job service and follow it until it has ended."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cluster.cli.options import changes_of, job_options, read_job, track_option
from cluster.cli.service_options import hint, json_option, service_command
from stages.errors import UserMistake

if TYPE_CHECKING:
    from cluster.client import Client, Job
    from coordinator.job.spec import JobSpec


@click.command()
@job_options(required=False)
@click.option(
    "--resume",
    metavar="JOB",
    help="Go on from the newest checkpoint of this job, which has ended, with its job file instead of JOB.yaml.",
)
@click.option("--name", help="Replace the name in the job file.")
@click.option(
    "--priority",
    type=click.IntRange(-1000, 1000),
    default=0,
    show_default=True,
    help="Jobs of a higher priority start first.",
)
@click.option(
    "--preempt",
    is_flag=True,
    help="Let running jobs of a lower priority make room: they save a checkpoint, wait, and go on later.",
)
@click.option(
    "--submission-id",
    metavar="TEXT",
    help="If a job was submitted with the same TEXT before, return that job, so that a script can safely try again.",
)
@click.option("--force", is_flag=True, help="Start even if the plan needs more memory than a worker may use.")
@click.option(
    "--follow/--no-wait",
    "following",
    default=True,
    help="Follow the job to its end (default), or print its id and return.",
)
@click.option(
    "--upload/--no-upload",
    default=True,
    help="Upload the data files of this machine (default), or let the cluster's hosts read their own files at the "
    "same paths.",
)
@click.option(
    "--trace",
    "trace_steps",
    type=click.IntRange(0, 10_000),
    default=0,
    metavar="STEPS",
    help="Record the first STEPS steps in trace.json in the run directory.",
)
@track_option
@json_option("Print each row as a JSON object and the job as the last one; with --no-wait only the job.")
@service_command
def submit(
    client: Client,
    job: Path | None,
    resume: str | None,
    stages: int | None,
    schedule: str | None,
    overrides: tuple[str, ...],
    name: str | None,
    priority: int,
    preempt: bool,
    submission_id: str | None,
    force: bool,
    following: bool,
    upload: bool,
    trace_steps: int,
    tracks: tuple[str, ...],
    as_json: bool,
) -> int:
    """Submit JOB.yaml to the job service, with the data files that it names, and follow the job.

    The exit code is the job's: 0 succeeded, 1 failed, 2 failed because of a mistake in the job or its data, 130
    stopped, 3 stopped without a checkpoint of its last steps. Ctrl-C ends the command, not the job. Other commands find
    the job by its id, the beginning of its id, or its name.
    """
    import json

    options: dict[str, Any] = {"name": name, "priority": priority, "submission_id": submission_id, "force": force}
    options["preempt"] = preempt
    if resume is not None:
        if job is not None:
            raise UserMistake(
                f"{job}: --resume goes on with the job of {resume}; leave out the file, and change the job with --set"
            )
        changes = changes_of(overrides, stages=stages, schedule=schedule, tracks=tracks)
        submitted = client.resume(resume, overrides=overrides, **options, **changes)
    elif job is None:
        raise click.UsageError("Missing argument 'JOB.yaml'", click.get_current_context())
    else:
        spec = read_job(job, overrides, stages=stages, schedule=schedule, tracks=tracks)
        submitted = _upload_and_submit(client, spec, upload=upload, **options)
    if trace_steps:
        _ask_for_trace(submitted, trace_steps)
    if following:
        from cluster.cli.follow import follow

        return follow(submitted, as_json=as_json)
    click.echo(json.dumps(submitted.as_dict()) if as_json else submitted.id)
    if not as_json:
        click.echo(
            f"{hint('wait', submitted.id)} waits for it, {hint('status', submitted.id)} shows its state", err=True
        )
    return 0


def _upload_and_submit(client: Client, spec: JobSpec, *, upload: bool, **options: Any) -> Job:
    from cluster.cli.uploads import upload_display, warn_of_missing

    if upload:
        warn_of_missing(spec)
    with upload_display(sys.stderr) as on_upload:
        return client.submit(spec, upload=upload, on_upload=on_upload, **options)


def _ask_for_trace(job: Job, steps: int) -> None:
    """Request a trace of the first steps. If the service refuses it, print a note: the job itself is accepted."""
    from stages.errors import Refused

    try:
        job.request_trace(steps)
    except Refused as error:
        click.echo(f"note: no trace: {error}", err=True)

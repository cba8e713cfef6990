"""`pipetrain wait`: wait until jobs have ended."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from cluster.cli.options import NumberRange
from cluster.cli.service_options import detaching, job_arguments, json_option, on_break, service_command
from cluster.cli.texts import cause_of, one_line, outcome, show_failure

if TYPE_CHECKING:
    from cluster.client import Client, Job

TIMED_OUT = 124
"""The exit code for a timeout, the same as that of the command timeout(1)."""


@click.command()
@job_arguments
@click.option(
    "--timeout",
    type=NumberRange(0),
    metavar="SECONDS",
    help="Wait at most so long; exit with 124 if a job has not ended.",
)
@json_option("Print each job as a JSON object.")
@service_command
def wait(client: Client, job_ids: tuple[str, ...], timeout: float | None, as_json: bool) -> int:
    """Wait until jobs have ended, and show how they ended.

    The exit code is the job's: 0 succeeded, 1 failed, 2 failed because of a mistake in the job or its data, 130
    stopped, 3 stopped without a checkpoint of its last steps. With several jobs it is the largest of theirs; 124 if
    --timeout passed before all had ended. Ctrl-C ends the command, not the jobs.
    """
    end = None if timeout is None else time.monotonic() + timeout
    jobs = [client.get(job_id) for job_id in job_ids]
    codes: list[int] = []
    with detaching(lambda: "no longer waiting; the jobs continue"):
        for job in jobs:
            left = None if end is None else max(0.0, end - time.monotonic())
            codes.append(_wait(job, left, as_json))
    return TIMED_OUT if TIMED_OUT in codes else max(codes)


def _wait(job: Job, timeout: float | None, as_json: bool) -> int:
    cause = cause_of(job.events()) if job.done else ""
    try:
        for update in [] if job.done else job.watch(rows=False, timeout=timeout, on_break=on_break):
            cause = cause_of(update.events) or cause
    except TimeoutError:
        click.echo(f"{job.id} has not ended: {job.state}{f': {one_line(job.reason)}' if job.reason else ''}", err=True)
        return TIMED_OUT
    if as_json:
        import json

        click.echo(json.dumps(job.as_dict()))
    if job.state == "FAILED":
        show_failure(job, cause, label=f"{job.id} ")
    elif not as_json:
        click.echo(f"{job.id} {outcome(job)}")
    return 1 if job.exit_code is None else job.exit_code

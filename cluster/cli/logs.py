"""`pipetrain logs`: show the output of a job's processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

from cluster.cli.service_options import detaching, goes_on, job_argument, on_break, service_command

if TYPE_CHECKING:
    from cluster.client import Client


class _Worker(click.ParamType[int | Literal["runner"]]):
    """A worker's number, or `runner`."""

    name = "K|runner"

    def convert(
        self, value: object, parameter: click.Parameter | None, context: click.Context | None
    ) -> int | Literal["runner"]:
        """Return the worker's number, or "runner"."""
        if value == "runner":
            return "runner"
        if not str(value).isdecimal() or len(str(value)) > 7:
            self.fail(f"got {value!r}, must be a worker's number, such as 0, or runner", parameter, context)
        return int(str(value))


@click.command()
@job_argument
@click.option("-f", "--follow", is_flag=True, help="Continue to show new lines until the job has ended.")
@click.option("--worker", type=_Worker(), help="Show only this process: a worker's number, or runner.")
@click.option(
    "--tail", metavar="N", type=click.IntRange(1, 2**31 - 1), help="Begin with the last N lines of each process."
)
@service_command
def logs(client: Client, job_id: str, follow: bool, worker: int | Literal["runner"] | None, tail: int | None) -> None:
    """Show the output of a job's runner and workers. Each line begins with the process that wrote it.

    The command escapes control characters other than tabs, such as those that change colours. The log files in the run
    directory have them unchanged.

    Ctrl-C ends the command, not the job.
    """
    from cluster.cli.texts import harmless

    job = client.get(job_id)
    with detaching(lambda: goes_on(job.id) if not job.done else ""):
        for number, line in job.logs(follow=follow, worker=worker, tail=tail or 0, on_break=on_break):
            prefix = "" if worker is not None else f"{'runner' if number < 0 else f'worker {number}':<8} | "
            click.echo(prefix + harmless(line))
